"""A compiled step along one of its sizes, the others fixed: a narrow table of numbers.

People ask for one batch after another. With the other sizes fixed, formulas become sums of a few; and once several neighbours were asked
for, all of them are answered at once, with kernels played in columns (:mod:`memest.sizes.columns`), which takes about as long as a few
of them alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from memest.errors import MemestError
from memest.sizes.columns import by_lanes
from memest.sizes.conditions import Conditions
from memest.sizes.dims import Expr, Opaque, linear, substituted
from memest.sizes.functions import compile_sizes
from memest.sizes.remembering import Later, Shelf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Row = tuple[NDArray[Any], NDArray[Any]] | tuple[()]

NEIGHBOURS = 512  # sizes in a row that are answered at once
SOON = 3  # of them are answered alone before that
MOST_ROWS = 32  # of neighbours
EXACT = 2**62  # int64 sums stay below it


class Line:
    """The peak as a function of the size ``free``, where the others are ``fixed``. ``rows`` are coefficients of ``terms`` and, last, the
    constant: resident bytes, then bytes at each moment without what its kernel in ``inners`` holds (None: no kernel). ``bounds`` are the
    same with the most that could be, several a moment: the first of each is in ``starts``. It holds where the ``conditions`` do."""

    def __init__(
        self,
        free: str,
        fixed: Mapping[str, int],
        terms: Sequence[Expr],
        rows: NDArray[Any],
        bounds: NDArray[Any],
        starts: NDArray[Any],
        inners: Sequence[Opaque | None],
        conditions: Conditions,
    ) -> None:
        done: dict[Expr, Any] = {}
        forms = [linear(substituted(t, fixed, done)) for t in terms]
        names = list(dict.fromkeys(name for form, _ in forms for name in form))
        written = [[*(form.get(name, 0) for name in names), constant] for form, constant in forms]
        narrow = np.array([*written, [*(0 for _ in names), 1]], dtype=object)
        self._values = compile_sizes(names, (free,))
        self._rows, self._bounds = _product(rows, narrow), _product(bounds, narrow)
        self._heaviest = max(int(abs(m.astype(object)).sum(axis=1).max(initial=1)) for m in (self._rows, self._bounds))
        self._starts = starts
        self._closed = np.array([i is None for i in inners], dtype=bool)
        self._open = np.flatnonzero(~self._closed)
        self._inners = [None if i is None else substituted(i, fixed, done) for i in inners]
        self._free, self._conditions = free, conditions
        self._least, self._most = conditions.least[free], conditions.most.get(free)
        self._known: Shelf[Later[Row]] = Shelf(MOST_ROWS)

    def at(self, n: int) -> tuple[int, int] | None:
        """Resident bytes, and the most bytes on top of them, where the size is ``n``; None where a condition does not hold."""
        if not self._conditions.hold({self._free: n}):
            return None
        block = n // NEIGHBOURS
        found = self._known.get(block)
        if found is None:
            found = self._known.keep(block, Later(partial(self._together, block), SOON))
        row = found.get()
        if not row:
            return self._alone(n)
        resident, above = row
        k = n - self._start(block)
        return int(resident[k]), int(above[k])

    def _start(self, block: int) -> int:
        return max(block * NEIGHBOURS, self._least)

    def _alone(self, n: int) -> tuple[int, int]:
        resident, alive, most = self._moments([n])
        best = max(0, int(alive[self._closed].max(initial=0)))
        for i in self._open[np.argsort(-most[self._open, 0], kind="stable")]:
            if int(most[i, 0]) <= best:
                break
            inner = self._inners[i]
            assert inner is not None
            best = max(best, int(alive[i, 0]) + inner.evaluate({self._free: n}))
        return int(resident[0]), best

    def _moments(self, sizes: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """At each of the sizes: resident bytes, bytes at the moments without what kernels hold, and the most with it."""
        columns = np.array([[*self._values(n), 1] for n in sizes], dtype=object).T
        rows, bounds = self._rows, self._bounds
        if int(columns.max()) * self._heaviest < EXACT:
            columns = columns.astype(np.int64)
        else:
            rows, bounds = rows.astype(object), bounds.astype(object)
        counted = rows @ columns
        return counted[0], counted[1:], np.maximum.reduceat(bounds @ columns, self._starts)

    def _together(self, block: int) -> Row:
        """The answers of a row of neighbours; nothing where columns cannot tell them."""
        start, end = self._start(block), (block + 1) * NEIGHBOURS
        sizes = range(start, end if self._most is None else min(end, self._most + 1))
        resident, alive, most = self._moments(sizes)
        best = np.maximum(alive[self._closed].max(axis=0, initial=0), 0)
        try:
            for i in sorted(self._open.tolist(), key=lambda i: -(most[i] - best).max()):
                still = np.flatnonzero(most[i] > best)
                if len(still):
                    best[still] = np.maximum(best[still], alive[i][still] + self._held(i, [sizes[k] for k in still]))
        except (MemestError, ArithmeticError):
            return ()
        return resident, best

    def _held(self, i: int, sizes: Sequence[int]) -> NDArray[np.int64]:
        """What a kernel holds at each of the sizes."""
        inner = self._inners[i]
        assert inner is not None
        arguments = compile_sizes(inner.args, (self._free,))
        problems = np.array([arguments(n) for n in sizes], dtype=object)
        if int(problems.max()) >= EXACT:
            raise OverflowError
        play = inner.function.play
        return by_lanes(lambda *at: play(at), list(np.ascontiguousarray(problems.T.astype(np.int64))))


def _product(rows: NDArray[Any], narrow: NDArray[Any]) -> NDArray[Any]:
    """The matrix product, in Python ints where int64 might not hold it."""
    heaviest = int(abs(rows).max(initial=0)) * int(abs(narrow).max(initial=0)) * len(narrow)
    if heaviest >= EXACT:
        return np.asarray(rows @ narrow)
    return np.asarray(rows.astype(np.int64) @ narrow.astype(np.int64))
