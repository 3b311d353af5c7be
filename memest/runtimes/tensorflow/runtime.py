"""Keras on TensorFlow's CPU kernels: one call of a network, or one training step as ``train_on_batch`` makes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from memest.errors import UnsupportedError, UsageError
from memest.machines.claims import Source
from memest.machines.cpu import Cpu
from memest.machines.engines import TensorFlowSettings, Told, processor, told_to
from memest.machines.gpu import Gpu
from memest.machines.target import Target
from memest.machines.versions import version_for
from memest.memory.figure import Figures, exact, modelled
from memest.memory.stream import Stream
from memest.network.graph import Graph
from memest.network.tensor import Shape, spec
from memest.runtimes.executor import beyond_plain
from memest.runtimes.runtime import Rows, Steps
from memest.runtimes.tensorflow.building.stepping import TABLE, built
from memest.runtimes.tensorflow.costs import costs
from memest.runtimes.tensorflow.executing import Run
from memest.runtimes.tensorflow.grappler import optimized
from memest.runtimes.tensorflow.memory import Step, arena_of
from memest.runtimes.tensorflow.nodes import Net, Node
from memest.runtimes.tensorflow.process import process_of
from memest.runtimes.tensorflow.scheduling import USUAL, Moment, Way, ahead, dealt, one_by_one, ordered, scheduled
from memest.runtimes.torch.step.recipe import Recipe

RELEASE, KERAS = "2.21", "3.15"
TURNS = 8  # orders that are tried by chance, besides those by rule, and one
BESIDE = 6  # orders that are tried on several threads, too


@dataclass(frozen=True, slots=True, kw_only=True)
class Played(Step):
    """A step; ``orders`` are those that TensorFlow may take as well, ``least`` is what is alive at once in any order: what stands, and what
    one kernel reads and makes."""

    orders: tuple[Stream, ...]
    least: int


class TensorFlowCpu:
    """The stock wheel, with oneDNN's kernels or Eigen's."""

    name = "tensorflow-cpu"
    title = "TensorFlow on CPU"
    source = Source(
        owner="TensorFlow's allocator",
        whose="TensorFlow's",
        process="the Python process that builds the model and runs it, resident at most",
    )
    modes = ("train", "infer")
    rows = Rows("tensorflow-cpu", plain=TABLE)
    replays = True
    registered_alone = False

    def target(self, machine: Cpu | Gpu | None, version: str | None, recorded: str | None, told: Told | None = None) -> Target:
        """This machine's processor unless another is described; the version is torch's whose shape rules are read. UnsupportedError for a
        compiled step, UsageError for a version, which could only be torch's."""
        if version is not None:
            raise UsageError(f"torch {version} runs nothing of a step on {self.name}, which is TensorFlow {RELEASE}'s: leave out torch")
        cpu, settings = processor(self.name, machine), told_to(self.name, TensorFlowSettings, told)
        if settings.jit:
            raise UnsupportedError(
                "jit: XLA lays a step out by a plan of its own, which is not modelled; leave it out, and compile with jit_compile=False"
            )
        return Target(runtime=self.name, version=version_for(version, recorded), machine=cpu, engine=settings)

    def describe(self, target: Target) -> str:
        """``tensorflow 2.21 on cpu (avx512, 1 thread, oneDNN on)``."""
        cpu, told = target.cpu, settings_of(target)
        threads = f"{cpu.threads} thread{'' if cpu.threads == 1 else 's'}"
        between = [] if told.inter_op is None else [f"inter_op {told.inter_op}"]
        return f"tensorflow {RELEASE} on cpu ({', '.join((cpu.isa, threads, *between, f'oneDNN {told.onednn}'))})"

    def measured(self, target: Target) -> str:
        """What it was held against."""
        return f"tensorflow-cpu {RELEASE}.0 and keras {KERAS}.1 (the log of its tensors, event by event)"

    def notes(self, target: Target) -> tuple[str, ...]:
        """What is assumed, and what the setting costs."""
        step = "the model is compiled with jit_compile=False (Keras's own choice is XLA), and called by train_on_batch or predict_on_batch"
        if settings_of(target).onednn == "on":
            return (step,)
        cost = (
            "oneDNN off: Eigen's gradients of convolutions unroll their input into columns, kernel times as large, once for each of the "
            "two; on volumes the step takes some 4 times as much as with --onednn on"
        )
        return step, cost

    def play(
        self, graph: Graph, input_shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Recipe, *, remember: bool = True
    ) -> Stream:
        """One step. UnsupportedError for levers that change how torch runs it, and for what has no rule."""
        _check_plain(recipe)
        _check_dtypes(graph)
        target = recipe.target
        net = built(graph, input_shapes, sizes, recipe, remember=remember)
        nodes = optimized(net, settings_of(target).onednn == "on")
        first, *others = [_played(net, way, target) for way in _ways(net, nodes, recipe)]
        values = {v.name: spec(v.shape, v.dtype) for v in net.values.values()}
        return Played(
            residents=tuple(first.residents),
            events=tuple(first.events),
            workers=tuple(first.workers),
            values=values,
            orders=tuple(Stream(residents=tuple(o.residents), events=tuple(o.events), values=values) for o in others),
            trained=recipe.training,
            nodes=len(nodes),
            filters=max((n.outputs[0].nbytes for n in nodes if "BackpropFilter" in n.op), default=0),
            least=sum(s.nbytes for s in first.residents) + first.largest_kernel,
        )

    def figures(self, requested_bytes: int, steps: Steps, target: Target) -> Figures:
        """The most tensor bytes alive for the modelled order, with the others' as its range; the arena, or what is asked of malloc; the
        process by a model of what stands around it."""
        stream = steps.asked()
        assert isinstance(stream, Played)
        told = settings_of(target)
        peaks = [requested_bytes, *map(peak_of, stream.orders)]
        together = concurrent(stream) if (told.inter_op or target.cpu.threads) > 1 else 0
        waiting = updates_of(stream) if stream.trained else 0
        low, high = max(min(peaks) - waiting, stream.least), max(peaks) + waiting + together
        order = "in the order of one thread that takes what became ready last"
        if low == high:
            allocated = exact(requested_bytes, f"variables, inputs, and tensors alive at once, {order}")
        else:
            reason = f"variables, inputs, and tensors alive at once, {order}; gradients of filters may come earlier, or run beside others"
            allocated = modelled(requested_bytes, low, high, reason)
        arena = arena_of(stream)
        inputs = sum(s.nbytes for s in stream.residents if s.category == "input")
        if told.onednn == "on":
            nbytes = arena.regions + arena.small
            wide = max(o.regions + o.small for o in map(arena_of, stream.orders)) + 2 * together
            reserved = modelled(nbytes, min(nbytes, arena.use), max(nbytes, wide), "regions of the arena, which double, and small tensors")
        else:
            reason = "asked of malloc; inputs lie in NumPy's arrays"
            reserved = replace(allocated, bytes=requested_bytes - inputs, low=low - inputs, high=high - inputs, reason=reason)
        return Figures(allocated=allocated, reserved=reserved, process=process_of(stream, allocated, told.onednn))


def in_order(graph: Graph, input_shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Recipe, names: Iterable[str]) -> Stream:
    """A step whose nodes run in the order of ``names``, which are TensorFlow's without the model's scope."""
    net = built(graph, input_shapes, sizes, recipe, remember=True)
    nodes = optimized(net, settings_of(recipe.target).onednn == "on")
    run = _played(net, one_by_one(ordered(nodes, names)), recipe.target)
    return Stream(residents=tuple(run.residents), events=tuple(run.events), values={})


def _ways(net: Net, nodes: list[Node], recipe: Recipe) -> list[Iterable[Moment]]:
    """How a step may go: the usual way first. One thread has its order alone; several work side by side, but they may be slow to begin,
    so that one does all that another could."""
    ways = [USUAL, Way(shallow=True), Way(late=True), *(Way(turn=n) for n in range(1, TURNS))]
    last = [Way(filters_last=True), Way(filters_last=True, shallow=True)] if recipe.training else []
    alone = [scheduled(nodes, way) for way in [*ways, *last]]
    found: list[Iterable[Moment]] = [one_by_one(order) for order in (*alone, ahead(alone[0], net.inputs))]
    workers = workers_of(recipe.target)
    if workers > 1:
        takes = costs(nodes, net.values)
        found = [*(dealt(nodes, way, workers, takes) for way in ways[:BESIDE]), *found]
    return found


def workers_of(target: Target) -> int:
    """Threads between which nodes are dealt out."""
    return settings_of(target).inter_op or target.cpu.threads


def _played(net: Net, moments: Iterable[Moment], target: Target) -> Run:
    run = Run(net, target.cpu, settings_of(target).onednn == "on")
    run.stand()
    run.play(moments)
    return run


def peak_of(stream: Stream) -> int:
    """The most bytes alive at once, what stands before included."""
    alive = most = sum(s.nbytes for s in stream.residents)
    for event in stream.events:
        alive += event.delta
        most = max(most, alive)
    return most


def updates_of(stream: Stream) -> int:
    """Bytes of the largest variable's update, which may come before the peak or wait until it is over."""
    return 2 * max((e.delta for e in stream.events if e.phase == "optimizer"), default=0)


def concurrent(stream: Stream) -> int:
    """Bytes that a second kernel may hold beside the peak's: the largest buffer inside a kernel, or a variable's update."""
    inside = max((e.delta for e in stream.events if e.storage.category == "workspace"), default=0)
    return max(inside, updates_of(stream))


def _check_plain(recipe: Recipe) -> None:
    """UnsupportedError for a recipe that is more than one step of the network as it stands."""
    plain = Recipe(training=recipe.training, optimizer=recipe.optimizer, loss=recipe.loss, target=recipe.target)
    if recipe.hold_output:
        raise UnsupportedError("runtime tensorflow-cpu plays train_on_batch, which holds no output in a variable: leave out hold_output")
    if replace(recipe, step=None, segments=()) != plain:
        raise UnsupportedError(f"runtime tensorflow-cpu plays one plain step of the network: leave out {beyond_plain(recipe)}")


def _check_dtypes(graph: Graph) -> None:
    """UnsupportedError for a network in another dtype than float32."""
    other = next((p.dtype for p in graph.parameters if p.dtype not in ("float32", "int64")), None)
    if other is not None:
        raise UnsupportedError(f"no rule for {other} on tensorflow-cpu, nor for mixed_bfloat16: ask in float32, which is Keras's own")


def settings_of(target: Target) -> TensorFlowSettings:
    """What TensorFlow is told."""
    assert isinstance(target.engine, TensorFlowSettings)
    return target.engine


RUNTIME = TensorFlowCpu()
