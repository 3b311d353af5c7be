"""The caching allocator played over the steps that lead to the one asked about.

A script is: the network's tensors, the inputs and the target are made, what lies in channels_last as a copy of what was contiguous
(``module.to("cuda").to(memory_format=torch.channels_last)``), and what is cached is given back; the first step, in which the optimizer's
state appears and libraries take their workspaces; a second one; the one asked about. Between steps what a step leaves (gradients, outputs)
is given back (``zero_grad(set_to_none=True)``), what appeared for good stays; a whole step of a user's finds what the one before left.
Where blocks lie follows from all of it, so all of it is played.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import count

from memest.errors import OutOfMemoryError, UnsupportedError
from memest.machines.gpu import Gpu
from memest.machines.target import Target
from memest.machines.wheels import unsupported
from memest.memory.allocators.blocks import Block
from memest.memory.allocators.caching import CachingAllocator, Shortage
from memest.memory.allocators.replaying import Replayed, Stretch, replay_stretches
from memest.memory.allocators.settings import Settings, read_settings
from memest.memory.figure import Figure, Figures, exact, modelled
from memest.memory.process import cuda_context, cuda_process
from memest.memory.stream import Event, Repeat, Storage, Stream
from memest.runtimes.runtime import Steps
from memest.runtimes.torch.step.parallel.replicas import is_bucket

STEPS = 3
"""The step that is asked about, counted from 1, where it is not the first: the second finds the blocks that the first left, the third those
of a step like itself."""
MADE, BETWEEN = "before the steps", "between steps"
STAYS = frozenset({"optimizer_state", "workspace"})
NETWORK = frozenset({"parameter", "buffer"})
GIVEN_BACK = "what is cached and unused is given back, so that the step fits what the context leaves of the card"
OTHER_RANKS = "what collectives take was seen without NCCL and without other ranks, whose pace decides when tensors go"
COLLECTIVES = frozenset({"all_gather", "reduce_scatter", "broadcast"})
PAGE = 2 << 20
NO_KERNELS = "the wheel has no kernels for this card: so it would allocate if it had"
RUN_OUT = "the card runs out: at least so much would have to be reserved"
Size = Callable[[Storage], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the allocator made of the step asked about, and where the card ran out, if it did: in which step (from 1; 0: before the first),
    at which of its events."""

    last: Replayed
    step: int
    shortage: Shortage | None


def settings_for(target: Target) -> Settings:
    """The allocator's settings. UsageError for a text that torch's parser would not take."""
    return read_settings(target.settings.alloc_conf, target.version)


def play_steps(steps: Steps, target: Target, *, size: Size | None = None, capacity: int | None = None) -> Outcome:
    """The steps on an allocator that starts empty, on a card that can give ``capacity`` bytes (None: any number)."""
    first = steps.first()
    allocator = CachingAllocator(settings_for(target), capacity=capacity, total=None if capacity is None else target.device.memory_bytes)
    live: dict[int, Block] = {}
    held: list[Block | None] = []
    size = size or _expected
    try:
        held.extend(_placed(first.residents, allocator, size, steps.converted))
    except OutOfMemoryError:
        return Outcome(last=replay_stretches((), allocator, live), step=0, shortage=allocator.shortage)
    mortal = {s.id for s in _mortal(first)} if steps.whole else ()
    for at, storage in enumerate(first.residents):
        block = held[at]
        if block is not None and storage.id in mortal:
            live[storage.id], held[at] = block, None
    found = replay_stretches(_stretches(first, size), allocator, live, _streams(first))
    if found.failed_at is not None or steps.is_first:
        return Outcome(last=found, step=1, shortage=found.shortage)
    stays = STAYS | {"gradient"} if steps.keeps_gradients else STAYS
    staying = {e.storage.id for _, e in first.once() if e.storage.category in stays and e.storage.refs}
    asked = steps.asked()
    streams = _streams(asked)
    for number in range(2, STEPS + 1):
        taken: dict[int, Block] = {}
        if steps.whole:
            left = {n: s for n, s in _made_in(first if number == 2 else asked).items() if n in live}
            taken = {name: live.pop(before) for name, before in taken_over(left, asked)}
            for name in cleared(left, asked):
                allocator.free(live.pop(name))
        else:
            for name in [n for n in live if number > 2 or n not in staying]:
                allocator.free(live.pop(name))
        held.extend(live.values())
        live.clear()
        live.update(taken)
        try:
            if number == 2:
                _rebuild_buckets(first, asked, allocator, held, size)
        except OutOfMemoryError:
            return Outcome(last=replay_stretches((), allocator, live), step=number, shortage=allocator.shortage)
        found = replay_stretches(_stretches(asked, size), allocator, live, streams)
        if found.failed_at is not None:
            return Outcome(last=found, step=number, shortage=found.shortage)
    return Outcome(last=found, step=STEPS, shortage=None)


def _made_in(stream: Stream) -> dict[int, Storage]:
    return {e.storage.id: e.storage for _, e in stream.once() if e.delta > 0}


def _mortal(stream: Stream) -> list[Storage]:
    """What stands before a step and is given back in it."""
    gone = {e.storage.id for _, e in stream.once() if e.delta < 0}
    return [s for s in stream.residents if s.id in gone]


def taken_over(left: Mapping[int, Storage], asked: Stream) -> Iterator[tuple[int, int]]:
    """What a step gives back of what stands before it, by number, and the number that it has among what the step before ``left``: the
    gradient of the same tensor, or else what is as large."""
    rest = dict(left)
    for storage in _mortal(asked):
        alike = [n for n, s in rest.items() if s.nbytes == storage.nbytes]
        same = [n for n in alike if (rest[n].category, rest[n].reason) == (storage.category, storage.reason)]
        if not alike:
            raise UnsupportedError(
                f"{storage.layer} stands before the step, and the first step did not leave it: give its first step first"
            )
        before = (same or alike)[0]
        del rest[before]
        yield storage.id, before


def cleared(left: Mapping[int, Storage], asked: Stream) -> list[int]:
    """The gradients that a step ``left``, where the next finds none."""
    found = [] if any(s.category == "gradient" for s in asked.residents) else [n for n, s in left.items() if s.category == "gradient"]
    return found


def script(steps: Steps) -> tuple[list[Event], tuple[int, ...]]:
    """All that is played as one list (storages of different steps have numbers of their own; one of 0 bytes empties the cache), and where
    each step begins."""
    first = steps.first()
    numbers = count(1 + max((s.id for s in first.residents), default=0))
    events = [
        Event(s.nbytes if made else -s.nbytes, s, MADE, s.layer, MADE) for s, made in _made(first.residents, steps.converted, numbers)
    ]
    if steps.converted:
        events.append(Event(0, Storage(next(numbers), 0, "", "", "", ""), MADE, "", "empty_cache"))
    stays = STAYS | {"gradient"} if steps.keeps_gradients else STAYS
    begins: list[int] = []
    live = {s.id: s for s in _mortal(first)} if steps.whole else {}
    last = 1 if steps.is_first else STEPS
    for number in range(1, last + 1):
        begins.append(len(events))
        stream = first if number == 1 else steps.asked()
        for e in stream.events:
            if e.delta > 0:
                live[e.storage.id] = _numbered(e.storage, next(numbers))
            own = live[e.storage.id] if e.delta > 0 else live.pop(e.storage.id)
            events.append(e._replace(storage=own))
        if number < last and steps.whole:
            before = {n: s for n, s in _made_in(stream).items() if n in live}
            events += [
                Event(-s.nbytes, live[n], BETWEEN, "", "zero_grad") for n, s in before.items() if n in cleared(before, steps.asked())
            ]
            live = {name: live[n] for name, n in taken_over(before, steps.asked())}
        elif number < last:
            left = [s for s in live.values() if number > 1 or not (s.category in stays and s.refs)]
            events += [Event(-s.nbytes, s, BETWEEN, "", "zero_grad") for s in left]
            live = {}
    return events, tuple(begins)


def _made(residents: Sequence[Storage], converted: frozenset[str], numbers: Iterator[int]) -> Iterator[tuple[Storage, bool]]:
    """What :func:`_placed` does, as storages that are made (True) and given back."""
    waiting: list[Storage] = []

    def convert() -> Iterator[tuple[Storage, bool]]:
        for before in waiting:
            yield from ((_numbered(before, next(numbers)), True), (before, False))
        waiting.clear()

    for storage in residents:
        if storage.category not in NETWORK:
            yield from convert()
        if storage.nbytes:
            yield storage, True
            if storage.layer in converted:
                waiting.append(storage)
                if storage.category not in NETWORK:
                    yield from convert()
    yield from convert()


def _numbered(storage: Storage, number: int) -> Storage:
    own = copy(storage)
    own.id = number
    return own


def _placed(residents: Sequence[Storage], allocator: CachingAllocator, size: Size, converted: frozenset[str]) -> list[Block | None]:
    """What is there before the first step: the network, whose tensors are then ``converted`` one by one; the inputs, each converted at
    once; the rest."""
    held: list[Block | None] = []
    waiting: list[int] = []

    def convert() -> None:
        for at in waiting:
            before, held[at] = held[at], allocator.malloc(size(residents[at]))
            allocator.free(before)
        waiting.clear()

    for at, storage in enumerate(residents):
        if storage.category not in NETWORK:
            convert()
        held.append(allocator.malloc(size(storage)))
        if storage.layer in converted:
            waiting.append(at)
    convert()
    if converted:
        allocator.empty_cache()
    return held


def _rebuild_buckets(first: Stream, asked: Stream, allocator: CachingAllocator, held: list[Block | None], size: Size) -> None:
    """DistributedDataParallel's first buckets go, and those of later steps come (``Reducer::rebuild_buckets``)."""
    old = [at for at, s in enumerate(first.residents) if is_bucket(s)]
    new = [s for s in asked.residents if is_bucket(s)]
    if [first.residents[at].nbytes for at in old] == [s.nbytes for s in new]:
        return
    for at in old:
        allocator.free(held[at])
        held[at] = None
    held.extend(allocator.malloc(size(s)) for s in new)


def _streams(stream: Stream) -> dict[int, int]:
    return {e.storage.id: e.storage.stream for _, e in stream.once() if e.storage.stream}


def _stretches(stream: Stream, size: Size) -> Iterator[Stretch]:
    at = 0
    for repeat in (*stream.repeats, Repeat(len(stream.events), 0, 0)):
        yield Stretch(_moves(stream.events[at : repeat.start], size), at)
        if repeat.times:
            yield Stretch(_moves(stream.events[repeat.start : repeat.start + repeat.length], size), repeat.start, repeat.times)
        at = repeat.stop


def _moves(events: Sequence[Event], size: Size) -> Iterator[tuple[int, int]]:
    if size is _exact:
        return ((e.delta, e.storage.id) for e in events)
    return ((size(e.storage) if e.delta > 0 else -1, e.storage.id) for e in events if size(e.storage))


def _exact(storage: Storage) -> int:
    return storage.nbytes


def _expected(storage: Storage) -> int:
    """Bytes; none for what may be there and is not expected, whose one byte stands for its event."""
    return 0 if storage.nbytes == 1 and storage.spread is not None else storage.nbytes


def _low(storage: Storage) -> int:
    return storage.nbytes if storage.spread is None else storage.spread[0]


def _high(storage: Storage) -> int:
    return storage.nbytes if storage.spread is None else storage.spread[1]


def figures_of(steps: Steps, target: Target) -> Figures:
    """What the allocator hands out and takes, and what the driver shows. Where sizes are modelled the steps are played with the lowest and
    the highest, too; where the card cannot give what the allocator would take, once more with what the context leaves of it, which makes
    the allocator give back what it holds unused. Of a step that runs out even so it is said what would have to be reserved at least."""
    asked = steps.asked()
    made = {e.storage.id: e.storage for _, e in asked.once() if e.delta > 0}
    spread = [s for s in (*asked.residents, *made.values()) if s.spread is not None]
    libraries = ("nccl",) if steps.distributed else ()
    context = cuda_context(target.device, libraries=libraries)
    assert context.bytes is not None and context.low is not None and context.high is not None
    expected = _on_the_card(steps, target, _expected if spread else _exact, context.bytes, None)
    low, high = (
        _on_the_card(steps, target, size, besides, None if spread else expected.free)
        for size, besides in ((_low, context.low), (_high, context.high))
    )
    plays = (low, expected, high)
    late = _late(asked) if steps.distributed else 0
    reasons = [f"modelled are: {', '.join(dict.fromkeys(s.reason or s.op for s in spread))}"] if spread else []
    if steps.distributed:
        reasons.append(OTHER_RANKS)
    if unsupported(target.device, target.version, target.settings.cudnn):
        reasons.append(NO_KERNELS)
    reasons += dict.fromkeys(p.tight for p in (expected, low, high) if p.tight)
    reason = "; ".join(reasons)
    reserved = _figure(
        [*(p.reserved for p in plays), high.reserved + -(-late // PAGE) * PAGE],
        reason,
        "every segment that torch's caching allocator took up to the end of this step",
    )
    shown = [
        n + p
        for p, n in zip((low.reserved, expected.reserved, high.reserved + late), (context.low, context.bytes, context.high), strict=True)
    ]
    return Figures(
        allocated=_figure(
            [*(p.last.allocated for p in plays), high.last.allocated + late],
            reason,
            "every block that torch's caching allocator hands out in this step",
        ),
        reserved=reserved,
        process=modelled(shown[1], min(shown), max(shown), cuda_process(reserved, target.device, libraries=libraries).reason),
        event=expected.last.allocated_at,
    )


def _late(stream: Stream) -> int:
    """Bytes of the two largest tensors that collectives work on, which other ranks may keep alive for longer."""
    sizes = [e.storage.nbytes for _, e in stream.once() if e.delta > 0 and e.op in COLLECTIVES and e.storage.category != "parameter"]
    return sum(sorted(sizes)[-2:])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Play:
    """What the allocator made of the step, ``free`` of any limit and ``last`` on the card, with the bytes ``reserved`` there, and how it
    got by where it was ``tight``."""

    free: Replayed
    last: Replayed
    reserved: int
    tight: str = ""


def _on_the_card(steps: Steps, target: Target, size: Size, besides: int, known: Replayed | None) -> _Play:
    """The steps where so many bytes of the card are taken ``besides``; ``known`` is a play of the same sizes without a limit."""
    free = play_steps(steps, target, size=size).last if known is None else known
    assert isinstance(target.machine, Gpu)
    room = max(0, target.machine.memory_bytes - besides)
    if free.reserved <= room:
        return _Play(free=free, last=free, reserved=free.reserved)
    tight = play_steps(steps, target, size=size, capacity=room)
    if tight.shortage is None:
        return _Play(free=free, last=tight.last, reserved=tight.last.reserved, tight=GIVEN_BACK)
    least = max(free.allocated, room + max(1, tight.shortage.segment - tight.shortage.free))
    return _Play(free=free, last=free, reserved=min(least, free.reserved), tight=RUN_OUT)


def _figure(found: Sequence[int], reason: str, said: str) -> Figure:
    """The low, the expected and the high one; exact where there is no reason to be otherwise."""
    return modelled(found[1], min(found), max(found), reason) if reason else exact(found[1], said)
