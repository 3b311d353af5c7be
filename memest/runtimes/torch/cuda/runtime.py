"""torch on CUDA: rows of its own kernels, and its caching allocator played over the steps that lead to the one asked about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from memest.errors import UsageError
from memest.machines.claims import TORCH_ON_CUDA
from memest.machines.cpu import Cpu
from memest.machines.cuda import CudaSettings, shipped_with
from memest.machines.engines import Told, told_to
from memest.machines.gpu import Gpu
from memest.machines.target import TORCH_CUDA, Target
from memest.machines.versions import text_of, version_for
from memest.machines.wheels import unsupported
from memest.memory.allocators.settings import read_settings
from memest.memory.figure import Figures
from memest.memory.stream import Stream
from memest.network.graph import Graph
from memest.network.tensor import Shape
from memest.runtimes.runtime import Steps
from memest.runtimes.torch.cuda.replay import figures_of
from memest.runtimes.torch.cuda.rows import ROWS
from memest.runtimes.torch.step import Recipe, play


class TorchCuda:
    """torch's CUDA build on one accelerator."""

    name = TORCH_CUDA
    title = "torch on CUDA"
    source = TORCH_ON_CUDA
    modes = ("train", "infer")
    rows = ROWS
    replays = True
    registered_alone = False

    def target(self, machine: Cpu | Gpu | None, version: str | None, recorded: str | None, told: Told | None = None) -> Target:
        """A described accelerator, which has to be named; cuDNN is the release that this torch's wheel ships unless another is set.
        UsageError for settings of the allocator that this torch does not take, or that are not played."""
        if not isinstance(machine, Gpu):
            raise UsageError(f"runtime {self.name} runs on an accelerator: name one, such as machine='h100-80gb' (--on h100-80gb)")
        if machine.device is None:
            raise UsageError(f"runtime {self.name} cannot run on {machine.name}: it is no CUDA device that is described here")
        modelled, settings = version_for(version, recorded), told_to(self.name, CudaSettings, told)
        if settings.cudnn is None:
            settings = replace(settings, cudnn=shipped_with(modelled))
        if read_settings(settings.alloc_conf, modelled).per_process_memory_fraction < 1:
            raise UsageError("alloc_conf: per_process_memory_fraction is not played; leave it out, and give what it leaves as a budget")
        return Target(runtime=self.name, version=modelled, machine=machine, cuda=settings)

    def describe(self, target: Target) -> str:
        """``torch 2.14 on cuda (h100-80gb, cuDNN 9.24)``."""
        return f"torch {text_of(target.version)} on cuda ({_card(target)})"

    def measured(self, target: Target) -> str:
        """What the rows were held against."""
        return f"torch {text_of(target.version)} (its CUDA build on a stand-in for the CUDA runtime, no card) on {_card(target)}"

    def notes(self, target: Target) -> tuple[str, ...]:
        """Where this torch, or this cuDNN, has no kernels for the card: what is played is then what they would choose, not what runs."""
        settings, said = target.settings, unsupported(target.device, target.version, target.settings.cudnn)
        idle = [name for name, on in (("benchmark", settings.benchmark), ("deterministic", settings.deterministic)) if on]
        without = f"cudnn_{' and cudnn_'.join(idle)} without cudnn_enabled: nothing changes, cuDNN is off" if idle else ""
        return (*([said] if said else []), *([without] if without and not settings.enabled else []))

    def play(
        self, graph: Graph, input_shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Recipe, *, remember: bool = True
    ) -> Stream:
        """One step of training or inference (:mod:`memest.runtimes.torch.step`)."""
        return play(graph, input_shapes, sizes, recipe, self.rows, remember=remember)

    def figures(self, requested_bytes: int, steps: Steps, target: Target) -> Figures:
        """What the caching allocator makes of the steps; what the driver shows."""
        return figures_of(steps, target)


def _card(target: Target) -> str:
    assert isinstance(target.machine, Gpu)
    release = target.settings.cudnn
    off = "" if target.settings.enabled else " off"
    return f"{target.machine.name}, cuDNN {'' if release is None else text_of(release)}{off}"


RUNTIME = TorchCuda()
