"""A step as lists of numbers: what an allocator plays, without an object an event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from memest.memory.stream import Event, Repeat, Storage, Stream

Numbers = tuple[int, ...]


class Part(NamedTuple):
    """A run of events, the first of them number ``start``, ``times`` times over (more than once: they give back what they ask for)."""

    events: Numbers
    start: int = 0
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What is there before a step, and what comes and goes in it, by number: number ``n`` is of ``storages[n]`` (who made it; its bytes are
    those in ``sizes``, their range, where they are modelled, in ``spreads``). The first ``residents`` numbers are there before; an event
    is the number of what is asked for, or ``~n`` where it is given back."""

    residents: int
    storages: Sequence[Storage]
    sizes: Sequence[int]
    parts: tuple[Part, ...]
    spreads: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def standing_bytes(self) -> int:
        """What is there before the step."""
        return sum(self.sizes[: self.residents])

    @property
    def above_bytes(self) -> int:
        """The most on top of that."""
        best = total = 0
        sizes = self.sizes
        for n in self.once():
            if n >= 0:
                total += sizes[n]
                if total > best:
                    best = total
            else:
                total -= sizes[~n]
        return best

    def once(self) -> Iterator[int]:
        """The events, those that come again once."""
        return (n for part in self.parts for n in part.events)

    def left(self) -> list[int]:
        """What is asked for and not given back, in order."""
        alive: dict[int, None] = {}
        for n in self.once():
            if n >= 0:
                alive[n] = None
            else:
                del alive[~n]
        return list(alive)


def listed(stream: Stream) -> Listing:
    """A played step by numbers: residents, then storages in the order they are asked for."""
    storages = list(stream.residents)
    numbers = {s.id: n for n, s in enumerate(storages)}

    def numbered(events: Sequence[Event]) -> Iterator[int]:
        for delta, storage, *_ in events:
            if delta <= 0:
                yield ~numbers[storage.id]
                continue
            if storage.id not in numbers:
                numbers[storage.id] = len(storages)
                storages.append(storage)
            yield numbers[storage.id]

    parts: list[Part] = []
    at = 0
    for repeat in (*stream.repeats, Repeat(len(stream.events), 0, 0)):
        parts.append(Part(tuple(numbered(stream.events[at : repeat.start])), at))
        if repeat.times:
            parts.append(Part(tuple(numbered(stream.events[repeat.start : repeat.start + repeat.length])), repeat.start, repeat.times))
        at = repeat.stop
    return Listing(
        residents=len(stream.residents),
        storages=storages,
        sizes=[s.nbytes for s in storages],
        parts=tuple(parts),
        spreads={n: s.spread for n, s in enumerate(storages) if s.spread is not None},
    )
