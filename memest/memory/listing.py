"""A step as lists of numbers: what an allocator plays, without an object an event."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, chain
from operator import neg
from typing import NamedTuple

from memest.memory.stream import Repeat, Storage, Stream
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
    number of what is asked for, or ``~n`` where it is given back. ``before`` and ``remade`` are the moves outside of the step that are
    ``made`` and ``remade`` of a :class:`Stream`, likewise. ``memo`` is for what follows from it."""

    residents: int
    storages: tuple[Storage, ...]
    parts: tuple[Part, ...]
    before: Numbers = ()
    remade: Numbers = ()
    remade_at: int = 0
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
        return standing(n for n in self.once() if not 0 <= ~n < self.residents)

    @cached_property
    def released(self) -> frozenset[int]:
        """The residents that the step gives back."""
        return frozenset(~n for n in self.once() if 0 <= ~n < self.residents)


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


def standing(events: Iterable[int]) -> tuple[int, ...]:
    """What is asked for and not given back, in order."""
    alive: dict[int, None] = {}
    for n in events:
        if n >= 0:
            alive[n] = None
        else:
            del alive[~n]
    return tuple(alive)


def signed(sizes: Sequence[int]) -> list[int]:
    """``sizes`` by number, and by ``~n`` less than nothing."""
    return [*sizes, *map(neg, reversed(sizes))]


def listed(stream: Stream) -> Listing:
    """A played step by numbers: residents, then storages in the order they are asked for, outside of the step and in it."""
    storages = list(stream.residents)
    numbers = {s.id: n for n, s in enumerate(storages)}

    def number(storage: Storage, made: bool) -> int:
        if not made:
            return ~numbers[storage.id]
        if storage.id not in numbers:
            numbers[storage.id] = len(storages)
            storages.append(storage)
        return numbers[storage.id]

    def numbered(start: int, end: int) -> Numbers:
        return tuple([number(e.storage, e.delta > 0) for e in stream.events[start:end]])

    before, remade = (tuple([number(*move) for move in moves]) for moves in (stream.made, stream.remade))
    parts: list[Part] = []
    at = 0
    for repeat in (*stream.repeats, Repeat(len(stream.events), 0, 0)):
        parts.append(Part(numbered(at, repeat.start), at))
        if repeat.times:
            parts.append(Part(numbered(repeat.start, repeat.start + repeat.length), repeat.start, repeat.times))
        at = repeat.stop
    return Listing(
        form=Form(len(stream.residents), tuple(storages), tuple(parts), before, remade, stream.remade_at),
        sizes=[s.nbytes for s in storages],
        spreads={n: s.spread for n, s in enumerate(storages) if s.spread is not None},
    )
