"""What TensorFlow takes from the system for its tensors: an arena for the large ones where oneDNN is on, a request for each where not.

Source: tensorflow/core/common_runtime/mkl_cpu_allocator.h (requests of 256 KiB and more go to a best-fit arena whose regions double from
2 MiB on and never go back; smaller ones to malloc).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from memest.memory.allocators.bfc import Bfc, Growth
from memest.memory.stream import Event, Storage, Stream

SMALL = 256 << 10  # bytes: below it a request goes to malloc
GROWTH = Growth(first=2 << 20, most=1 << 62)
RUNS = 2  # steps after which the arena grows no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Stream):
    """A step, and what stands around it: whether it is ``trained``, how many ``nodes`` run, and bytes of the largest gradient of
    ``filters``, beside which oneDNN has scratch of its own; ``workers`` are the threads that ask for each of the events."""

    trained: bool
    nodes: int
    filters: int
    workers: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """The arena after some steps: bytes of its ``regions``, those ever ``touched``, the most in ``use`` (whole chunks) and the most of
    ``small`` requests at once beside it."""

    regions: int
    touched: int
    use: int
    small: int


def arena_of(stream: Stream, runs: int = RUNS) -> Arena:
    """The arena played: variables when they are made, then step after step."""
    arena = Bfc(growth=GROWTH)
    used = most = small = most_small = 0
    taken: dict[int, Any] = {}
    for storage in stream.residents:
        if storage.category != "input" and storage.nbytes >= SMALL:
            taken[storage.id] = _made(arena, storage)
            used += taken[storage.id].size
        elif storage.category != "input":
            small += storage.nbytes
    most, most_small = used, small
    for run in range(runs):
        for event in stream.events:
            key = event.storage.id
            if event.storage.nbytes < SMALL:
                small += event.delta
                most_small = max(most_small, small)
            elif event.delta > 0:
                taken[key] = arena.take(event.storage.nbytes)
                used += taken[key].size
                most = max(most, used)
            elif key in taken:
                chunk = taken.pop(key)
                used -= chunk.size
                arena.give(chunk)
        if run + 1 < runs:
            for new, old in renamed(stream.events):
                if new in taken:
                    taken[old] = taken.pop(new)
    return Arena(regions=arena.most, touched=sum(arena.touched), use=most, small=most_small)


def _made(arena: Bfc, storage: Storage) -> Any:
    """A variable when it is made: slots are zeros; weights are drawn, scaled and moved, each into another tensor, of which the last stays
    (keras/src/initializers; tensorflow/python/ops/stateless_random_ops.py: ``rnd * (maxval - minval) + minval``)."""
    if storage.category != "parameter":
        return arena.take(storage.nbytes)
    drawn, scaled = arena.take(storage.nbytes), arena.take(storage.nbytes)
    moved = arena.take(storage.nbytes)
    arena.give(scaled)
    arena.give(drawn)
    return moved


def renamed(events: Iterable[Event]) -> Iterator[tuple[int, int]]:
    """Before the next step: the number of a variable that became another buffer, and of the one that was there, for which it stands."""
    fresh: dict[int, Storage] = {}
    gone: dict[int, Storage] = {}
    for event in events:
        (fresh if event.delta > 0 else gone)[event.storage.id] = event.storage
    replaced = [s for key, s in gone.items() if key not in fresh]
    for new in [s for key, s in fresh.items() if key not in gone]:
        old = next((s for s in replaced if s.nbytes == new.nbytes), None)
        if old is not None:
            replaced.remove(old)
            yield new.id, old.id
