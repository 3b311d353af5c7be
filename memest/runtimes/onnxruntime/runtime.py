"""ONNX Runtime's CPU provider: a graph exported, rewritten, planned and played, without onnx or onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from memest.machines.claims import Source
from memest.machines.cpu import Cpu
from memest.machines.engines import OnnxSettings, Told, processor, told_to
from memest.machines.gpu import Gpu
from memest.machines.target import Target
from memest.machines.versions import version_for
from memest.memory.figure import Figure, Figures, exact, modelled
from memest.memory.stream import Stream
from memest.network.graph import Graph
from memest.network.tensor import Shape
from memest.runtimes import executor
from memest.runtimes.onnxruntime.lowering import lowered
from memest.runtimes.onnxruntime.memory import RUNS, arena_after, most_alive, pattern_block
from memest.runtimes.onnxruntime.playing import Session, played
from memest.runtimes.onnxruntime.process import process_of
from memest.runtimes.onnxruntime.rows import ROWS
from memest.runtimes.runtime import Steps
from memest.runtimes.torch.step.recipe import Recipe

RELEASE = "1.32"
UNSETTLED = "a node reads several reordered tensors, whose order, and with it this, differs by session: both ways round are its range"


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

    def target(self, machine: Cpu | Gpu | None, version: str | None, recorded: str | None, told: Told | None = None) -> Target:
        """This machine's processor unless another is described; the version is torch's whose shape rules are read."""
        cpu, session = processor(self.name, machine), told_to(self.name, OnnxSettings, told)
        return Target(runtime=self.name, version=version_for(version, recorded), machine=cpu, engine=session)

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
        executor.check_plain(recipe)
        target, threads = recipe.target, recipe.target.cpu.threads
        lower = partial(lowered, graph, input_shapes, sizes, target, settings_of(target), remember=remember)
        net, values, unsettled = lower()
        other = played(lower(youngest_first=False)[0], threads, values) if unsettled else None
        return played(net, threads, values, other)

    def figures(self, requested_bytes: int, steps: Steps, target: Target) -> Figures:
        """The plan of the first run; from the second on the pattern's block, and what the arena makes of both."""
        stream, settings = steps.asked(), settings_of(target)
        later = settings.pattern and not steps.is_first
        if later:
            reserved = _in_either_order(
                stream, pattern_block, "the memory pattern's block, which each run of a shape from the second on takes"
            )
        else:
            reserved = exact(most_alive(stream), "the most bytes of buffers and temporaries at once: each is a request of its own")
        besides = []
        if settings.arena:
            for name, runs, said in (("arena_first_run", 1, "takes in the first run"), ("arena", RUNS, "holds from the second run on")):
                if runs == 1 or not steps.is_first:
                    regions = partial(_regions, settings, runs)
                    besides.append((name, _in_either_order(stream, regions, f"regions that the arena {said}")))
        return Figures(
            allocated=exact(requested_bytes, "weights as they are packed, inputs, and the planned buffers and temporaries alive at once"),
            reserved=reserved,
            process=process_of(stream, settings, len({e.layer for e in stream.events}), first=steps.is_first),
            besides=tuple(besides),
        )


def _regions(settings: OnnxSettings, runs: int, stream: Stream) -> int:
    return arena_after(stream, settings, runs).most


def _in_either_order(stream: Stream, count: Callable[[Stream], int], reason: str) -> Figure:
    """What is counted in the stream; where a session may take another order, and that counts otherwise, with both as its range."""
    found = count(stream)
    other = stream.other if isinstance(stream, Session) else None
    turned = found if other is None else count(other)
    if turned == found:
        return exact(found, reason)
    return modelled(found, min(found, turned), max(found, turned), f"{reason}; {UNSETTLED}")


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
