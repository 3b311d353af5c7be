"""OpenVINO's CPU plugin: one inference call of a compiled model of static shapes."""

from __future__ import annotations

from collections.abc import Mapping

from memest.errors import UsageError
from memest.machines.claims import Source
from memest.machines.cpu import Cpu
from memest.machines.engines import OpenVinoSettings, Told, processor, told_to
from memest.machines.gpu import Gpu
from memest.machines.target import Target
from memest.machines.versions import version_for
from memest.memory.figure import Figure, Figures, exact, modelled
from memest.memory.planners.blocks import blocks_of
from memest.memory.planners.greedy_by_size import openvino_solver
from memest.memory.stream import Stream
from memest.network.graph import Graph
from memest.network.tensor import Shape
from memest.runtimes import executor
from memest.runtimes.openvino.lowering import TABLE, lowered
from memest.runtimes.openvino.lowering.translation import CREATED
from memest.runtimes.openvino.process import Compiled, process_of
from memest.runtimes.openvino.rows import NODES
from memest.runtimes.openvino.weights import packed_bytes
from memest.runtimes.rewriting import DROPOUTS, SAME_VALUE
from memest.runtimes.runtime import Rows, Steps
from memest.runtimes.torch.step.recipe import Recipe

RELEASE = "2026.4"
ALIGNMENT = 32  # bytes: MemoryManagerStatic::solve


class _Translated:
    """The names of torch's operators that become nodes, or nothing."""

    def __contains__(self, name: object) -> bool:
        return name in TABLE or name in CREATED or name in DROPOUTS or name in SAME_VALUE


ROWS = Rows("openvino", own=NODES, plain=_Translated())


class OpenVino:
    """A compiled model, its pool, and the process around it."""

    name = "openvino"
    title = "OpenVINO on CPU"
    source = Source(
        owner="OpenVINO's memory solver", whose="OpenVINO's", process="the process that reads, compiles and runs it, resident at most"
    )
    modes = ("infer",)
    rows = ROWS
    replays = True
    registered_alone = False

    def target(self, machine: Cpu | Gpu | None, version: str | None, recorded: str | None, told: Told | None = None) -> Target:
        """This machine's processor unless another is described; the version is torch's whose shape rules are read. UsageError for a
        precision that the processor does not have, and for more streams than threads."""
        cpu, session = processor(self.name, machine), told_to(self.name, OpenVinoSettings, told)
        if session.precision == "bfloat16" and not cpu.has_bf16:
            raise UsageError(
                "dtype 'bfloat16': this processor does not multiply it, and OpenVINO computes in float32 there: leave dtype out"
            )
        if (session.streams or 1) > cpu.threads:
            raise UsageError(f"ov_streams is {session.streams}, and there are {cpu.threads} threads; a stream has one at least")
        return Target(runtime=self.name, version=version_for(version, recorded), machine=cpu, engine=session)

    def describe(self, target: Target) -> str:
        """``openvino 2026.4 on cpu (avx512, 1 thread, float32)``."""
        cpu, told = target.cpu, settings_of(target)
        threads = f"{cpu.threads} thread{'' if cpu.threads == 1 else 's'}"
        streams = [f"{streams_of(target)} streams"] if streams_of(target) > 1 else []
        weights = [] if told.weights == "onnx" else [f"weights {told.weights}"]
        return f"openvino {RELEASE} on cpu ({', '.join((cpu.isa, threads, precision_of(target), *streams, *weights))})"

    def measured(self, target: Target) -> str:
        """What it was held against."""
        return f"openvino {RELEASE}.0 (nodes by get_runtime_model, the pool by an interposer under malloc)"

    def notes(self, target: Target) -> tuple[str, ...]:
        """What is assumed of the file, and what was never measured."""
        file = "the network is as torch.onnx.export writes it with static sizes, its weights and norms are trained ones"
        before = "process: of a program that does nothing else; what it freed before may stay resident beside it"
        narrow = ("channels last is how AVX-512 convolves; on AVX2 nothing was measured",) if target.cpu.isa != "avx512" else ()
        return (file, before, *narrow)

    def play(
        self, graph: Graph, input_shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Recipe, *, remember: bool = True
    ) -> Stream:
        """One call. UnsupportedError for what changes how torch runs it, and for operators without a rule."""
        executor.check_plain(recipe)
        precision = precision_of(recipe.target)
        nodes = lowered(graph, input_shapes, sizes, recipe.target, precision, remember=remember)
        played = executor.play(nodes, input_shapes, sizes, recipe.target, self.rows, remember=remember)
        return compiled(nodes, played, precision)

    def figures(self, requested_bytes: int, steps: Steps, target: Target) -> Figures:
        """The pool by the plugin's own planner, a time for each stream; the process by a model of what stands around it."""
        stream = steps.asked()
        assert isinstance(stream, Compiled)
        pool, streams = pool_of(stream), streams_of(target)
        return Figures(
            allocated=exact(requested_bytes, "weights as the file has them, inputs and outputs, and the planned values alive at once"),
            reserved=_reserved(pool, streams),
            process=process_of(stream, pool * streams, settings_of(target)),
        )


def _reserved(pool: int, streams: int) -> Figure:
    """One pool a stream; of several only what two streams of one network take was measured."""
    made = "the pool: what MemorySolver makes of all values but inputs and outputs"
    if streams == 1:
        return exact(pool, made)
    return modelled(pool * streams, pool, pool * streams, f"{made}, for each of {streams} streams (measured: two of one network)")


def pool_of(stream: Stream) -> int:
    """Bytes of the pool: what is made and given back during the call."""
    given_back = {event.storage.id for event in stream.events if event.delta < 0}
    return openvino_solver([block for block, storage in blocks_of(stream, ALIGNMENT) if storage.id in given_back]).nbytes


def compiled(nodes: Graph, played: Stream, precision: str) -> Compiled:
    """What is played, with what stands around it."""
    given_back = {event.storage.id for event in played.events if event.delta < 0}
    returned = {event.storage.id: event.storage.nbytes for event in played.events if event.storage.id not in given_back}
    inputs = sum(s.nbytes for s in played.residents if s.category == "input")
    return Compiled(
        residents=played.residents,
        events=played.events,
        values=played.values,
        weights=sum(s.nbytes for s in played.residents if s.category != "input"),
        packed=packed_bytes(nodes, precision),
        caller=inputs + sum(returned.values()),
        nodes=len(nodes.layers),
    )


def settings_of(target: Target) -> OpenVinoSettings:
    """What the compiled model is told."""
    assert isinstance(target.engine, OpenVinoSettings)
    return target.engine


def precision_of(target: Target) -> str:
    """What is computed in: as told, else bfloat16 where the processor multiplies it."""
    return settings_of(target).precision or ("bfloat16" if target.cpu.has_bf16 else "float32")


def streams_of(target: Target) -> int:
    """How many streams there are: as told, else one, or with the hint of throughput one a thread."""
    told = settings_of(target)
    return told.streams or (target.cpu.threads if told.hint == "throughput" else 1)


RUNTIME = OpenVino()
