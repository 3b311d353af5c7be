"""The caching allocator played over the :mod:`steps <memest.runtimes.torch.cuda.script>` that lead to the one asked about: where blocks
lie follows from all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from memest.errors import OutOfMemoryError
from memest.libraries.cudnn.rule import of_steps
from memest.machines.gpu import Gpu
from memest.machines.target import Target
from memest.machines.wheels import unsupported
from memest.memory.allocators.blocks import Block
from memest.memory.allocators.caching import CachingAllocator, Shortage
from memest.memory.allocators.replaying import Replayed, Stretch, replay_stretches
from memest.memory.allocators.settings import Settings, read_settings
from memest.memory.figure import Figure, Figures, exact, modelled
from memest.memory.process import cuda_context, cuda_process
from memest.memory.stream import Event, Move, Repeat, Storage, Stream
from memest.runtimes.runtime import Steps
from memest.runtimes.torch.cuda.script import cleared, exchanged, gives_back, made_in, moves_before, number_of, staying, taken_over

GIVEN_BACK = "what is cached and unused is given back, so that the step fits what the context leaves of the card"
RANKS_SINCE = (2, 14)
OTHER_RELEASES = "what several ranks add to a step was held against torch 2.14 alone"
KEPT_AMONG_RANKS = "gradients that stay from step to step among several ranks were not held against torch"
NCCL = "; NCCL asks it for nothing"
COLLECTIVES = frozenset({"all_gather", "reduce_scatter", "broadcast"})
FASTEST = "cudnn.benchmark takes the fastest of the plans it tries, which only a card knows: the range is that of their workspaces"
CONVOLUTIONS = frozenset({"convolution", "convolution_backward"})
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
    held: Held = {}
    size = size or _expected
    try:
        place(moves_before(first, steps.converted), allocator, held, size)
    except OutOfMemoryError:
        return Outcome(last=replay_stretches((), allocator, live), step=0, shortage=allocator.shortage)
    if gives_back(steps):
        allocator.empty_cache()
    live.update({s.id: held.pop(s.id) for s in _released(first)})
    found = replay_stretches(_stretches(first, size), allocator, live, _streams(first), _trials(first))
    if found.failed_at is not None or steps.is_first:
        return Outcome(last=found, step=1, shortage=found.shortage)
    stay = staying(steps)
    asked = steps.asked()
    streams = _streams(asked)
    last = number_of(asked)
    for number in range(2, last + 1):
        taken: dict[int, Block] = {}
        if steps.whole:
            left = {n: s for n, s in made_in(first if number == 2 else asked).items() if n in live}
            taken = {name: live.pop(before) for name, before in taken_over(left, asked)}
            for name in cleared(left, asked):
                allocator.free(live.pop(name))
        else:
            for name in [n for n in live if number > 2 or n not in stay]:
                allocator.free(live.pop(name))
        live.clear()
        live.update(taken)
        try:
            if number == asked.remade_at:
                place(exchanged(first, asked), allocator, held, size)
        except OutOfMemoryError:
            return Outcome(last=replay_stretches((), allocator, live), step=number, shortage=allocator.shortage)
        found = replay_stretches(_stretches(asked, size), allocator, live, streams)
        if found.failed_at is not None:
            return Outcome(last=found, step=number, shortage=found.shortage)
    return Outcome(last=found, step=last, shortage=None)


Held = dict[int, Block]


def _released(first: Stream) -> list[Storage]:
    """Residents that the first step gives back."""
    gone = {e.storage.id for e in first.events if e.delta < 0}
    return [s for s in first.residents if s.id in gone]


def place(moves: Iterable[Move], allocator: CachingAllocator, held: Held, size: Size) -> None:
    """What comes is asked for, what goes is given back; ``held`` are the blocks by their storages' numbers."""
    for storage, made in moves:
        if not made:
            allocator.free(held.pop(storage.id, None))
        elif (block := allocator.malloc(size(storage))) is not None:
            held[storage.id] = block


def _streams(stream: Stream) -> dict[int, int]:
    return {e.storage.id: e.storage.stream for _, e in stream.once() if e.storage.stream}


def _trials(stream: Stream) -> frozenset[int]:
    """The buffers in which plans are tried."""
    return frozenset(e.storage.id for _, e in stream.once() if e.storage.empties)


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
    return ((size(e.storage) if e.delta > 0 else -1, e.storage.id) for e in events if size(e.storage) or e.storage.empties)


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
    expected = _on_the_card(steps, target, _expected if spread or target.settings.benchmark else _exact, context.bytes, None)
    low, high = (
        _on_the_card(steps, target, size, besides, None if spread else expected.free)
        for size, besides in ((_low, context.low), (_high, context.high))
    )
    plays = (low, expected, high)
    unseen = _unseen(steps, target)
    late = _late(asked) if unseen else 0
    ranks = NCCL if steps.distributed else ""
    reasons = [f"modelled are: {', '.join(dict.fromkeys(s.reason or s.op for s in spread))}"] if spread else []
    if any(s.op in CONVOLUTIONS for s in spread):
        reasons.append(FASTEST if target.settings.benchmark else of_steps())
    reasons += unseen
    if unsupported(target.device, target.version, target.settings.cudnn):
        reasons.append(NO_KERNELS)
    reasons += dict.fromkeys(p.tight for p in (expected, low, high) if p.tight)
    reason = "; ".join(reasons)
    reserved = _figure(
        [*(p.reserved for p in plays), high.reserved + -(-late // PAGE) * PAGE],
        reason,
        f"every segment that torch's caching allocator took up to the end of this step{ranks}",
    )
    shown = [
        n + p
        for p, n in zip((low.reserved, expected.reserved, high.reserved + late), (context.low, context.bytes, context.high), strict=True)
    ]
    return Figures(
        allocated=_figure(
            [*(p.last.allocated for p in plays), high.last.allocated + late],
            reason,
            f"every block that torch's caching allocator hands out in this step{ranks}",
        ),
        reserved=reserved,
        process=modelled(shown[1], min(shown), max(shown), cuda_process(reserved, target.device, libraries=libraries).reason),
        event=expected.last.allocated_at,
    )


def _unseen(steps: Steps, target: Target) -> list[str]:
    """Why the step of one of several ranks may run differently from what was measured."""
    if not steps.distributed:
        return []
    kept = [KEPT_AMONG_RANKS] if steps.keeps_gradients else []
    return [*kept, *([OTHER_RELEASES] if target.version < RANKS_SINCE else [])]


def _late(stream: Stream) -> int:
    """Bytes of the two largest tensors that collectives work on, which may stay alive for longer."""
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
