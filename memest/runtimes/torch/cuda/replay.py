"""The caching allocator played over the steps that lead to the one asked about.

A script is: the network's tensors, the inputs and the target are made; the first step, in which the optimizer's state appears and
libraries take their workspaces; a second one; the one asked about. Between steps what a step leaves (gradients, outputs) is given back
(``zero_grad(set_to_none=True)``), what appeared for good stays. Where blocks lie follows from all of it, so all of it is played.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from memest.errors import OutOfMemoryError
from memest.machines.target import Target
from memest.memory.allocators.blocks import Block
from memest.memory.allocators.caching import CachingAllocator, Shortage
from memest.memory.allocators.replaying import Replayed, replay
from memest.memory.allocators.settings import Settings, read_settings
from memest.memory.figure import Figure, Figures, exact, modelled, unknown
from memest.memory.stream import Storage, Stream
from memest.runtimes.runtime import Steps

STEPS = 3
"""The step that is asked about, counted from 1, where it is not the first: the second finds the blocks that the first left, the third those
of a step like itself."""
STAYS = frozenset({"optimizer_state", "workspace"})
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
        held.extend(allocator.malloc(size(s)) for s in first.residents)
    except OutOfMemoryError:
        return Outcome(last=replay((), allocator=allocator), step=0, shortage=allocator.shortage)
    found = replay(_events(first, size), allocator=allocator, live=live)
    if found.failed_at is not None or steps.is_first:
        return Outcome(last=found, step=1, shortage=found.shortage)
    staying = {e.storage.id for e in first.events if e.storage.category in STAYS and e.storage.refs}
    for number in range(2, STEPS + 1):
        for name in [n for n in live if number > 2 or n not in staying]:
            allocator.free(live.pop(name))
        held.extend(live.values())
        live.clear()
        found = replay(_events(steps.asked(), size), allocator=allocator, live=live)
        if found.failed_at is not None:
            return Outcome(last=found, step=number, shortage=found.shortage)
    return Outcome(last=found, step=STEPS, shortage=None)


def _events(stream: Stream, size: Size) -> Iterator[tuple[int, int]]:
    if size is _expected:
        return ((e.delta, e.storage.id) for e in stream.events)
    return ((size(e.storage) if e.delta > 0 else -1, e.storage.id) for e in stream.events if e.delta < 0 or size(e.storage))


def _expected(storage: Storage) -> int:
    return storage.nbytes


def _low(storage: Storage) -> int:
    return storage.nbytes if storage.spread is None else max(storage.spread[0], 1)


def _high(storage: Storage) -> int:
    return storage.nbytes if storage.spread is None else storage.spread[1]


def figures_of(steps: Steps, target: Target) -> Figures:
    """What the allocator hands out and takes. Where sizes are modelled the steps are played with the lowest and the highest, too."""
    played = play_steps(steps, target).last
    asked = steps.asked()
    spread = [s for s in (e.storage for e in asked.events if e.delta > 0) if s.spread is not None]
    spread += [s for s in asked.residents if s.spread is not None]
    process = unknown("not counted: the CUDA context and the images of kernels")
    if not spread:
        said = "as torch's CUDA build asks for it (on a stand-in for the CUDA runtime)"
        return Figures(
            allocated=exact(played.allocated, f"blocks handed out, {said}"),
            reserved=exact(played.reserved, f"segments of the caching allocator, {said}, up to the step asked about"),
            process=process,
            event=played.allocated_at,
        )
    low, high = (play_steps(steps, target, size=size).last for size in (_low, _high))
    names = ", ".join(dict.fromkeys(s.reason or s.op for s in spread))
    reason = f"modelled are: {names}"
    return Figures(
        allocated=_ranged(played.allocated, low.allocated, high.allocated, reason),
        reserved=_ranged(played.reserved, low.reserved, high.reserved, reason),
        process=process,
        event=played.allocated_at,
    )


def _ranged(expected: int, low: int, high: int, reason: str) -> Figure:
    return modelled(expected, min(expected, low), max(expected, high), reason)
