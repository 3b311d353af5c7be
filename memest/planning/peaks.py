"""The peak of one job at many sizes: live sets read with arrays.

Every piece of the compiled step (see memest.memory.live_sets) answers for the sizes its conditions hold at. Its candidate moments are one
matrix product over a chunk of sizes; moments that lose everywhere in the chunk are left out before, and what a library's kernels hold is
asked only where such a moment could still be the peak (memest.sizes.columns plays the kernel for all of those sizes at once). What int64
or float64 could not hold exactly goes the way of a single estimate, in Python ints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memest.errors import MemestError
from memest.estimate.estimate import Job, check_guards, read_peak
from memest.libraries.onednn.rough import End, Rough
from memest.memory.live_sets import EXACT, LiveSets, Summary, compile_sizes
from memest.network.binding import bind
from memest.network.tensor import Shape
from memest.planning.progress import tell
from memest.runtimes.compiling import MOST_RECIPES, compile_program
from memest.runtimes.table import play
from memest.sizes.columns import by_lanes
from memest.sizes.conditions import Conditions, reduced
from memest.sizes.dims import COMPARE, Expr, Guard, Opaque, factors, resolve, symbols_of

Column = NDArray[Any]
CHUNK = 8_000  # rows of no power of two bytes, which caches would take for one another
EXACT_FLOAT = 2**53
MOST_PIECES = 64
FEW = 12  # rows that are played one by one sooner than a step is compiled for them
ALONE = 1 << 18  # multiplications of a product that a BLAS leaves to the calling thread (OpenBLAS interface/gemm.c)
DENSE = 1 << 22  # keys below it are told apart by a table, not by sorting


@dataclass(frozen=True)
class Refused:
    """Sizes the network cannot run at: which rows, and what an estimate of the first of them says."""

    rows: Column
    error: MemestError


@dataclass(frozen=True)
class Peaks:
    """Bytes per row (int64, or Python ints where they do not fit); rows of ``refused`` hold -1."""

    resident: Column
    peak: Column
    refused: tuple[Refused, ...]


def peaks(job: Job, sizes: Mapping[str, Column]) -> Peaks:
    """The peak of ``job`` at each row of ``sizes`` (int64 columns by symbol, equally long, at least one row)."""
    result = _Result(len(next(iter(sizes.values()))))
    pending = result.outside(job, sizes)
    known = _pieces(job).known
    for piece in known:
        pending = result.take(piece, sizes, pending)
    number = len(known)
    while len(pending):
        if number >= MOST_PIECES or len(pending) <= FEW:
            result.one_by_one(job, sizes, pending)
            break
        number += 1
        left = result.take(piece_at(job, _row(sizes, pending[0])), sizes, pending)
        if len(left) and left[0] == pending[0]:
            result.one_by_one(job, sizes, left[:1])
            left = left[1:]
        pending = left
    return result.finished()


@dataclass(frozen=True)
class Piece:
    """A part of the sizes: the compiled step that holds there, or what an estimate says instead."""

    conditions: Conditions
    live: LiveSets | None
    error: MemestError | None


class _Result:
    """The columns of the answer while they are filled."""

    def __init__(self, count: int) -> None:
        self.resident = np.full(count, -1, dtype=np.int64)
        self.peak = np.full(count, -1, dtype=np.int64)
        self.large: dict[int, Summary] = {}
        self.refused: list[Refused] = []

    def outside(self, job: Job, sizes: Mapping[str, Column]) -> Column:
        """Note the rows for which the graph was not described; the others."""
        rows = np.arange(len(self.peak))
        inside = hold(reduced(job.graph.guards, sizes), sizes)
        if not inside.all():
            try:
                check_guards(job.graph, _row(sizes, rows[~inside][0]))
            except MemestError as e:
                self.refused.append(Refused(rows[~inside], e))
        return rows[inside]

    def take(self, piece: Piece, sizes: Mapping[str, Column], pending: Column) -> Column:
        """Fill those of the ``pending`` rows at which ``piece`` holds; the others."""
        if not len(pending):
            return pending
        mask = hold(piece.conditions, {s: c[pending] for s, c in sizes.items()})
        if mask.any():
            self._fill(piece, sizes, pending[mask])
        return pending[~mask]

    def _fill(self, piece: Piece, sizes: Mapping[str, Column], rows: Column) -> None:
        """The rows at which ``piece`` holds."""
        if piece.live is None:
            assert piece.error is not None
            self.refused.append(Refused(rows, piece.error))
            return
        exact = _representable(piece.live, {s: c[rows] for s, c in sizes.items()})
        if exact.any():
            resident, above = evaluate(piece.live, {s: c[rows[exact]] for s, c in sizes.items()})
            self.resident[rows[exact]] = resident
            self.peak[rows[exact]] = resident + above
        for row in rows[~exact]:
            found = piece.live.at(_row(sizes, row))
            assert found is not None
            self.large[int(row)] = found

    def one_by_one(self, job: Job, sizes: Mapping[str, Column], rows: Column) -> None:
        """Rows that no piece takes, each played alone."""
        for row in rows:
            try:
                shapes, at = _shapes(job, _row(sizes, row))
                check_guards(job.graph, at)
                self.large[int(row)] = read_peak(play(job.graph, shapes, at, job.recipe))
            except MemestError as e:
                self.refused.append(Refused(np.array([row]), e))

    def finished(self) -> Peaks:
        """The columns; Python ints where int64 does not hold them."""
        resident, peak = self.resident, self.peak
        if any(s.resident_bytes + s.above_bytes >= EXACT for s in self.large.values()):
            resident, peak = resident.astype(object), peak.astype(object)
        for row, found in self.large.items():
            resident[row] = found.resident_bytes
            peak[row] = found.resident_bytes + found.above_bytes
        return Peaks(resident, peak, tuple(self.refused))


def _row(sizes: Mapping[str, Column], row: int) -> dict[str, int]:
    return {s: int(c[row]) for s, c in sizes.items()}


def _shapes(job: Job, sizes: Mapping[str, int]) -> tuple[dict[str, Shape], dict[str, int]]:
    shapes: dict[str, Shape] = {i.name: resolve(i.shape, sizes) for i in job.graph.inputs}
    return shapes, bind(job.graph.inputs, shapes)


class _Pieces:
    """What is known of one recipe."""

    __slots__ = ("known",)

    def __init__(self) -> None:
        self.known: tuple[Piece, ...] = ()


def _pieces(job: Job) -> _Pieces:
    return job.graph.memo.find("pieces", job.recipe, MOST_RECIPES, _Pieces)


def piece_at(job: Job, sizes: Mapping[str, int]) -> Piece:
    """The piece that holds at these sizes, remembered on the graph."""
    pieces = _pieces(job)
    with job.graph.memo.busy:
        for piece in pieces.known:
            if piece.conditions.hold(sizes):
                return piece
        piece = _compiled(job, sizes)
        pieces.known = (*pieces.known, piece)[-MOST_PIECES:]
        return piece


def _compiled(job: Job, sizes: Mapping[str, int]) -> Piece:
    """The compiled step for these sizes, or the conditions under which the network fails as it does here."""
    guards: dict[Guard, None] = {}
    try:
        shapes, at = _shapes(job, sizes)
        check_guards(job.graph, at)
        live = compile_program(job.graph, shapes, at, job.recipe, guards)
    except MemestError as e:
        return Piece(reduced(guards, sizes), None, e.with_traceback(None))
    return Piece(live.conditions, live, None)


def hold(conditions: Conditions, sizes: Mapping[str, Column]) -> NDArray[np.bool_]:
    """Where ``conditions`` hold, row by row."""
    mask = np.ones(len(next(iter(sizes.values()))), dtype=bool)
    for s, n in conditions.least.items():
        mask &= sizes[s] >= n
    for s, n in conditions.most.items():
        mask &= sizes[s] <= n
    for s, n in conditions.multiple.items():
        mask &= sizes[s] % n == 0
    for guard in conditions.others:
        left, right = compile_sizes((guard.left, guard.right), tuple(sizes), arrays=True)(*sizes.values())
        mask &= COMPARE[guard.op](left, right)
    return mask


def magnitude(e: int | Expr, sizes: Mapping[str, int], known: dict[Expr, int]) -> int:
    """No less than the magnitude of ``e`` for sizes from 1 up to ``sizes``; ``known`` collects those of all its parts."""
    if not isinstance(e, Expr):
        return abs(e)
    if e.op == "symbol":
        return sizes[str(e.args[0])]
    if e not in known:
        a, b = (magnitude(part, sizes, known) for part in e.args)
        known[e] = a * b if e.op == "*" else a if e.op == "//" else b if e.op == "%" else a + b
    return known[e]


def _representable(live: LiveSets, sizes: Mapping[str, Column]) -> NDArray[np.bool_]:
    """Rows whose every sum stays below 2**53, where float64 is exact."""
    count = len(next(iter(sizes.values())))
    heaviest = abs(np.array([*live.bounds.tolist(), live.row(live.resident)], dtype=object)).max(axis=0)
    if max(heaviest) >= EXACT_FLOAT:
        return np.zeros(count, dtype=bool)
    parts: dict[Expr, int] = {}
    tops = [magnitude(t, {s: int(c.max()) for s, c in sizes.items()}, parts) for t in live.terms]
    if max(sum(int(w) * n for w, n in zip(heaviest, [*tops, 1], strict=True)), *parts.values()) < EXACT_FLOAT:
        return np.ones(count, dtype=bool)
    terms = live.array_terms({s: c.astype(np.float64) for s, c in sizes.items()})
    total = sum((float(w) * t for w, t in zip(heaviest, terms, strict=False)), start=float(heaviest[-1]))
    return np.broadcast_to(np.asarray(total < EXACT_FLOAT / 2), count)


def evaluate(live: LiveSets, sizes: Mapping[str, Column]) -> tuple[Column, Column]:
    """(resident bytes, most bytes on top) of rows at which the conditions hold and float64 is exact."""
    order = np.argsort(np.multiply.reduce([c.astype(np.float32) for c in sizes.values()]))
    resident, best = _evaluate(live, {s: c[order] for s, c in sizes.items()})
    found = np.empty((2, len(order)), dtype=np.int64)
    found[:, order] = resident, best
    return found[0], found[1]


def _evaluate(live: LiveSets, sizes: Mapping[str, Column]) -> tuple[Column, Column]:
    """The same, for rows in the order of their number of elements, so that neighbours are alike."""
    count = len(next(iter(sizes.values())))
    resident, best = np.zeros(count), np.zeros(count)
    coefficients, bounds = (m.astype(np.float64) for m in (live.coefficients, live.bounds))
    base = np.array(live.row(live.resident), dtype=np.float64)
    owners = np.repeat(np.arange(len(coefficients)), np.diff(live.starts, append=len(bounds)))
    asked: dict[Opaque, list[_Question]] = {}
    tops = {i.inner: _Top(bounds[live.bounds_at(k)] - coefficients[k]) for k, i in enumerate(live.instants) if i.inner is not None}
    for start in range(0, count, CHUNK):
        tell("sizes", start, count)
        rows = slice(start, min(start + CHUNK, count))
        terms = np.ones((len(live.terms) + 1, rows.stop - start))
        for i, t in enumerate(live.array_terms({s: c[rows] for s, c in sizes.items()})):
            terms[i] = t
        resident[rows] = np.einsum("t,tn->n", base, terms)
        if not len(coefficients):
            continue
        near = _contenders(coefficients, bounds, owners, terms)
        alive = product(coefficients[near], terms)
        highest = alive.max(axis=0)
        best[rows] = highest
        inners = [live.instants[instant].inner for instant in near]
        above = {inner: tops[inner].at(terms) for inner in inners if inner is not None}
        for low, inner in zip(alive, inners, strict=True):
            if inner is not None:
                high = low + above[inner]
                lanes = np.flatnonzero(high > highest)
                if len(lanes):
                    asked.setdefault(inner, []).append(_Question(start + lanes, low[lanes], high[lanes]))
    tell("sizes", count, count)
    _answer(asked, sizes, best)
    return resident.astype(np.int64), best.astype(np.int64)


class _Top:
    """The most a kernel can hold: the greatest of some rows of coefficients, of which most are 0."""

    def __init__(self, rows: Column) -> None:
        self._used = np.flatnonzero(rows.any(axis=0))
        self._rows = rows[:, self._used]

    def at(self, terms: Column) -> Column:
        """Bytes for columns of terms."""
        return np.asarray(product(self._rows, terms[self._used]).max(axis=0))


@dataclass(frozen=True)
class _Question:
    """A moment that could be the peak at some rows, depending on what a kernel holds: bytes without it, and at most."""

    rows: Column
    low: Column
    high: Column

    def open(self, best: Column) -> _Question | None:
        """What is left of it, now that ``best`` is known."""
        still = np.flatnonzero(self.high > best[self.rows])
        return _Question(self.rows[still], self.low[still], self.high[still]) if len(still) else None


def _contenders(coefficients: Column, bounds: Column, owners: Column, terms: Column) -> Column:
    """The moments that may win somewhere in the chunk. Terms are measured by the largest of them, which makes their ratios nearly
    constant; a moment is left out when even its bound stays below the winner at the middle of the chunk, by more than rounding."""
    measure = terms[np.argmax(terms[:, -1])]
    ratios = terms / measure
    least, most = ratios.min(axis=1), ratios.max(axis=1)
    middle = terms[:, terms.shape[1] // 2]
    ahead = bounds - coefficients[np.argmax(_dots(coefficients, middle))]
    highest = _dots(np.maximum(ahead, 0), most) + _dots(np.minimum(ahead, 0), least)
    return np.unique(owners[highest >= -1e-9 * _dots(abs(ahead), most)])


def product(matrix: Column, columns: Column) -> Column:
    """``matrix @ columns`` in blocks of columns so small that BLAS wakes no threads: they are the host program's."""
    count, width = columns.shape[1], ALONE // max(matrix.size, 1)
    if len(matrix) == 1 or width == 0:
        return np.asarray(np.einsum("mt,tn->mn", matrix, columns))
    if width >= count:
        return np.asarray(matrix @ columns)
    found = np.empty((len(matrix), count))
    for start in range(0, count, width):
        found[:, start : start + width] = matrix @ columns[:, start : start + width]
    return found


def _dots(matrix: Column, column: Column) -> Column:
    return np.asarray(np.einsum("mt,t->m", matrix, column))


def _answer(asked: Mapping[Opaque, Sequence[_Question]], sizes: Mapping[str, Column], best: Column) -> None:
    """Ask the kernels, the most promising first, wherever their moments could still exceed ``best``; raise it where they do."""
    for n, inner in enumerate(sorted(asked, key=lambda k: -_promise(asked[k]))):
        tell("kernels", n, len(asked))
        questions = [q for q in (q.open(best) for q in asked[inner]) if q]
        if not questions:
            continue
        rows, low = np.concatenate([q.rows for q in questions]), np.concatenate([q.low for q in questions])
        held, is_rough = _held(inner, {s: c[rows] for s, c in sizes.items()}, "most")
        above = np.flatnonzero(low + held > best[rows])
        if len(above):
            rows, low, held = rows[above], low[above], held[above]
            if is_rough:
                held = _settled(inner, {s: c[rows] for s, c in sizes.items()}, held)
            np.maximum.at(best, rows, low + held)


def _settled(inner: Opaque, sizes: Mapping[str, Column], most: Column) -> Column:
    """What a kernel holds, given the most it could: its long searches are run where the least is not the same."""
    least, _ = _held(inner, sizes, "least")
    open_rows = np.flatnonzero(least != most)
    if len(open_rows):
        most[open_rows], _ = _held(inner, {s: c[open_rows] for s, c in sizes.items()}, None)
    return most


def _promise(questions: Sequence[_Question]) -> float:
    """About what the questions come to, at the middle of them."""
    q = questions[len(questions) // 2]
    middle = len(q.rows) // 2
    return float(q.low[middle])


def _held(inner: Opaque, sizes: Mapping[str, Column], end: End | None) -> tuple[Column, bool]:
    """What a kernel holds at each row, equal problems asked once; with an ``end``, long searches answer roughly (second: one did)."""
    count = len(next(iter(sizes.values())))
    key = np.zeros(count, dtype=np.int64)
    for i in _independent(inner.args):
        column = _column(inner.args[i], sizes)
        least = int(column.min())
        span = int(column.max()) - least + 1
        if span == 1:
            continue
        if (int(key.max()) + 1) * span >= EXACT:
            key = np.unique(key, return_inverse=True)[1]
        key = key * span + (column - least)
    if int(key.max()) < DENSE:
        example = np.full(int(key.max()) + 1, -1, dtype=np.int64)
        example[key] = np.arange(count)
        first = example[example >= 0]
        where = (np.cumsum(example >= 0) - 1)[key]
    else:
        _, first, where = np.unique(key, return_index=True, return_inverse=True)
    problems = compile_sizes(inner.args, tuple(sizes), arrays=True)(*(c[first] for c in sizes.values()))
    columns = [np.broadcast_to(np.asarray(p), len(first)) for p in problems]
    with Rough(end) as rough:
        held = by_lanes(lambda *at: inner.function.play(at), columns)  # type: ignore[attr-defined]
    return held[where], rough.asked


def _column(e: Expr, sizes: Mapping[str, Column]) -> Column:
    """A size at each row; one that depends on a single symbol is looked up in a table."""
    used = {s: sizes[s] for s in symbols_of((e,))}
    if e.op == "symbol":
        (column,) = used.values()
        return column
    compute = compile_sizes((e,), tuple(used), arrays=True)
    if len(used) == 1:
        (column,) = used.values()
        least, most = int(column.min()), int(column.max())
        if most - least < len(column):
            (table,) = compute(np.arange(least, most + 1))
            return np.asarray(table[column - least])
    return np.asarray(compute(*used.values())[0])


def _independent(args: Sequence[Any]) -> list[int]:
    """The arguments that the others do not determine: strides are products of sizes that are there, too."""
    have = set(args)
    return [i for i, a in enumerate(args) if not (isinstance(a, Expr) and a.op == "*" and set(factors(a)) <= have)]
