"""Products of sizes: axes of which every value of one meets every value of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memest.memory.live_sets import compile_sizes
from memest.sizes.conditions import Conditions
from memest.sizes.dims import COMPARE, Expr, symbols_of
from memest.sizes.remembering import kept

Column = NDArray[Any]
MOSTLY = 4  # times as many configurations, up to which a product is gone through for a part of it
PATTERNS = 3  # different slices of an axis, up to which a part of a grid is a few grids


@dataclass(frozen=True, eq=False)
class Axis:
    """Sizes that vary together (int64 columns by symbol, equally long). ``places`` are added up over the axes: where in the answer a
    configuration stands."""

    sizes: Mapping[str, Column]
    places: Column

    def at(self, rows: Any) -> Axis:
        """Some of its values."""
        return Axis({s: c[rows] for s, c in self.sizes.items()}, self.places[rows])

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True, eq=False)
class Grid:
    """The product of ``axes``, the last of which varies fastest."""

    axes: tuple[Axis, ...]

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """How many values each axis has."""
        return tuple(map(len, self.axes))

    @property
    def points(self) -> int:
        """How many configurations it has."""
        return prod(self.lengths)

    @cached_property
    def axis_of(self) -> Mapping[str, int]:
        """The number of each symbol's axis."""
        return {s: k for k, axis in enumerate(self.axes) for s in axis.sizes}

    def rows(self, numbers: Any) -> dict[str, Column]:
        """The sizes of some configurations, counted from 0."""
        return {
            s: c[at] for axis, at in zip(self.axes, np.unravel_index(numbers, self.lengths), strict=True) for s, c in axis.sizes.items()
        }

    def row(self, number: int) -> dict[str, int]:
        """The sizes of one."""
        return {s: int(c) for s, c in self.rows(number).items()}

    @cached_property
    def columns(self) -> dict[str, Column]:
        """All sizes, shaped so that numpy makes the product of them."""
        count = len(self.axes)
        return {s: c.reshape([-1 if k == own else 1 for k in range(count)]) for s, c in self._all() for own in (self.axis_of[s],)}

    def _all(self) -> Iterator[tuple[str, Column]]:
        return ((s, c) for axis in self.axes for s, c in axis.sizes.items())

    @cached_property
    def tops(self) -> dict[str, int]:
        """The largest of each size."""
        return {s: int(c.max()) for s, c in self._all()}

    @cached_property
    def places(self) -> Column:
        """Where every configuration stands, in order."""
        return added([axis.places for axis in self.axes])

    def at(self, rows: Sequence[Any]) -> Grid:
        """Some of the values of each axis."""
        return Grid(tuple(axis.at(r) for axis, r in zip(self.axes, rows, strict=True)))

    def within(self, conditions: Conditions) -> tuple[list[Any], Column | None]:
        """Where ``conditions`` hold: rows of each axis (slices where they are runs), and among them a mask (None: everywhere)."""
        masks = [np.ones(n, dtype=bool) for n in self.lengths]
        for s, k in self.axis_of.items():
            column = self.axes[k].sizes[s]
            if s in conditions.least:
                masks[k] &= column >= conditions.least[s]
            if s in conditions.most:
                masks[k] &= column <= conditions.most[s]
            if conditions.multiple.get(s, 1) > 1:
                masks[k] &= column % conditions.multiple[s] == 0
        across = []
        for guard in conditions.others:
            used = symbols_of((guard.left, guard.right))
            numbers = {self.axis_of[s] for s in used}
            if len(numbers) > 1:
                across.append((guard, used))
                continue
            k = numbers.pop() if numbers else 0
            left, right = column_function((guard.left, guard.right), tuple(sorted(used)))(*(self.axes[k].sizes[s] for s in sorted(used)))
            masks[k] &= COMPARE[guard.op](left, right)
        rows = [_run(np.flatnonzero(m)) for m in masks]
        if not across:
            return rows, None
        part = self.at(rows)
        mask = np.ones(part.lengths, dtype=bool)
        for guard, used in across:
            names = tuple(sorted(used))
            left, right = column_function((guard.left, guard.right), names)(*(part.columns[s] for s in names))
            mask &= COMPARE[guard.op](left, right)
        return rows, mask

    def where(self, mask: Column) -> list[tuple[Grid, Column | None]]:
        """The configurations that ``mask`` (of shape ``lengths``) has, as few grids with a mask of each (None: all of it): one where they
        are much of a product, else slices of an axis that are alike together, or all of them as one axis."""
        rows = [np.flatnonzero(mask.any(axis=tuple(k for k in range(mask.ndim) if k != own))) for own in range(mask.ndim)]
        if not len(rows[0]):
            return []
        inner = mask[np.ix_(*rows)]
        part = self.at([_run(r) for r in rows])
        count = np.count_nonzero(inner)
        if count == inner.size:
            return [(part, None)]
        if count * MOSTLY >= inner.size:
            return [(part, inner)]
        patterns = [_patterns(inner, k) for k in range(inner.ndim)]
        own = min(range(inner.ndim), key=lambda k: len(patterns[k]))
        if inner.ndim == 1 or len(patterns[own]) > PATTERNS:
            return [(Grid((part.joined(np.flatnonzero(inner)),)), None)]
        others = Grid(tuple(axis for k, axis in enumerate(part.axes) if k != own))
        kept_rows = [(slices, np.flatnonzero(np.take(inner, slices[0], axis=own))) for slices in patterns[own]]
        return [(Grid((part.axes[own].at(slices), others.joined(numbers))), None) for slices, numbers in kept_rows if len(numbers)]

    def joined(self, numbers: Column) -> Axis:
        """Some configurations as one axis."""
        return Axis(self.rows(numbers), self.places[numbers])


def grid(axes: Sequence[Mapping[str, Column]]) -> Grid:
    """The product of columns that vary together; an answer has its configurations in order."""
    lengths = [len(next(iter(sizes.values()))) for sizes in axes]
    steps = [prod(lengths[k + 1 :]) for k in range(len(lengths))]
    return Grid(tuple(Axis(sizes, np.arange(n) * step) for sizes, n, step in zip(axes, lengths, steps, strict=True)))


def added(columns: Sequence[Column]) -> Column:
    """Every sum of one number of each, the last varying fastest."""
    total = np.zeros(1, dtype=np.int64)
    for column in columns:
        total = (total[:, None] + column).ravel()
    return total


@kept(4_096)
def column_function(formulas: tuple[int | Expr, ...], symbols: tuple[str, ...]) -> Callable[..., tuple[Any, ...]]:
    """``formulas`` as one function of columns of ``symbols``."""
    return compile_sizes(formulas, symbols, arrays=True)


def _run(rows: Column) -> Any:
    """Ascending ``rows``, as a slice where they have no gaps."""
    return slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) and rows[-1] - rows[0] == len(rows) - 1 else rows


def _patterns(mask: Column, axis: int) -> list[Column]:
    """The slices along ``axis``, those that are alike together."""
    packed = np.packbits(np.moveaxis(mask, axis, 0).reshape(mask.shape[axis], -1), axis=1)
    found: dict[bytes, list[int]] = {}
    for number, bits in enumerate(packed):
        found.setdefault(bits.tobytes(), []).append(number)
    return [np.array(numbers) for numbers in found.values()]
