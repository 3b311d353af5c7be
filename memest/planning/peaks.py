"""The peak of one job at many sizes: live sets read with arrays.

Every piece of the compiled step (see memest.memory.live_sets) answers for the sizes its conditions hold at, as grids (see
memest.planning.contest). What int64 or float64 could not hold exactly goes the way of a single estimate, in Python ints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from math import prod
from operator import mul
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memest.errors import MemestError
from memest.estimate.inputs import check_guards
from memest.estimate.question import Job
from memest.estimate.summary import read_peak
from memest.memory.live_sets import EXACT, LiveSets, Summary
from memest.network.binding import bind
from memest.network.tensor import Shape
from memest.planning.contest import contest
from memest.planning.grids import Grid, column_function
from memest.planning.progress import tell
from memest.planning.separated import Monomial, Separated, separated
from memest.runtimes.compiling import MOST_RECIPES, compile_program
from memest.runtimes.table import play
from memest.sizes.conditions import Conditions, reduced
from memest.sizes.dims import Expr, Guard, resolve

Column = NDArray[Any]
EXACT_FLOAT = 2**53
MOST_PIECES = 64
TRYING = "trying sizes"  # told before each step of work that may be without number
FEW = 12  # rows that are played one by one sooner than a step is compiled for them


@dataclass(frozen=True)
class Refused:
    """Sizes the network cannot run at: the first of them, and what an estimate of it says."""

    first: int
    error: MemestError


@dataclass(frozen=True)
class Peaks:
    """Bytes of each configuration (int64, or Python ints where they do not fit), in the grid's order; -1 for those of ``refused``."""

    resident: Column
    peak: Column
    refused: tuple[Refused, ...]


def peaks(job: Job, grid: Grid) -> Peaks:
    """The peak of ``job`` at each configuration of ``grid``."""
    result = _Result(grid)
    result.outside(job)
    known = _pieces(job).known
    for piece in known:
        result.take(piece)
    number = len(known)
    while (first := result.first) is not None:
        if number >= MOST_PIECES or np.count_nonzero(result.pending) <= FEW:
            result.one_by_one(job, np.flatnonzero(result.pending))
            break
        number += 1
        result.take(piece_at(job, grid.row(first)))
        if result.first == first:
            result.one_by_one(job, np.array([first]))
    return result.finished()


@dataclass(frozen=True)
class Piece:
    """A part of the sizes: the compiled step that holds there, or what an estimate says instead."""

    conditions: Conditions
    live: LiveSets | None
    error: MemestError | None


class _Result:
    """The columns of the answer while they are filled; ``pending`` are the configurations that are not."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.pending = np.ones(grid.points, dtype=bool)
        self.resident = np.full(grid.points, -1, dtype=np.int64)
        self.peak = np.full(grid.points, -1, dtype=np.int64)
        self.large: dict[int, Summary] = {}
        self.refused: list[Refused] = []

    @property
    def first(self) -> int | None:
        """The first pending configuration."""
        number = int(np.argmax(self.pending))
        return number if self.pending[number] else None

    def outside(self, job: Job) -> None:
        """Note the configurations for which the graph was not described."""
        inside = np.zeros(self.grid.lengths, dtype=bool)
        rows, mask = self.grid.within(reduced(job.graph.guards, self.grid.tops))
        inside[_at(rows)] = True if mask is None else mask
        self.pending &= inside.ravel()
        if not self.pending.all():
            first = int(np.argmin(self.pending))
            try:
                check_guards(job.graph, self.grid.row(first))
            except MemestError as e:
                self.refused.append(Refused(first, e))

    def take(self, piece: Piece) -> None:
        """Fill those of the pending configurations at which ``piece`` holds."""
        rows, mask = self.grid.within(piece.conditions)
        left = self.pending.reshape(self.grid.lengths)[_at(rows)]
        mask = left.copy() if mask is None else left & mask
        if not mask.any():
            return
        self.pending.reshape(self.grid.lengths)[_at(rows)] = left & ~mask
        for part, inside in self.grid.at(rows).where(mask):
            self._fill(piece, part, inside)

    def _fill(self, piece: Piece, part: Grid, inside: Column | None) -> None:
        """The configurations at which ``piece`` holds: those ``inside``, or all."""
        if piece.live is None:
            assert piece.error is not None
            places = part.places if inside is None else part.places[inside.ravel()]
            self.refused.append(Refused(int(places.min()), piece.error))
            return
        forms = separated(piece.live.terms, part)
        exact = _representable(piece.live, part, forms)
        if exact is None:
            contest(piece.live, part, forms, inside, self.resident, self.peak)
            return
        inside = np.ones(part.lengths, dtype=bool) if inside is None else inside
        for found, within in part.where(exact & inside):
            contest(piece.live, found, separated(piece.live.terms, found), within, self.resident, self.peak)
        for row in np.flatnonzero(inside & ~exact):
            tell(TRYING)
            at = piece.live.at(part.row(int(row)))
            assert at is not None
            self.large[int(part.places[row])] = at

    def one_by_one(self, job: Job, rows: Column) -> None:
        """Configurations that no piece takes, each played alone."""
        for row in map(int, rows):
            tell(TRYING)
            self.pending[row] = False
            try:
                shapes, at = _shapes(job, self.grid.row(row))
                check_guards(job.graph, at)
                self.large[row] = read_peak(play(job.graph, shapes, at, job.recipe))
            except MemestError as e:
                self.refused.append(Refused(row, e))

    def finished(self) -> Peaks:
        """The columns; Python ints where int64 does not hold them."""
        resident, peak = self.resident, self.peak
        if any(s.standing_bytes + s.above_bytes >= EXACT for s in self.large.values()):
            resident, peak = resident.astype(object), peak.astype(object)
        for row, found in self.large.items():
            resident[row] = found.standing_bytes
            peak[row] = found.standing_bytes + found.above_bytes
        return Peaks(resident, peak, tuple(self.refused))


def _at(rows: list[Any]) -> Any:
    """An index of these rows of each axis."""
    return (
        tuple(rows)
        if all(isinstance(r, slice) for r in rows)
        else np.ix_(*(np.arange(r.start, r.stop) if isinstance(r, slice) else r for r in rows))
    )


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
    tell(TRYING)
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


def _representable(live: LiveSets, part: Grid, forms: Separated) -> Column | None:
    """The configurations whose every sum stays below 2**53, where float64 is exact, as a mask (None: all of them)."""
    heaviest = abs(np.array([*live.bounds.tolist(), live.row(live.resident)], dtype=object)).max(axis=0)
    weights = (abs(forms.weights) * heaviest[:, None, None]).sum(axis=0)
    parts: dict[Expr, int] = {}
    lefts, rights = ([_magnitude(f, part.tops, parts) for f in side] for side in (forms.lefts, forms.rights))
    if max(heaviest) >= EXACT_FLOAT:
        return np.zeros(part.lengths, dtype=bool)
    if max(np.array(rights, dtype=object) @ weights @ np.array(lefts, dtype=object), *parts.values()) < EXACT_FLOAT:
        return None
    total = np.zeros(part.lengths)
    formulas = tuple({p for side in (forms.lefts, forms.rights) for m in side for p in m})
    at = dict(zip(formulas, _floats(formulas, part), strict=True))
    for j, i in zip(*np.nonzero(weights), strict=True):
        total += reduce(mul, (at[p] for p in (*forms.rights[j], *forms.lefts[i])), float(weights[j, i]))
    return total < EXACT_FLOAT / 2


def _floats(formulas: tuple[Expr, ...], part: Grid) -> tuple[Any, ...]:
    sizes = {s: c.astype(np.float64) for s, c in part.columns.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        return column_function(formulas, tuple(sizes))(*sizes.values())


def _magnitude(monomial: Monomial, tops: Mapping[str, int], known: dict[Expr, int]) -> int:
    return prod(magnitude(part, tops, known) for part in monomial)
