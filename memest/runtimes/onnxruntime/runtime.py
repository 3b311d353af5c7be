"""ONNX Runtime's CPU provider: a graph exported, rewritten, planned and played, without onnx or onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from memest.errors import UnsupportedError, UsageError
from memest.machines.claims import Source
from memest.machines.cpu import Cpu
from memest.machines.cuda import CudaSettings, refuse_settings
from memest.machines.engines import Engine, OnnxSettings, refuse_engine
from memest.machines.gpu import Gpu
from memest.machines.target import Target
from memest.machines.versions import version_for
from memest.memory.figure import Figures, exact
from memest.memory.stream import Stream
from memest.network.graph import Graph
from memest.network.tensor import Shape
from memest.runtimes.onnxruntime.lowering import lowered
from memest.runtimes.onnxruntime.memory import arena_after, most_alive, pattern_block
from memest.runtimes.onnxruntime.playing import played
from memest.runtimes.onnxruntime.process import process_of
from memest.runtimes.onnxruntime.rows import ROWS
from memest.runtimes.runtime import Steps
from memest.runtimes.torch.step.recipe import Recipe

RELEASE = "1.32"
UNSETTLED = "where a node reads several reordered tensors the order of nodes, and with it the block, differs by session"


class OnnxRuntime:
    """Sequential execution on a processor, in float32 by blocks of channels as wide as a vector register."""

    name = "onnxruntime"
    title = "ONNX Runtime"
    source = Source(
        owner="ONNX Runtime's planner", whose="ONNX Runtime's", process="the process that loads a session and runs it, resident at most"
    )
    modes = ("infer",)
    rows = ROWS
    replays = True
    registered_alone = False

    def target(
        self,
        machine: Cpu | Gpu | None,
        version: str | None,
        recorded: str | None,
        cuda: CudaSettings | None = None,
        engine: Engine | None = None,
    ) -> Target:
        """This machine's processor unless another is described; the version is torch's whose shape rules are read."""
        if isinstance(machine, Gpu):
            raise UsageError(f"runtime {self.name} runs on a processor, {machine.name} is an accelerator; give memest.Cpu(…)")
        refuse_settings(self.name, cuda)
        if engine is not None and not isinstance(engine, OnnxSettings):
            refuse_engine(self.name, engine)
        return Target(
            runtime=self.name, version=version_for(version, recorded), machine=machine or Cpu.detect(), engine=engine or OnnxSettings()
        )

    def describe(self, target: Target) -> str:
        """``onnxruntime 1.32 on cpu (avx512, 1 thread)``."""
        cpu = target.cpu
        told = _told(settings_of(target))
        return f"onnxruntime {RELEASE} on cpu ({', '.join((cpu.isa, f'{cpu.threads} thread' + 's' * (cpu.threads > 1), *told))})"

    def measured(self, target: Target) -> str:
        """What it was held against."""
        return f"onnxruntime {RELEASE}.0 (an interposer under malloc, the arena's log)"

    def notes(self, target: Target) -> tuple[str, ...]:
        """What is assumed of the file."""
        where = "outside the file (inside it the process takes more: ort_external=False, --no-ort-external)"
        weights = (f"weights are taken to lie {where}",) if settings_of(target).external else ()
        return ("the network is as torch.onnx.export writes it with static sizes; its nodes run one after the other", *weights)

    def play(
        self, graph: Graph, input_shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Recipe, *, remember: bool = True
    ) -> Stream:
        """The first call at these sizes. UnsupportedError for what changes how torch runs it, and for operators without a rule."""
        if replace(recipe, hold_output=False, step=None, segments=()) != Recipe(training=False, target=recipe.target):
            raise UnsupportedError(
                "runtime onnxruntime plays one plain call of the network: leave out levers that change how torch runs it"
            )
        net, values = lowered(graph, input_shapes, sizes, recipe.target, settings_of(recipe.target), remember=remember)
        return played(net, recipe.target.cpu.threads, values)

    def figures(self, requested_bytes: int, steps: Steps, target: Target) -> Figures:
        """The plan of the first run; from the second on the pattern's block, and what the arena makes of both."""
        stream, settings = steps.asked(), settings_of(target)
        block = pattern_block(stream)
        later = settings.pattern and not steps.is_first
        if later:
            reserved = exact(block, f"the memory pattern's block, which each run of a shape from the second on takes; {UNSETTLED}")
        else:
            reserved = exact(most_alive(stream), "the most bytes of buffers and temporaries at once: each is a request of its own")
        besides = []
        if settings.arena:
            first = arena_after(stream, settings, 1)
            besides.append(("arena_first_run", exact(first.most, "regions that the arena takes in the first run")))
            if not steps.is_first:
                besides.append(("arena", exact(arena_after(stream, settings).most, "regions that the arena holds from the second run on")))
        return Figures(
            allocated=exact(requested_bytes, "weights as they are packed, inputs, and the planned buffers and temporaries alive at once"),
            reserved=reserved,
            process=process_of(stream, settings, len({e.layer for e in stream.events}), first=steps.is_first),
            besides=tuple(besides),
        )


def settings_of(target: Target) -> OnnxSettings:
    """What the session is told."""
    assert isinstance(target.engine, OnnxSettings)
    return target.engine


def _told(settings: OnnxSettings) -> tuple[str, ...]:
    """What is not left as it is, in words."""
    level = () if settings.level == "all" else (f"optimization {settings.level}",)
    off = tuple(f"no {name}" for name, on in (("arena", settings.arena), ("pattern", settings.pattern)) if not on)
    return (*level, *off, *(("shrinkage",) if settings.shrinkage else ()))


RUNTIME = OnnxRuntime()
