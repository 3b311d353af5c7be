"""What can be changed so that a step needs less memory: the table that ``advise`` goes through.

A row is a candidate: what kind of price it has, and the changes it proposes in one situation, gentlest first. Rows stand in the order
in which they are resorted to: by kind, and a smaller input after whatever leaves the input alone. Rows of one slot exclude one another.
A row whose lever is not in the table of levers, or is pulled already, proposes nothing. Not in the table: what changes
what is learned (``freeze``) or needs more memory (``ema``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from memest.errors import UsageError
from memest.levers.table import LEVERS
from memest.machines.cpu import Cpu
from memest.machines.engines import ENGINES, OpenVinoSettings
from memest.machines.gpu import Gpu
from memest.machines.process import malloc_named
from memest.machines.target import TORCH_CPU, TORCH_CUDA
from memest.network.graph import Graph
from memest.network.tensor import Shape, Spec
from memest.ops.facts import BATCH, SAMPLE, Statistics
from memest.ops.table import operator_named
from memest.planning.axes import batch_symbol, symbols_in_order
from memest.runtimes.torch.optimizers import Optimizer, optimizer_named
from memest.sizes.units import exact_bytes

Kind = Literal["free", "time", "numbers", "machines"]
KINDS: dict[Kind, str] = {  # cheapest first
    "free": "the same numbers in about the same time",
    "time": "the same numbers in more time",
    "numbers": "other numbers",
    "machines": "more machines",
}
INPUT = "input"
RANKS = 2 * len(KINDS)
WORLDS = (2, 4, 8)
HALF = ("bfloat16", "float16")
EXPANDABLE = "expandable_segments"
MULTIPLIES_BFLOAT16 = (8, 0)  # compute capability: from Ampere on


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change as a user writes it (a lever, or SETTING=VALUE), and what it does to the keywords of ``estimate``: a lever more, other
    settings, other sizes of the graph's symbols."""

    text: str
    lever: str = ""
    settings: tuple[tuple[str, Any], ...] = ()
    sizes: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Situation:
    """The step that needs too much: its graph, the shapes and sizes of its inputs, the other keywords of ``estimate``, the limit in bytes,
    and how many bytes count against it ``besides`` those asked for (rounding, what an allocator caches, a context)."""

    graph: Graph
    shapes: Mapping[str, Shape]
    sizes: Mapping[str, int]
    step: Mapping[str, Any]
    limit: int
    besides: int = 0

    @property
    def on_cuda(self) -> bool:
        """Whether torch's CUDA build runs it."""
        return self.step.get("runtime") == TORCH_CUDA

    @property
    def engine(self) -> str:
        """The inference engine that runs it, by its name; '' where torch does."""
        runtime = str(self.step.get("runtime", TORCH_CPU))
        return runtime if runtime in {kind.runtime for kind in ENGINES} else ""

    @property
    def mode(self) -> str:
        """``train`` or ``infer``."""
        return str(self.step.get("mode", "train"))

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer of the step."""
        return optimizer_named(self.step.get("optimizer", "sgd"))

    @property
    def batch(self) -> tuple[str, int]:
        """The batch's symbol and its size; UsageError where the graph has a number in its place."""
        symbol = batch_symbol(self.graph)
        if symbol is None:
            raise UsageError("the graph's batch is a number; describe it as a symbol, such as N")
        return symbol, self.sizes[symbol]

    @property
    def spatial(self) -> dict[str, int]:
        """The other symbols of the inputs; UsageError where there are none."""
        first = batch_symbol(self.graph)
        found = {s: self.sizes[s] for s in symbols_in_order(self.graph) if s != first}
        if not found:
            raise UsageError("the graph's spatial sizes are numbers; describe them as symbols, such as H and W")
        return found

    def takes(self, statistics: Statistics) -> bool:
        """True when a layer takes such statistics from what it sees."""
        played = self.graph if self.mode == "train" or self.graph.inference is None else self.graph.inference
        return any(
            operator_named(layer.op).facts.statistics is statistics and dict(layer.attributes).get("training") is not False
            for layer in played.layers
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One row. ``lever`` is the lever it needs ('' for a setting), ``price`` what it costs ('' for the lever's own price); ``propose``
    gives its changes, gentlest first, none where it means nothing, or raises UsageError with the reason why it cannot be."""

    name: str
    slot: str
    kind: Kind
    modes: tuple[str, ...]
    lever: str
    price: str
    propose: Callable[[Situation], Iterable[Change]]

    @property
    def rank(self) -> int:
        """How late it is resorted to: by its kind, a smaller input after the others of its kind."""
        return 2 * list(KINDS).index(self.kind) + (self.slot == INPUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One change of one candidate; ``grade`` counts from the gentlest, ``order`` is its place in the whole list."""

    candidate: Candidate
    change: Change
    grade: int
    order: int

    @property
    def rank(self) -> int:
        """That of its candidate."""
        return self.candidate.rank

    @property
    def price(self) -> str:
        """What it costs, in words."""
        return self.candidate.price or LEVERS[self.candidate.lever].price

    def clashes(self, other: Choice) -> bool:
        """True when both cannot be made: one slot, or a size that both set."""
        shared = {s for s, _ in self.change.sizes} & {s for s, _ in other.change.sizes}
        return self.candidate.slot == other.candidate.slot or bool(shared)


def choices(situation: Situation) -> tuple[tuple[Choice, ...], tuple[tuple[str, str], ...]]:
    """Every change the table proposes, and (candidate, reason) for those that cannot be proposed."""
    pulled = {text.partition(":")[0].strip() for text in situation.step.get("levers", ())}
    found: list[Choice] = []
    refused: list[tuple[str, str]] = []
    for row in CANDIDATES:
        if situation.mode not in row.modes or (row.lever and (situation.engine or row.lever not in LEVERS or row.lever in pulled)):
            continue
        try:
            for grade, change in enumerate(row.propose(situation)):
                found.append(Choice(candidate=row, change=change, grade=grade, order=len(found)))
        except UsageError as e:
            refused.append((row.name, str(e)))
    return tuple(found), tuple(refused)


def _lever(*texts: str) -> Callable[[Situation], Iterable[Change]]:
    return lambda situation: [Change(text=text, lever=text) for text in texts]


def _setting(name: str, value: Any) -> Change:
    shown = str(value).lower() if isinstance(value, bool) else value
    return Change(text=f"{name}={shown}", settings=((name, value),))


def _release_output(situation: Situation) -> Iterator[Change]:
    if situation.step.get("hold_output"):
        yield _setting("hold_output", False)


def _half_dtype(situation: Situation) -> Iterator[Change]:
    if situation.step.get("dtype") not in HALF:
        yield _setting("dtype", "bfloat16")


def _variant(situation: Situation, option: str, value: str) -> Change:
    """The same optimizer, with another way to run its step."""
    name, _, tail = situation.optimizer.text.partition(":")
    kept = [part.strip() for part in tail.split(",") if part.strip() and part.partition("=")[0].strip() not in ("foreach", "fused")]
    return _setting("optimizer", f"{name}:{','.join([*kept, f'{option}={value}'])}")


def _loop_optimizer(situation: Situation) -> Iterator[Change]:
    asked = dict(situation.optimizer.options)["foreach"]
    if asked or (asked is None and situation.on_cuda and not dict(situation.optimizer.options)["fused"]):
        yield _variant(situation, "foreach", "false")


def _fused_optimizer(situation: Situation) -> Iterator[Change]:
    if not situation.engine and situation.optimizer.row.fused is not None and not dict(situation.optimizer.options)["fused"]:
        yield _variant(situation, "fused", "true")


def _lighter_optimizer(situation: Situation) -> Iterator[Change]:
    """Optimizers with fewer states a parameter."""
    parameter = Spec((1,), (1,), "float32")
    own = len(situation.optimizer.row.states(parameter, dict(situation.optimizer.options)))
    for text in ("sgd:momentum=0.9", "sgd"):
        other = optimizer_named(text)
        if len(other.row.states(parameter, dict(other.options))) < own and other.options != situation.optimizer.options:
            yield _setting("optimizer", text)


def _expandable_segments(situation: Situation) -> Iterator[Change]:
    """Segments that grow page by page, where nothing is said of them."""
    before = situation.step.get("alloc_conf") or ""
    if situation.on_cuda and EXPANDABLE not in before:
        yield _setting("alloc_conf", f"{before},{EXPANDABLE}:True" if before else f"{EXPANDABLE}:True")


def _fixed_threshold(situation: Situation) -> Iterator[Change]:
    """A mmap threshold that stays, where the process is counted and glibc's moves."""
    told = situation.step.get("malloc")
    if told is not None and malloc_named(told).moves:
        yield _setting("malloc", str(replace(malloc_named(told), mmap_threshold=FIXED_THRESHOLD)))


def _told(engine: str, name: str, value: Any, when: Any) -> Callable[[Situation], Iterable[Change]]:
    """A setting of an engine's session, where it is told ``when``."""

    def proposed(situation: Situation) -> Iterator[Change]:
        if situation.engine == engine and situation.step.get(name, when) == when:
            yield _setting(name, value)

    return proposed


def _one_stream(situation: Situation) -> Iterator[Change]:
    """One inference at a time, where several run at once."""
    if situation.engine == OpenVinoSettings.runtime and situation.step.get("ov_hint") == "throughput":
        yield Change(text="ov_hint=latency", settings=(("ov_hint", "latency"), ("ov_streams", None)))


def _fewer_threads(situation: Situation) -> Iterator[Change]:
    """One thread, of an engine whose kernels take scratch by threads."""
    machine = situation.step.get("machine") or Cpu.detect()
    if situation.engine and isinstance(machine, Cpu) and machine.threads > 1:
        yield Change(text="threads=1", settings=(("machine", machine.with_(threads=1)),))


def _autocast(situation: Situation) -> Iterator[Change]:
    """Casts to the dtype that is usual there, and on a card that multiplies bfloat16 to that, too."""
    if not situation.on_cuda:
        yield Change(text="autocast", lever="autocast")
        return
    machine = situation.step.get("machine")
    device = machine.device if isinstance(machine, Gpu) else None
    known = ("float16", "bfloat16") if device is not None and device.capability >= MULTIPLIES_BFLOAT16 else ("float16",)
    for dtype in known:
        text = f"autocast:dtype={dtype}"
        yield Change(text=text, lever=text)


def _halves(n: int) -> Iterator[int]:
    """n/2, n/4, …, 1, rounded up."""
    while n > 1:
        n = -(-n // 2)
        yield n


def _slices(situation: Situation) -> Iterator[Change]:
    for size in _halves(situation.batch[1]):
        text = f"micro_batch:size={size}"
        yield Change(text=text, lever=text)


def _slices_alike(situation: Situation) -> Iterator[Change]:
    if not situation.takes(BATCH):
        yield from _slices(situation)


def _slices_of_statistics(situation: Situation) -> Iterator[Change]:
    if situation.takes(BATCH):
        yield from _slices(situation)


def _smaller_batch(situation: Situation) -> Iterator[Change]:
    symbol, batch = situation.batch
    for size in _halves(batch):
        yield Change(text=f"batch={size}", sizes=((symbol, size),))


def _smaller_input(situation: Situation) -> Iterator[Change]:
    for part in (2, 4):
        sizes = {s: n // part for s, n in situation.spatial.items()}
        if all(sizes.values()):
            yield Change(text=" ".join(f"{s}={n}" for s, n in sizes.items()), sizes=tuple(sizes.items()))


def _windows(situation: Situation, halo: bool) -> Iterator[Change]:
    shape = next(iter(situation.shapes.values()))
    if len(situation.shapes) != 1 or len(shape) < 3:
        return
    for part in (2, 4):
        size = [-(-n // part) for n in shape[2:]]
        own = f",halo={'x'.join(str(n // 8) for n in size)}" if halo else ""
        text = f"tiles:size={'x'.join(map(str, size))}{own}"
        yield Change(text=text, lever=text)


def _exact_windows(situation: Situation) -> Iterator[Change]:
    if not situation.takes(SAMPLE):
        yield from _windows(situation, halo=False)


def _rough_windows(situation: Situation) -> Iterator[Change]:
    yield from _windows(situation, halo=True)


def _checkpoints(situation: Situation) -> Iterator[Change]:
    """Planned within the limit (where an allocator is played, less what the step holds besides what it asks for, and a tenth less again),
    and every so many blocks."""
    budget = max(1, situation.limit - situation.besides)
    budgets = (budget, max(1, budget * 9 // 10)) if situation.besides else (budget,)
    for option in (*(f"budget={exact_bytes(n)}" for n in budgets), "every=1", "every=2", "every=4"):
        text = f"checkpoint:{option}"
        yield Change(text=text, lever=text)


def _ranks(lever: str, options: str = "", blocks: bool = False) -> Callable[[Situation], Iterable[Change]]:
    """The batch divided among ranks; an estimate speaks of one of them."""

    def proposed(situation: Situation) -> Iterator[Change]:
        symbol, batch = situation.batch
        modules = dict.fromkeys(p.name.partition(".")[0] for p in situation.graph.parameters if "." in p.name and not p.buffer)
        tail = options + (f",blocks={'+'.join(modules)}" if blocks and modules else "")
        for world in WORLDS:
            text, own = f"{lever}:world={world}{tail}", max(1, -(-batch // world))
            sizes = ((symbol, own),) if own < batch else ()
            yield Change(text=f"{text} batch={own} each" if sizes else text, lever=text, sizes=sizes)

    return proposed


def _row(
    name: str, slot: str, kind: Kind, modes: str, propose: Callable[[Situation], Iterable[Change]], *, lever: str = "", price: str = ""
) -> Candidate:
    return Candidate(name=name, slot=slot, kind=kind, modes=tuple(modes.split("|")), lever=lever, price=price, propose=propose)


PAGES_PRICE = "none; PYTORCH_CUDA_ALLOC_CONF: segments grow by pages, and a first step maps them one by one"
PATTERN_PRICE = "none; runs from the second on ask for their buffers one by one, as the first does (enable_mem_pattern)"
OUTSIDE_PRICE = "none; the model is saved with its weights beside it (save_as_external_data)"
MALLOC_PRICE = "none; in the environment when the process begins: what is larger goes back to the system at once"
FAULTS_PRICE = "MALLOC_MMAP_THRESHOLD_ in the environment: large tensors are mapped anew each time, and their pages with them"
FIXED_THRESHOLD = 128 * 1024
ONEDNN_PRICE = "none; TF_ENABLE_ONEDNN_OPTS=1 when the process begins: gradients of convolutions without columns of their inputs"
SHRUNK_PRICE = "memory.enable_memory_arena_shrinkage: regions are given back after each run, and asked for again"
SPLIT_PRICE = "more, smaller kernels; gradients stay alive through the next forward pass"
ZERO_PRICE = "an all-reduce of all gradients and a broadcast of all parameters a step"
CANDIDATES: tuple[Candidate, ...] = (
    _row("inplace", "inplace", "free", "train|infer", _lever("inplace"), lever="inplace"),
    _row("output let go", "hold_output", "free", "train", _release_output, price="none: del the output and the loss before backward"),
    _row("for-loop optimizer", "optimizer", "free", "train", _loop_optimizer, price="parameters are updated one by one"),
    _row("fused optimizer", "optimizer", "free", "train", _fused_optimizer, price="none; the last bits of an update may differ"),
    _row("expandable segments", "allocator", "free", "train|infer", _expandable_segments, price=PAGES_PRICE),
    _row("channels_last", "layout", "free", "train|infer", _lever("channels_last"), lever="channels_last"),
    _row("no pattern", "pattern", "free", "infer", _told("onnxruntime", "ort_pattern", False, True), price=PATTERN_PRICE),
    _row("weights outside", "weights", "free", "infer", _told("onnxruntime", "ort_external", True, False), price=OUTSIDE_PRICE),
    _row("onednn", "kernels", "free", "train|infer", _told("tensorflow-cpu", "onednn", "on", "off"), price=ONEDNN_PRICE),
    _row("threshold", "malloc", "free", "infer", _told("onnxruntime", "ort_mmap_threshold", 256 * 1024, None), price=MALLOC_PRICE),
    _row("fixed threshold", "malloc", "time", "train|infer", _fixed_threshold, price=FAULTS_PRICE),
    _row("shrinkage", "shrinkage", "time", "infer", _told("onnxruntime", "ort_shrinkage", True, False), price=SHRUNK_PRICE),
    _row("one stream", "streams", "time", "infer", _one_stream, price="one call at a time, of all threads"),
    _row("one thread", "threads", "time", "infer", _fewer_threads, price="the other processors stand by"),
    _row("micro_batch", "batch", "time", "train", _slices_alike, lever="micro_batch", price=SPLIT_PRICE),
    _row("smaller calls", "batch", "time", "infer", _smaller_batch, price="several calls instead of one"),
    _row("tiles", "tiles", "time", "infer", _exact_windows, lever="tiles", price="the overlap of the windows is computed more than once"),
    _row("checkpoint", "checkpoint", "time", "train", _checkpoints, lever="checkpoint"),
    _row("offload_optimizer", "offload", "time", "train", _lever("offload_optimizer"), lever="offload_optimizer"),
    _row(
        "lighter optimizer", "optimizer", "numbers", "train", _lighter_optimizer, price="another course of training, another learning rate"
    ),
    _row("autocast", "precision", "numbers", "train|infer", _autocast, lever="autocast"),
    _row(
        "bfloat16",
        "precision",
        "numbers",
        "train|infer",
        _half_dtype,
        price="8 bits of precision, in the weights and their updates too",
    ),
    _row("micro_batch", "batch", "numbers", "train", _slices_of_statistics, lever="micro_batch"),
    _row(
        "smaller batch", "batch", "numbers", "train", _smaller_batch, price="noisier gradients, another learning rate; more steps an epoch"
    ),
    _row(
        "tiles, small halo", "tiles", "numbers", "infer", _rough_windows, lever="tiles", price="near their borders windows see less context"
    ),
    _row("smaller input", INPUT, "numbers", "train|infer", _smaller_input, price="a smaller patch or resolution: less context or detail"),
    _row("ddp", "machines", "machines", "train", _ranks("ddp", ",gradient_as_bucket_view=true"), lever="ddp"),
    _row("zero", "machines", "machines", "train", _ranks("zero", ",stage=1,gradient_as_bucket_view=true"), lever="zero", price=ZERO_PRICE),
    _row("fsdp", "machines", "machines", "train", _ranks("fsdp"), lever="fsdp"),
    _row("fsdp in blocks", "machines", "machines", "train", _ranks("fsdp", blocks=True), lever="fsdp"),
)
