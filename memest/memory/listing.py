"""A step as lists of numbers: what an allocator plays, without an object an event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, chain
from operator import neg
from typing import NamedTuple

from memest.memory.stream import Event, Repeat, Storage, Stream
from memest.sizes.remembering import Memo

Numbers = tuple[int, ...]


class Part(NamedTuple):
    """A run of events, the first of them number ``start``, ``times`` times over (more than once: they give back what they ask for)."""

    events: Numbers
    start: int = 0
    times: int = 1


@dataclass(frozen=True, eq=False)
class Form:
    """What of a step does not depend on sizes: who each number is, of which the first ``residents`` are there before; an event is the
    number of what is asked for, or ``~n`` where it is given back. ``memo`` is for what follows from it."""

    residents: int
    storages: tuple[Storage, ...]
    parts: tuple[Part, ...]
    memo: Memo = field(default_factory=Memo, repr=False)

    def once(self) -> Iterator[int]:
        """The events, those that come again once."""
        return chain.from_iterable([part.events for part in self.parts])

    @cached_property
    def made(self) -> tuple[int, ...]:
        """What is asked for, in order."""
        return tuple(dict.fromkeys(n for n in self.once() if n >= 0))

    @cached_property
    def left(self) -> tuple[int, ...]:
        """What is asked for and not given back, in order."""
        alive: dict[int, None] = {}
        for n in self.once():
            if n >= 0:
                alive[n] = None
            else:
                del alive[~n]
        return tuple(alive)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What is there before a step, and what comes and goes in it: the bytes of each number of a ``form``, and their range, where they are
    modelled, in ``spreads``."""

    form: Form
    sizes: Sequence[int]
    spreads: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def standing_bytes(self) -> int:
        """What is there before the step."""
        return sum(self.sizes[: self.form.residents])

    @property
    def above_bytes(self) -> int:
        """The most on top of that."""
        return max(0, max(accumulate(map(signed(self.sizes).__getitem__, self.form.once())), default=0))


def signed(sizes: Sequence[int]) -> list[int]:
    """``sizes`` by number, and by ``~n`` less than nothing."""
    return [*sizes, *map(neg, reversed(sizes))]


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
        form=Form(len(stream.residents), tuple(storages), tuple(parts)),
        sizes=[s.nbytes for s in storages],
        spreads={n: s.spread for n, s in enumerate(storages) if s.spread is not None},
    )
