"""Which moment is the peak, everywhere on a grid: live sets read block by block.

A block is a run of rows of either side of the grid (see memest.planning.separated), in the order of their number of elements, so that
neighbours are alike. Moments that lose everywhere in a block are left out of it by their bounds; where many are left the block is
halved. What the rest counts is a product of the sides. What a library's kernels hold is asked only where such a moment could still be
the peak, each distinct problem once (memest.sizes.columns plays the kernel for all of them together).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memest.libraries.onednn.rough import End, Rough
from memest.memory.live_sets import EXACT, LiveSets
from memest.planning.grids import Grid, added, column_function
from memest.planning.progress import tell
from memest.planning.separated import Separated, values
from memest.sizes.columns import by_lanes
from memest.sizes.dims import Expr, Opaque, factors, symbols_of

Column = NDArray[Any]
SIDE = 1 << 16  # rows of a side looked at together
BLOCK = 1 << 15  # configurations computed together: they stay in the cache
WORTH = 1 << 21  # moments times configurations of a block from which on halving it may pay
ALONE = 1 << 18  # multiplications of a product that a BLAS leaves to the calling thread (OpenBLAS interface/gemm.c)
ALIKE = 1.01  # times as many elements, up to which rows are not told apart
MANY_ALIKE = 8  # configurations a problem, from which on asking for a few more problems costs less than telling them apart
DENSE = 1 << 16  # keys below it (and below 8 times their number) are told apart by a table, not by sorting


def contest(live: LiveSets, grid: Grid, forms: Separated, inside: Column | None, resident: Column, peak: Column) -> None:
    """Write the bytes of every configuration of ``grid`` (those ``inside``, where given) to its places in ``resident`` and ``peak``. The
    conditions of ``live`` hold there, and float64 is exact."""
    if inside is not None:
        inside = np.moveaxis(inside, forms.right, range(len(forms.right))).reshape(prod(grid.lengths[k] for k in forms.right), -1)
    left, right = (Grid(tuple(a for k, a in enumerate(grid.axes) if (k in forms.right) is there)) for there in (False, True))
    there = _side(right, np.arange(right.points), forms.rights)
    functions, alike = np.unique(there.values, axis=0, return_inverse=True)
    merged = np.zeros((len(functions), len(alike)))
    merged[alike.ravel(), np.arange(len(alike))] = np.count_nonzero(functions, axis=1)[alike.ravel()] > 0
    there = replace(there, values=functions)
    moments = _Moments(live, np.einsum("gj,tji->tgi", merged, forms.weights.astype(np.float64)))
    for start in range(0, left.points, SIDE):
        numbers = np.arange(start, min(start + SIDE, left.points))
        within = None if inside is None else inside[:, start : start + SIDE]
        _Field(moments, _side(left, numbers, forms.lefts), there, within).fill(resident, peak)


class _Moments:
    """A step's moments as weights of the products of both sides' functions."""

    def __init__(self, live: LiveSets, weights: Column) -> None:
        flat = weights.reshape(len(weights), -1)

        def rows(matrix: Column) -> Column:
            return product(matrix.astype(np.float64), flat).reshape(len(matrix), *weights.shape[1:])

        self.inners = [i.inner for i in live.instants]
        self.low = rows(live.coefficients)
        """Bytes that are counted at a moment: ``low[m, j, i]`` times function ``j`` of the right and ``i`` of the left."""
        self.high = rows(live.bounds)
        """The same with the most a sealed kernel could hold; ``owners`` are their moments."""
        self.owners = np.repeat(np.arange(len(self.low)), np.diff(live.starts, append=len(self.high)))
        self.is_open = np.array([i is not None for i in self.inners], dtype=bool)[self.owners]
        self.resident = rows(np.array([live.row(live.resident)], dtype=object))[0]
        used = weights.any(axis=0)
        self.right_of, self.left_of = np.nonzero(used)
        self.low_flat, self.high_flat = self.low[:, used], self.high[:, used]


@dataclass(frozen=True, eq=False)
class _Side:
    """One side of a grid: its sizes, its numbers of elements (ascending) and its functions' values; ``order`` leads there from the grid's
    own, in which ``places`` are."""

    sizes: Mapping[str, Column]
    elements: Column
    values: Column
    order: Column
    places: Column

    @cached_property
    def back(self) -> Column:
        """From the grid's order to the ascending one."""
        found = np.empty(len(self.order), dtype=np.intp)
        found[self.order] = np.arange(len(self.order))
        return found


def _side(grid: Grid, numbers: Column, functions: Sequence[tuple[Expr, ...]]) -> _Side:
    if not grid.axes:
        return _Side({}, np.ones(1), np.ones((len(functions), 1)), np.zeros(1, dtype=np.intp), np.zeros(1, dtype=np.int64))
    sizes = grid.rows(numbers)
    elements = np.multiply.reduce([c.astype(np.float32) for c in sizes.values()])
    order = np.argsort(elements, kind="stable")
    sizes = {s: c[order] for s, c in sizes.items()}
    return _Side(sizes, elements[order], values(functions, sizes, len(order)), order, added([axis.places for axis in grid.axes])[numbers])


@dataclass(frozen=True, eq=False)
class _Block:
    """Rows of either side."""

    left: slice
    right: slice

    @property
    def points(self) -> int:
        """How many configurations it has."""
        return int((self.left.stop - self.left.start) * (self.right.stop - self.right.start))

    def halves(self, spread: Sequence[float]) -> tuple[_Block, _Block]:
        """Cut where it is less alike: ``spread`` is that of the left and of the right."""
        if spread[0] >= spread[1]:
            first, second = _halves(self.left)
            return _Block(first, self.right), _Block(second, self.right)
        first, second = _halves(self.right)
        return _Block(self.left, first), _Block(self.left, second)

    def around(self, mask: Column) -> _Block:
        """The least block with all that ``mask`` has."""
        v, u = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        left, right = self.left.start, self.right.start
        return _Block(slice(left + int(u[0]), left + int(u[-1]) + 1), slice(right + int(v[0]), right + int(v[-1]) + 1))

    def pieces(self) -> list[_Block]:
        """Small blocks that make up this one."""
        tall = min(self.right.stop - self.right.start, 64)
        wide = min(max(BLOCK // tall, 1), 4096)
        return [_Block(u, v) for u in _cut(self.left, wide) for v in _cut(self.right, tall)]


def _halves(rows: slice) -> tuple[slice, slice]:
    middle = (rows.start + rows.stop) // 2
    return slice(rows.start, middle), slice(middle, rows.stop)


def _cut(rows: slice, length: int) -> list[slice]:
    return [slice(start, min(start + length, rows.stop)) for start in range(rows.start, rows.stop, length)]


@dataclass(frozen=True, eq=False)
class _Question:
    """A moment that could be the peak somewhere in a block, depending on what a kernel holds; ``highs`` are the bounds that say so."""

    moment: int
    highs: Column
    block: _Block


class _Field:
    """The contest over one grid; what is not ``inside`` is won before it begins."""

    def __init__(self, moments: _Moments, left: _Side, right: _Side, inside: Column | None) -> None:
        self._moments, self._left, self._right, self._inside = moments, left, right, inside
        self._best = np.zeros((len(right.order), len(left.order)))
        if inside is not None:
            self._best[~inside[np.ix_(right.order, left.order)]] = np.inf
        self._asked: dict[Opaque, list[_Question]] = {}
        self._ranges: dict[tuple[bool, int, int, int], tuple[Column, Column]] = {}
        self._keys: dict[tuple[bool, tuple[Any, ...]], tuple[Column, Column]] = {}

    def fill(self, resident: Column, peak: Column) -> None:
        """Find the most bytes everywhere, and write them down."""
        if len(self._moments.low):
            self._bound()
            self._answer()
        self._write(resident, peak)

    # counted bytes

    def _bound(self) -> None:
        whole = _Block(slice(0, len(self._left.order)), slice(0, len(self._right.order)))
        pending = [(whole, np.arange(len(self._moments.high)))]
        done = 0
        while pending:
            block, rows = pending.pop()
            rows = self._contenders(block, rows)
            near = np.unique(self._moments.owners[rows])
            if max(len(near), len(rows)) * block.points > WORTH and len(rows) > 1 and max(spread := self._spread(block)) > ALIKE:
                pending += [(half, rows) for half in block.halves(spread)[::-1]]
                continue
            tell("sizes", done, whole.points)
            for piece in block.pieces():
                self._compute(piece, near, rows)
            done += block.points
        tell("sizes", whole.points, whole.points)

    def _contenders(self, block: _Block, rows: Column) -> Column:
        """Those of the bounds that may win somewhere in the block. Functions are measured by the largest product of them, which makes their
        ratios nearly constant; a moment is left out when even its bound stays below the winner at the middle of the block, by more than
        rounding."""
        m = self._moments
        u, v = ((s.start + s.stop) // 2 for s in (block.left, block.right))
        middle = self._left.values[m.left_of, u] * self._right.values[m.right_of, v]
        measure = int(np.argmax(middle))
        left_least, left_most = self._range(True, block.left, int(m.left_of[measure]))
        right_least, right_most = self._range(False, block.right, int(m.right_of[measure]))
        ends = np.stack([a[m.left_of] * b[m.right_of] for a in (left_least, left_most) for b in (right_least, right_most)])
        least, most = ends.min(axis=0), ends.max(axis=0)
        near = np.unique(m.owners[rows])
        ahead = m.high_flat[rows] - m.low_flat[near[np.argmax(_dots(m.low_flat[near], middle))]]
        highest = _dots(np.maximum(ahead, 0), most) + _dots(np.minimum(ahead, 0), least)
        return rows[highest >= -1e-9 * _dots(abs(ahead), np.maximum(abs(least), abs(most)))]

    def _spread(self, block: _Block) -> tuple[float, float]:
        """How many times as many elements the largest rows of either side have as the smallest."""
        sides = ((self._left.elements, block.left), (self._right.elements, block.right))
        left, right = (float(elements[rows.stop - 1] / elements[rows.start]) for elements, rows in sides)
        return left, right

    def _range(self, is_left: bool, rows: slice, measure: int) -> tuple[Column, Column]:
        """The least and most of each function over some rows, in parts of the one that is the measure (1, where it is 0 somewhere)."""
        whole = (self._left if is_left else self._right).values[:, rows]
        by = whole[measure] if (whole[measure] > 0).all() else np.ones(whole.shape[1])
        key = (is_left, rows.start, rows.stop, measure)
        if key not in self._ranges:
            ratios = whole / by
            self._ranges[key] = ratios.min(axis=1), ratios.max(axis=1)
        return self._ranges[key]

    def _compute(self, block: _Block, near: Column, rows: Column) -> None:
        """The most that is counted in a small block, and the questions that are open there."""
        m = self._moments
        best = self._best[block.right, block.left]
        for bytes_ in self._at(m.low[near], block):
            np.maximum(best, bytes_, out=best)
        open_rows = rows[m.is_open[rows]]
        wins: dict[int, tuple[list[int], Column]] = {}
        for row, bytes_ in zip(open_rows, self._at(m.high[open_rows], block), strict=True):
            mask = bytes_ > best
            if np.count_nonzero(mask):
                rows_of, before = wins.get(int(m.owners[row]), ([], mask))
                wins[int(m.owners[row])] = [*rows_of, int(row)], mask | before
        for moment, (highs, mask) in wins.items():
            inner = m.inners[moment]
            assert inner is not None
            self._asked.setdefault(inner, []).append(_Question(moment, np.array(highs), block.around(mask)))

    def _at(self, weights: Column, block: _Block) -> Iterator[Column]:
        """What each row of weights comes to in a block: the same array, over and over."""
        if not len(weights):
            return
        right = np.ascontiguousarray(self._right.values[:, block.right].T)
        on_left = product(weights.reshape(-1, weights.shape[-1]), self._left.values[:, block.left]).reshape(*weights.shape[:2], -1)
        out = np.empty((len(right), on_left.shape[2]))
        for row in on_left:
            yield product(right, row, out)

    # sealed kernels

    def _answer(self) -> None:
        """Ask the kernels, the most promising first, wherever their moments could still exceed the best; raise it where they do."""
        for n, inner in enumerate(sorted(self._asked, key=lambda k: -self._promise(self._asked[k]))):
            tell("kernels", n, len(self._asked))
            self._settle(inner, self._asked[inner])

    def _promise(self, questions: Sequence[_Question]) -> float:
        """The most the questions could come to, at the middle of them."""
        q = questions[len(questions) // 2]
        u, v = ((s.start + s.stop) // 2 for s in (q.block.left, q.block.right))
        return float(np.einsum("mji,j,i->m", self._moments.high[q.highs], self._right.values[:, v], self._left.values[:, u]).max())

    def _settle(self, inner: Opaque, questions: Sequence[_Question]) -> None:
        problems = _Problems(inner, self._left.sizes, self._right.sizes, self._keys)
        still = []
        for q in questions:
            best = self._best[q.block.right, q.block.left]
            mask = np.zeros(best.shape, dtype=bool)
            for high in self._at(self._moments.high[q.highs], q.block):
                mask |= high > best
            if problems.want(mask, q.block):
                still.append(replace(q, block=q.block.around(mask)))
        if not still:
            return
        is_rough = problems.ask("most")
        if is_rough:
            rough, still = still, []
            for q in rough:
                mask = self._with(problems, q) > self._best[q.block.right, q.block.left]
                if problems.want(mask, q.block):
                    still.append(replace(q, block=q.block.around(mask)))
            if not still:
                return
            problems.settle()
        for q in still:
            best = self._best[q.block.right, q.block.left]
            np.maximum(best, self._with(problems, q), out=best)

    def _with(self, problems: _Problems, q: _Question) -> Column:
        """The bytes at a question's moment, with what the kernel holds."""
        low = next(self._at(self._moments.low[[q.moment]], q.block))
        low += problems.at(q.block)
        return low

    # the answer

    def _write(self, resident: Column, peak: Column) -> None:
        """What was found, at the places of the configurations."""
        order, first = self._left.back, self._left.places[0]
        steps = np.diff(self._left.places)
        step = int(steps[0]) if len(steps) and (steps == steps[0]).all() and steps[0] > 0 else 1
        is_run = len(steps) == 0 or ((steps == step).all())
        weights = product(self._moments.resident, self._left.values[:, order])
        base, above = np.empty(len(order)), np.empty(len(order))
        for v, best in enumerate(self._best):
            place = int(self._right.places[self._right.order[v]])
            start = int(first) + place
            rows: Any = slice(start, start + step * len(order), step) if is_run else self._left.places + place
            self._at_row(weights, self._right.values[:, v], base)
            np.take(best, order, out=above, mode="clip")
            above += base
            if self._inside is None:
                resident[rows], peak[rows] = base, above
            else:
                inside = self._inside[self._right.order[v]]
                there = self._left.places[inside] + place
                resident[there], peak[there] = base[inside], above[inside]

    def _at_row(self, weights: Column, right: Column, out: Column) -> None:
        out[:] = 0
        for row, factor in zip(weights, right, strict=True):
            if row.any() and factor:
                out += row * factor


class _Problems:
    """What a kernel is asked over a grid: ids of the arguments of either side, and what it holds for pairs of them (0: not asked)."""

    def __init__(self, inner: Opaque, left: Mapping[str, Column], right: Mapping[str, Column], known: dict[Any, Any]) -> None:
        self._inner, self._left, self._right, self._mixed = inner, left, right, False
        sides: tuple[dict[Any, None], dict[Any, None]] = ({}, {})
        for i in _independent(inner.args):
            used = symbols_of((inner.args[i],))
            if used <= set(left):
                sides[0][inner.args[i]] = None
            elif used <= set(right):
                sides[1][inner.args[i]] = None
            else:
                self._mixed = True
                for own, there in zip(sides, (left, right), strict=True):
                    own.update((Expr("symbol", (s,)), None) for s in sorted(used & set(there)))
        self._ids, self._first = [], []
        for own, sizes in zip(sides, (left, right), strict=True):
            key = (sizes is left, tuple(own))
            if key not in known:
                known[key] = _alike([_column(e, sizes) for e in own]) if own else (None, np.zeros(1, dtype=np.intp))
            self._ids.append(known[key][0])
            self._first.append(known[key][1])
        self._wanted = np.zeros((len(self._first[1]), len(self._first[0])), dtype=bool)
        self.held = np.zeros(self._wanted.shape)
        points = len(next(iter(left.values()))) * len(next(iter(right.values()), (0,)))
        self._are_few = self._wanted.size * MANY_ALIKE <= points

    def want(self, mask: Column, block: _Block) -> bool:
        """Ask for what a part of the block needs (and for some around it, where configurations share few problems); whether any does."""
        if not np.count_nonzero(mask):
            return False
        v, u = (np.broadcast_to(self._of(k, rows), n) for k, rows, n in zip((1, 0), (block.right, block.left), mask.shape, strict=True))
        if self._are_few:
            self._wanted[np.ix_(v[mask.any(axis=1)], u[mask.any(axis=0)])] = True
        else:
            rows, columns = np.nonzero(mask)
            self._wanted[v[rows], u[columns]] = True
        return True

    def _of(self, side: int, rows: slice) -> Column:
        ids = self._ids[side]
        return np.zeros(1, dtype=np.intp) if ids is None else ids[rows]

    def at(self, block: _Block) -> Column:
        """Bytes held in a block."""
        return self.held[self._of(1, block.right)].take(self._of(0, block.left), axis=1)

    def _sizes(self, v: Column, u: Column) -> dict[str, Column]:
        at_left, at_right = self._first[0][u], self._first[1][v]
        return {**{s: c[at_left] for s, c in self._left.items()}, **{s: c[at_right] for s, c in self._right.items()}}

    def ask(self, end: End | None) -> bool:
        """Ask for all that is wanted; whether the answer is rough. Nothing is wanted then."""
        v, u = np.nonzero(self._wanted)
        self._wanted[:] = False
        self.held[v, u], is_rough = self._ask(self._sizes(v, u), end)
        return is_rough

    def _ask(self, sizes: Mapping[str, Column], end: End | None) -> tuple[Column, bool]:
        """What the kernel holds at each row, equal problems asked once; with an ``end``, long searches answer roughly (second: one did)."""
        problems = column_function(self._inner.args, tuple(sizes))(*sizes.values())
        count = len(next(iter(sizes.values())))
        columns = [np.broadcast_to(np.asarray(p), count) for p in problems]
        where, first = _alike([columns[i] for i in _independent(self._inner.args)]) if self._mixed else (slice(None), slice(None))
        with Rough(end) as rough:
            held = by_lanes(lambda *at: self._inner.function.play(at), [c[first] for c in columns])  # type: ignore[attr-defined]
        return held[where], rough.asked

    def settle(self) -> None:
        """Exactly what is held, where it is wanted: long searches are run where the least is not the most, which was asked before."""
        v, u = np.nonzero(self._wanted)
        sizes = self._sizes(v, u)
        held = self.held[v, u]
        least, _ = self._ask(sizes, "least")
        searched = np.flatnonzero(least != held)
        if len(searched):
            held[searched], _ = self._ask({s: c[searched] for s, c in sizes.items()}, None)
        self.held[:] = 0
        self.held[v, u] = held


def product(matrix: Column, columns: Column, out: Column | None = None) -> Column:
    """``matrix @ columns`` in blocks of columns so small that BLAS wakes no threads: they are the host program's."""
    count, width = columns.shape[1], ALONE // max(matrix.size, 1)
    found = np.empty((len(matrix), count)) if out is None else out
    if matrix.shape[1] == 1:
        return np.asarray(np.multiply(matrix, columns, out=found))
    if len(matrix) == 1 or width == 0:
        return np.asarray(np.einsum("mt,tn->mn", matrix, columns, out=found))
    for start in range(0, count, width):
        np.matmul(matrix, columns[:, start : start + width], out=found[:, start : start + width])
    return found


def _dots(matrix: Column, column: Column) -> Column:
    return np.asarray(np.einsum("mt,t->m", matrix, column))


def _alike(columns: Sequence[Column]) -> tuple[Column, Column]:
    """(the id of each row, a row of each id): rows with the same numbers have the same."""
    key = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        least = int(column.min())
        span = int(column.max()) - least + 1
        if span == 1:
            continue
        if (int(key.max()) + 1) * span >= EXACT:
            key = np.unique(key, return_inverse=True)[1]
        key = key * span + (column - least)
    if int(key.max()) >= DENSE + 8 * len(key):
        _, first, where = np.unique(key, return_index=True, return_inverse=True)
        return where, first
    example = np.full(int(key.max()) + 1, -1, dtype=np.int64)
    example[key] = np.arange(len(key))
    return (np.cumsum(example >= 0) - 1)[key], example[example >= 0]


def _column(e: Any, sizes: Mapping[str, Column]) -> Column:
    """A size at each row."""
    count = len(next(iter(sizes.values())))
    return np.broadcast_to(np.asarray(column_function((e,), tuple(sizes))(*sizes.values())[0]), count)


def _independent(args: Sequence[Any]) -> list[int]:
    """The arguments that the others do not determine: strides are products of sizes that are there, too."""
    have = set(args)
    return [i for i, a in enumerate(args) if not (isinstance(a, Expr) and a.op == "*" and set(factors(a)) <= have)]
