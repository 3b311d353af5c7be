"""Formulas over a grid as sums of products: one factor of the sizes of some axes, one of the sizes of the others.

The bytes at a moment are ``sum(left[i, u] * weights[i, j] * right[j, v])``: with few functions on the right (such as ``N`` and ``1``) a
whole grid costs little more than its sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memest.planning.grids import Grid, column_function
from memest.sizes.dims import Expr

Column = NDArray[Any]
Monomial = tuple[Expr, ...]
MOST_MONOMIALS = 64  # of one formula, written out
A_SIZE, A_FUNCTION, A_POINT = 80, 8, 2  # about what work costs: sorting a row of a side, a function there, a function at a point
"""Nanoseconds; they choose which axes stand on the right, and nothing else."""


class Parts:
    """Formulas written out as sums of products of parts, each of which depends on one axis where that can be."""

    def __init__(self, axis_of: Mapping[str, int]) -> None:
        self._axis_of = axis_of
        self._axes: dict[Any, frozenset[int]] = {}
        self._known: dict[Any, dict[Monomial, int]] = {}

    def axes(self, e: Any) -> frozenset[int]:
        """The axes that ``e`` depends on."""
        if not isinstance(e, Expr):
            return frozenset()
        if e not in self._axes:
            if e.op == "symbol":
                self._axes[e] = frozenset((self._axis_of[e.args[0]],))
            else:
                self._axes[e] = frozenset().union(*map(self.axes, e.args))
        return self._axes[e]

    def written_out(self, e: Any) -> dict[Monomial, int]:
        """Coefficients by product of parts."""
        if not isinstance(e, Expr):
            return {(): int(e)}
        if e not in self._known:
            self._known[e] = self._expanded(e)
        return self._known[e]

    def _expanded(self, e: Expr) -> dict[Monomial, int]:
        if len(self.axes(e)) <= 1 or e.op not in ("+", "-", "*"):
            return {(e,): 1}
        a, b = map(self.written_out, e.args)
        found: dict[Monomial, int] = {}
        if e.op == "*":
            if len(a) * len(b) > MOST_MONOMIALS:
                return {(e,): 1}
            for (x, n), (y, m) in ((x, y) for x in a.items() for y in b.items()):
                key = tuple(sorted((*x, *y), key=lambda part: part.rank))
                found[key] = found.get(key, 0) + n * m
            return found
        found.update(a)
        for y, m in b.items():
            found[y] = found.get(y, 0) + (m if e.op == "+" else -m)
        return found if len(found) <= MOST_MONOMIALS else {(e,): 1}


@dataclass(frozen=True, eq=False)
class Separated:
    """How formulas separate over a grid: ``right`` are the axes on the right, ``lefts`` and ``rights`` the functions of either side
    (products of parts; the first is 1), ``weights[t, j, i]`` how often ``lefts[i] * rights[j]`` is in formula ``t``, the last of which
    is 1."""

    right: tuple[int, ...]
    lefts: tuple[Monomial, ...]
    rights: tuple[Monomial, ...]
    weights: Column


def separated(formulas: Sequence[int | Expr], grid: Grid) -> Separated:
    """The cheapest way that the formulas separate."""
    parts = Parts(grid.axis_of)
    one: Monomial = ()
    written: list[Mapping[Monomial, int]] = [*(parts.written_out(f) for f in formulas), {one: 1}]
    monomials = dict.fromkeys((one, *(m for sum_ in written for m in sum_)))
    components = _components(len(grid.axes), [parts.axes(part) for m in monomials for part in m])

    def sides(right: frozenset[int]) -> tuple[dict[Monomial, int], dict[Monomial, int], list[tuple[int, int]]]:
        lefts: dict[Monomial, int] = {}
        rights: dict[Monomial, int] = {}
        where = []
        for m in monomials:
            there = tuple(part for part in m if parts.axes(part) & right)
            here = tuple(part for part in m if not parts.axes(part) & right)
            where.append((lefts.setdefault(here, len(lefts)), rights.setdefault(there, len(rights))))
        return lefts, rights, where

    def cost(right: frozenset[int]) -> float:
        lefts, rights, _ = sides(right)
        v = prod(grid.lengths[k] for k in right)
        u = grid.points // v
        scattered = len(grid.axes) - 1 in right
        return (
            u * (A_SIZE + A_FUNCTION * len(lefts))
            + v * (A_SIZE + A_FUNCTION * len(rights))
            + u * v * (A_POINT * len(rights) + 4 * scattered)
        )

    choices = (frozenset(chain(*some)) for n in range(len(components)) for some in combinations(components, n))
    right = min(choices, key=cost)
    lefts, rights, where = sides(right)
    weights = np.zeros((len(written), len(rights), len(lefts)), dtype=object)
    number = dict(zip(monomials, where, strict=True))
    for t, sum_ in enumerate(written):
        for m, n in sum_.items():
            i, j = number[m]
            weights[t, j, i] += n
    return Separated(tuple(sorted(right)), tuple(lefts), tuple(rights), weights)


def values(functions: Sequence[Monomial], sizes: Mapping[str, Column], count: int) -> Column:
    """Products of parts at ``count`` rows of ``sizes``, as float64: a row each. Where a formula divides by 0, its row does not count."""
    parts = tuple(dict.fromkeys(part for f in functions for part in f))
    with np.errstate(divide="ignore"):
        at = dict(zip(parts, column_function(parts, tuple(sizes))(*sizes.values()), strict=True))
    found = np.ones((len(functions), count))
    for row, f in zip(found, functions, strict=True):
        if f:
            whole = at[f[0]]
            for part in f[1:]:
                whole = whole * at[part]
            row[:] = whole
    return found


def _components(count: int, together: Sequence[frozenset[int]]) -> list[frozenset[int]]:
    """Axes, those that a part needs together in one set."""
    found = [frozenset((k,)) for k in range(count)]
    for axes in together:
        if len(axes) > 1:
            touched = [c for c in found if c & axes]
            found = [c for c in found if not c & axes] + [frozenset().union(*touched)]
    return found
