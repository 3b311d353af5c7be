"""A timeline compiled once and evaluated at any size.

The order of events does not depend on sizes while the comparisons made on the way come out the same. So the step is played once with
symbolic sizes, and what is left is a small table: for each moment that could be the peak, how many tensors of each distinct size are
alive (:class:`LiveSets`). A moment is dropped when another has at least as many of everything. Where a library chooses its kernel by
searching, what the kernel holds is a function of the sizes beside the table (see :mod:`memest.ops.searched`), asked only where the moment
could be the peak.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from memest.memory.stream import Event, Storage
from memest.network.tensor import Spec
from memest.shown import counted
from memest.sizes.conditions import Conditions
from memest.sizes.dims import Dim, Expr, Opaque, expression, linear, plain, recording
from memest.sizes.functions import compile_sizes as compile_sizes
from memest.sizes.remembering import Later, Restated, Shelf, kept

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from memest.memory.line import Line

EXACT = 2**62
GREATER = int.__gt__  # of numbers alone: nothing is recorded
SOON = 3  # times the table is read at sizes that differ in the first alone, before the rest of it is set apart
MOST_LINES = 64


@dataclass(frozen=True, slots=True)
class Summary:
    """The peak of a step: bytes that stand before it, and the most bytes on top of them."""

    standing_bytes: int
    above_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Instant:
    """A moment that could be the peak: its event's number in the compiled step, phase, layer and operator; ``inner`` is what a sealed
    kernel holds there on top of the counted tensors (None: nothing)."""

    event: int
    phase: str
    layer: str
    op: str
    inner: Opaque | None


@dataclass(frozen=True, kw_only=True, eq=False)
class LiveSets(Restated):
    """What is alive at each instant that could be the peak, on top of ``resident`` bytes: as bytes (``coefficients`` of ``terms``), and as
    ``counts`` of tensors of each of the distinct ``sizes``. It holds where the ``conditions`` do."""

    symbols: tuple[str, ...]
    resident: int | Expr
    instants: tuple[Instant, ...]
    terms: tuple[Expr, ...]
    coefficients: NDArray[Any]
    """Bytes at each instant without what sealed kernels hold: a column for each of ``terms`` and, last, the constant. Python ints."""
    conditions: Conditions
    events: tuple[Event, ...]
    residents: tuple[Storage, ...] = ()
    values: Mapping[str, Spec] = field(default_factory=dict)
    """The compiled step: what is there before it, its events and the values it names, with symbolic sizes."""

    def __repr__(self) -> str:
        return f"<LiveSets: {counted(len(self.instants), 'moment')}, {counted(len(self.terms), 'term')} of {', '.join(self.symbols)[:40]}>"

    @cached_property
    def sizes(self) -> tuple[int | Expr, ...]:
        """The distinct sizes of tensors that are alive at an instant."""
        return self._counted[0]

    @cached_property
    def counts(self) -> NDArray[Any]:
        """How many tensors of ``sizes[j]`` are alive at ``instants[i]``."""
        return self._counted[1]

    @cached_property
    def _counted(self) -> tuple[tuple[int | Expr, ...], NDArray[Any]]:
        import numpy as np

        wanted = {instant.event: i for i, instant in enumerate(self.instants)}
        alive: dict[int | Expr, int] = {}
        found: dict[int, dict[int | Expr, int]] = {}
        for number, step in enumerate(self.events):
            size = expression(step.storage.nbytes)
            if not isinstance(size, Opaque):
                alive[size] = alive.get(size, 0) + (1 if plain(step.delta) > 0 else -1)
            if number in wanted:
                found[wanted[number]] = {size: n for size, n in alive.items() if n}
        index = {size: j for j, size in enumerate(dict.fromkeys(size for row in found.values() for size in row))}
        counts = np.zeros((len(self.instants), len(index)), dtype=np.int64)
        for i, row in found.items():
            for size, n in row.items():
                counts[i, index[size]] = n
        return tuple(index), counts

    @cached_property
    def bounds(self) -> NDArray[Any]:
        """Like ``coefficients``, with the most a sealed kernel could hold: for instant ``i`` the greatest of the rows ``bounds_at(i)``."""
        import numpy as np

        rows = [
            [a + b for a, b in zip(own, self.row(bound), strict=True)]
            for own, i in zip(self.coefficients.tolist(), self.instants, strict=True)
            for bound in most(i.inner)
        ]
        return np.array(rows, dtype=object).reshape(len(rows), len(self.terms) + 1)

    @cached_property
    def starts(self) -> NDArray[Any]:
        """The first row of ``bounds`` of each instant."""
        import numpy as np

        return np.cumsum([0, *(len(most(i.inner)) for i in self.instants)])[:-1]

    def bounds_at(self, i: int) -> slice:
        """Where the rows of ``bounds`` of an instant stand."""
        start = int(self.starts[i])
        return slice(start, start + len(most(self.instants[i].inner)))

    def row(self, e: int | Expr) -> list[int]:
        """``e`` as coefficients of ``terms`` and the constant."""
        terms, constant = linear(e)
        return [*(terms.get(t, 0) for t in self.terms), constant]

    def at(self, sizes: Mapping[str, int]) -> Summary | None:
        """The peak at these sizes; None where a condition does not hold (the step would run differently)."""
        free, others = self.symbols[:1], self.symbols[1:]
        fixed = tuple([sizes[s] for s in others])
        known = self._lines.get(fixed)
        line = None if known is None else known.get()
        if line is not None:
            found = line.at(sizes[free[0]])
            return None if found is None else Summary(*found)
        if not self.conditions.hold(sizes):
            return None
        if known is None and free and self.instants:
            self._lines.keep(fixed, Later(partial(self._line, fixed), SOON))
        return self._at(sizes)

    @cached_property
    def _lines(self) -> Shelf[Later[Line]]:
        """The step along its first size, by the others."""
        return Shelf(MOST_LINES)

    def _line(self, others: tuple[int, ...]) -> Line:
        import numpy as np

        from memest.memory.line import Line

        free = self.symbols[0]
        fixed = dict(zip(self.symbols[1:], others, strict=True))
        rows = np.array([self.row(self.resident), *self.coefficients.tolist()], dtype=object)
        inners = [i.inner for i in self.instants]
        return Line(free, fixed, self.terms, rows, self.bounds, self.starts, inners, self.conditions.along(free, fixed))

    def _at(self, sizes: Mapping[str, int]) -> Summary:
        import numpy as np

        values = self._values(*(sizes[s] for s in self.symbols))

        column = np.array((*values, 1), dtype=object)
        resident = int(np.dot(np.array(self.row(self.resident), dtype=object), column))
        if not self.instants:
            return Summary(resident, 0)
        low, high = self._matrices(max(values, default=1))
        column = column.astype(low.dtype)
        alive, most = low @ column, np.maximum.reduceat(high @ column, self.starts)
        best = max((int(alive[i]) for i in self._closed), default=0)
        for i in self._open[np.argsort(-most[self._open], kind="stable")] if len(self._open) else ():
            if int(most[i]) <= best:
                break
            inner = self.instants[i].inner
            assert inner is not None
            best = max(best, int(alive[i]) + inner.evaluate(sizes))
        return Summary(resident, best)

    def counted(self, sizes: Mapping[str, int]) -> int:
        """The peak of the counted tensors alone: never more than the peak, and never less at larger sizes."""
        import numpy as np

        column = np.array((*self._values(*(sizes[s] for s in self.symbols)), 1), dtype=object)
        resident = int(np.dot(np.array(self.row(self.resident), dtype=object), column))
        return resident + max((int(n) for n in self.coefficients @ column), default=0)

    def _matrices(self, largest: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """``coefficients`` and ``bounds`` in int64 where that is exact for terms up to ``largest``, else in Python ints."""
        if largest * self._heaviest < EXACT:
            return self._fast
        return self.coefficients, self.bounds

    @cached_property
    def _heaviest(self) -> int:
        return int(abs(self.bounds).sum(axis=1).max())

    @cached_property
    def _fast(self) -> tuple[NDArray[Any], NDArray[Any]]:
        import numpy as np

        return self.coefficients.astype(np.int64), self.bounds.astype(np.int64)

    @cached_property
    def _closed(self) -> list[int]:
        return [n for n, i in enumerate(self.instants) if i.inner is None]

    @cached_property
    def _open(self) -> NDArray[Any]:
        import numpy as np

        return np.array([n for n, i in enumerate(self.instants) if i.inner is not None], dtype=np.intp)

    def array_terms(self, sizes: Mapping[str, Any]) -> Sequence[Any]:
        """``terms`` at columns of sizes."""
        return self._array_values(*(sizes[s] for s in self.symbols))

    @cached_property
    def _array_values(self) -> Callable[..., tuple[Any, ...]]:
        return compile_sizes(self.terms, self.symbols, arrays=True)

    @cached_property
    def _values(self) -> Callable[..., tuple[int, ...]]:
        return compile_sizes(self.terms, self.symbols)


@kept(1_024)
def most(inner: Opaque | None) -> tuple[int | Expr, ...]:
    """Formulas of which the greatest is no less than what a sealed kernel holds (None: nothing)."""
    if inner is None:
        return (0,)
    with recording(None):
        bounds = inner.function.most(*(Dim(2, a) if isinstance(a, Expr) else a for a in inner.args))  # type: ignore[attr-defined]
    return tuple(map(expression, bounds))


def live_sets(steps: tuple[Event, ...], resident: int | Expr, symbols: tuple[str, ...], conditions: Conditions) -> LiveSets:
    """The table of a played step, without the moments that cannot be the peak."""
    import numpy as np

    moments, terms, table = _candidates(steps)
    names = dict.fromkeys(terms)
    for inner in dict.fromkeys(inner for _, inner in moments):
        for bound in most(inner):
            names.update(dict.fromkeys(linear(bound)[0]))
    names.update(dict.fromkeys(linear(resident)[0]))
    keep = undominated(table, [inner for _, inner in moments])
    coefficients = np.zeros((len(keep), len(names) + 1), dtype=object)
    coefficients[:, : len(terms)] = table[keep, :-1]
    coefficients[:, -1] = table[keep, -1]
    instants = []
    for i in keep:
        event, inner = moments[i]
        step = steps[event]
        instants.append(Instant(event=event, phase=step.phase, layer=step.layer, op=step.op, inner=inner))
    return LiveSets(
        symbols=symbols,
        resident=resident,
        instants=tuple(instants),
        terms=tuple(names),
        coefficients=coefficients,
        conditions=conditions,
        events=steps,
    )


def _candidates(steps: Sequence[Event]) -> tuple[list[tuple[int, Opaque | None]], list[Expr], NDArray[Any]]:
    """(event, what a sealed kernel holds) wherever an allocation is followed by a release; the terms of the counted tensors' bytes, and at
    each of these moments how many of every term, and of the constant, are alive."""
    import numpy as np

    moments: list[tuple[int, Opaque | None]] = []
    counted: list[int] = []  # events that precede each moment's state
    which: dict[int | Expr, int] = {}
    column: list[int] = []
    signs: list[int] = []
    rising = False
    for number, step in enumerate(steps):
        size: int | Expr = step.storage.nbytes
        grows = GREATER(step.delta, 0)
        if isinstance(size, Dim):
            size = size.expr
            if isinstance(size, Opaque):
                if grows:
                    moments.append((number, size))
                    counted.append(len(signs))
                rising = False
                continue
        if rising and not grows:
            moments.append((number - 1, None))
            counted.append(len(signs))
        column.append(which.setdefault(size, len(which)))
        signs.append(1 if grows else -1)
        rising = grows
    if rising:
        moments.append((len(steps) - 1, None))
        counted.append(len(signs))
    last = counted[-1] if counted else 0
    seen = set(column[:last])
    forms = [linear(size) for size in which]
    terms = list(dict.fromkeys(t for (form, _), i in zip(forms, range(len(forms)), strict=True) if i in seen for t in form))
    matrix = np.array([[*(form.get(t, 0) for t in terms), constant] for form, constant in forms], dtype=object)
    matrix = matrix.reshape(len(forms), len(terms) + 1)
    if int(abs(matrix).max(initial=0)) * max(len(signs), 1) < EXACT:
        matrix = matrix.astype(np.int64)
    sign, place = np.array(signs, dtype=np.int64)[:last], np.array(column, dtype=np.intp)[:last]
    table = np.zeros((len(moments), len(terms) + 1), dtype=matrix.dtype)
    at = np.array(counted, dtype=np.intp)
    for t in range(len(terms) + 1):
        sums = np.cumsum(sign * matrix[place, t])
        table[:, t] = np.concatenate([np.zeros(1, dtype=sums.dtype), sums])[at]
    return moments, terms, table


def undominated(table: NDArray[Any], inners: Sequence[Opaque | None]) -> list[int]:
    """Rows that no other row equals or exceeds in every column; what a sealed kernel holds counts as a column of its own."""
    import numpy as np

    if len(table) == 0:
        return []
    if abs(table).max() < EXACT // table.shape[1]:
        table = table.astype(np.int64)
    codes: dict[Opaque | None, int] = {None: 0}
    inner = np.array([codes.setdefault(i, len(codes)) for i in inners])
    left = np.argsort(-table.sum(axis=1), kind="stable")
    kept: list[int] = []
    while len(left):
        first = left[0]
        kept.append(int(first))
        below = (inner[left] == 0) | (inner[left] == inner[first])
        below[below] = (table[left[below]] <= table[first]).all(axis=1)
        left = left[~below]
    return sorted(kept)
