"""torch on a processor: rows as their families describe them, exact to the byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from memest.errors import UnsupportedError
from memest.machines.claims import TORCH_ON_CPU
from memest.machines.cpu import Cpu
from memest.machines.engines import Told, processor, refuse_told
from memest.machines.gpu import Gpu
from memest.machines.process import ProcessSettings
from memest.machines.target import TORCH_CPU, Target
from memest.machines.versions import text_of, torch_of, version_for
from memest.memory.figure import Figures, exact, unknown
from memest.memory.stream import Stream
from memest.network.graph import Graph
from memest.network.tensor import Shape
from memest.ops.composite import Caller
from memest.ops.families.attention.rows import FLASH, MATH, allowed, can_fuse
from memest.ops.table import COMPOSITES
from memest.runtimes.runtime import EVERY, Rows, Steps
from memest.runtimes.torch.process.figure import process_of
from memest.runtimes.torch.step import Recipe, play

NOT_COUNTED = "not counted here: the process itself, and pages malloc keeps (malloc='glibc', --malloc glibc models both)"
ATTENTION = COMPOSITES["scaled_dot_product_attention"]


def _attention(c: Caller, query: Any, key: Any, value: Any, mask: Any, *, backends: tuple[str, ...] | None, **asked: Any) -> Any:
    """As described; UnsupportedError where torch has no kernel of those that are left to choose from."""
    fits = can_fuse(c.target, query, key, value, mask, asked["dropout_p"], asked["enable_gqa"])
    if not allowed(MATH, backends) and not (fits and allowed(FLASH, backends)):
        raise UnsupportedError(
            f"attention by {' or '.join(backends or ())} alone: torch has no such kernel for this call on CPU; allow math"
        )
    return ATTENTION.compose(c, query, key, value, mask, backends=backends, **asked)


class TorchCpu:
    """torch's CPU allocator asks the system for each tensor and gives it back at once: what is reserved is what is allocated."""

    name = TORCH_CPU
    title = "torch on CPU"
    source = TORCH_ON_CPU
    modes = ("train", "infer")
    rows = Rows(TORCH_CPU, own={ATTENTION.name: replace(ATTENTION, compose=_attention)}, same=EVERY)
    replays = False
    registered_alone = True

    def target(self, machine: Cpu | Gpu | None, version: str | None, recorded: str | None, told: Told | None = None) -> Target:
        """This machine's processor unless another is described; the version as :func:`memest.machines.versions.version_for` finds it."""
        cpu = processor(self.name, machine)
        process = told if isinstance(told, ProcessSettings) else None
        if process is None:
            refuse_told(self.name, told)
        return Target(runtime=self.name, version=version_for(version, recorded), machine=cpu, process=process)

    def describe(self, target: Target) -> str:
        """``torch 2.13 on cpu (avx512, 2 threads)``."""
        return f"torch {text_of(target.version)} on cpu ({_processor(target.cpu, ', ')})"

    def measured(self, target: Target) -> str:
        """``torch 2.13 (measured on 2.13.0 by …) with avx512 and 2 threads``."""
        return f"{torch_of(target.version, None)} with {_processor(target.cpu, ' and ')}"

    def notes(self, target: Target) -> tuple[str, ...]:
        """None."""
        return ()

    def play(
        self, graph: Graph, input_shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Recipe, *, remember: bool = True
    ) -> Stream:
        """One step of training or inference (:mod:`memest.runtimes.torch.step`)."""
        return play(graph, input_shapes, sizes, recipe, self.rows, remember=remember)

    def figures(self, requested_bytes: int, steps: Steps, target: Target) -> Figures:
        """What is asked for is what is handed out and what is taken: nothing is cached between tensors (c10/core/CPUAllocator.cpp). The
        process is modelled where something is told of it."""
        return Figures(
            allocated=exact(requested_bytes, "every byte torch's CPU allocator hands out in this step"),
            reserved=exact(requested_bytes, "torch's CPU allocator keeps nothing back: each tensor is one posix_memalign and one free"),
            process=unknown(NOT_COUNTED) if target.process is None else process_of(steps, target.process),
        )


def _processor(cpu: Cpu, joined: str) -> str:
    return f"{cpu.isa}{joined}{cpu.threads} thread{'' if cpu.threads == 1 else 's'}"


RUNTIME = TorchCpu()
