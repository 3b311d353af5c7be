"""How far the memory of one inference call comes down, and by what: reuse, places shared, another order, other dtypes, windows.

Everything is held against no reuse at all: the inputs, and every operator's result apart. In all ways the arena holds the call's inputs
(until their last reader) and its outputs too, and values die after their last reader, whatever the code holds in variables. What is
planned is planned by hill climbing. A smaller change is one that keeps results nearer to the same: exact before more work, before
rounding to 16 bits, before windows that see less than the network does, before 8 bits; among those, fewer changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations
from typing import Any

from memest.memory.planners.blocks import Block, aligned
from memest.memory.planners.hill_climb import hill_climb
from memest.planning.arena.flow import Flow
from memest.planning.arena.layout import blocks_of_flow
from memest.planning.arena.order import Order, best_order

IN_PLACE, JOINED, ORDER = "elementwise in place", "concatenations in place", "another order"
SIXTEEN, EIGHT = "16 bits", "8 bits"
EXACT, MORE_WORK, ROUNDED, CUT, COARSE = "exact", "exact, more work", "rounds to 16 bits", "windows see less", "rounds to 8 bits"
PRICES = (EXACT, MORE_WORK, ROUNDED, CUT, COARSE)
SAME = (IN_PLACE, JOINED, ORDER)
DTYPES = {None: EXACT, SIXTEEN: ROUNDED, EIGHT: COARSE}
ITEMSIZES = {SIXTEEN: 2, EIGHT: 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """The ``changes`` (none: reuse alone, or not even that), what they ask for (one of PRICES), the bytes then, and how many times less
    that is than without reuse. ``reuse`` is false where every block has a place of its own. ``recomputed`` is how much
    more than the input windows compute, as a share of it."""

    changes: tuple[str, ...]
    nbytes: int
    factor: float
    price: str = EXACT
    reuse: bool = True
    recomputed: float = 0.0

    @property
    def name(self) -> str:
        """In words."""
        return " + ".join((*(() if not self.reuse else ("reuse",)), *self.changes)) or "no reuse"

    @property
    def rank(self) -> tuple[int, int, int]:
        """The smaller change first."""
        return PRICES.index(self.price), len(self.changes), self.nbytes

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "changes": list(self.changes),
            "reuse": self.reuse,
            "bytes": self.nbytes,
            "factor": self.factor,
            "price": self.price,
            "recomputed": self.recomputed,
        }


class Arrangements:
    """The ways of one flow, each planned once."""

    def __init__(self, flow: Flow, alignment: int) -> None:
        self.flow, self.alignment = flow, alignment
        self._bytes: dict[tuple[str, ...], int] = {}

    @cached_property
    def order(self) -> Order:
        """The order with the smallest largest live set that was found."""
        return best_order(self.flow)

    @cached_property
    def apart(self) -> int:
        """The inputs and every operator's result, also of those that are written in place, side by side."""
        results = chain(self.flow.inputs, *((*o.makes, *(o.writes if o.elementwise else ())) for o in self.flow.operations))
        return sum(aligned(self.flow.values[v].nbytes, self.alignment) for v in results)

    def blocks(self, changes: Sequence[str]) -> tuple[Block, ...]:
        """The blocks with these changes."""
        dtype = next((c for c in changes if c in ITEMSIZES), None)
        flow = self.flow if dtype is None else self.flow.in_bytes(ITEMSIZES[dtype])
        order = self.order.order if ORDER in changes else None
        return blocks_of_flow(flow, order, in_place=IN_PLACE in changes, joined=JOINED in changes, alignment=self.alignment)

    def nbytes(self, changes: Sequence[str]) -> int:
        """What the best plan takes with these changes."""
        key = tuple(changes)
        if key not in self._bytes:
            self._bytes[key] = hill_climb(self.blocks(key)).nbytes
        return self._bytes[key]

    @cached_property
    def useful(self) -> tuple[str, ...]:
        """The exact changes that can bring anything: there is another order, there are elementwise operators, concatenations."""
        able = {
            ORDER: self.order.order != tuple(range(len(self.flow.operations))),
            IN_PLACE: any(o.elementwise and o.makes for o in self.flow.operations),
            JOINED: any(o.joins for o in self.flow.operations),
        }
        return tuple(c for c in SAME if able[c])

    def dtypes(self) -> Iterator[str | None]:
        """The dtype as it is, and those that are narrower."""
        yield None
        plain = sum(v.nbytes for v in self.flow.values)
        for name, itemsize in ITEMSIZES.items():
            if sum(v.nbytes for v in self.flow.in_bytes(itemsize).values) < plain:
                yield name

    def combined(self, dtype: str | None) -> Iterator[tuple[str, ...]]:
        """Every combination of useful changes with a dtype, fewer first."""
        for changes in chain.from_iterable(combinations(self.useful, n) for n in range(len(self.useful) + 1)):
            yield (*changes, *(() if dtype is None else (dtype,)))

    def best(self, dtype: str | None) -> tuple[str, ...]:
        """The combination with the fewest bytes, of those the one with the fewest changes."""
        return min(self.combined(dtype), key=lambda changes: (self.nbytes(changes), len(changes)))


def no_reuse_ways(found: Arrangements) -> Iterator[Way]:
    """Every result apart, as written, and with elementwise operators in place; each where it is fewer bytes than the one before."""
    best = found.apart
    yield Way(changes=(), nbytes=best, factor=1.0, reuse=False)
    for changes in (("in place where written so",), (IN_PLACE,)):
        nbytes = sum(b.size for b in found.blocks(changes))
        if nbytes < best:
            best = nbytes
            yield Way(changes=changes, nbytes=nbytes, factor=_factor(found.apart, nbytes), reuse=False)


def every_way(found: Arrangements) -> Iterator[Way]:
    """Every combination of a dtype with exact changes, reuse included; fewer changes first."""
    for dtype in found.dtypes():
        for changes in found.combined(dtype):
            nbytes = found.nbytes(changes)
            yield Way(changes=changes, nbytes=nbytes, factor=_factor(found.apart, nbytes), price=DTYPES[dtype])


def told(ways: Sequence[Way]) -> tuple[Way, ...]:
    """Of each price the way with the fewest changes, and those of more that take less than every way before them."""
    shown: list[Way] = []
    for price in PRICES:
        best: int | None = None
        for way in sorted((w for w in ways if w.price == price), key=lambda w: (len(w.changes), w.nbytes)):
            if best is None or way.nbytes < best:
                best = way.nbytes
                shown.append(way)
    return tuple(shown)


def smallest(ways: Sequence[Way], factor: float) -> Way | None:
    """The smallest change whose factor is at least ``factor``."""
    return min((w for w in ways if w.factor >= factor), key=lambda w: w.rank, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How far the memory of a call comes down: the ways worth telling, no reuse first, the ``smallest`` change whose factor is ``factor``
    or more (None: there is none), and ``why`` no windows are among them (None: they are)."""

    factor: float
    ways: tuple[Way, ...]
    smallest: Way | None
    why: str | None

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "factor": self.factor,
            "ways": [way.to_dict() for way in self.ways],
            "smallest": None if self.smallest is None else self.smallest.to_dict(),
            "why_no_windows": self.why,
        }


def _factor(most: int, nbytes: int) -> float:
    return most / nbytes if nbytes else 1.0
