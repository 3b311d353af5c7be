"""The configurations of a sweep, gone through in parts of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memest.errors import UsageError
from memest.estimate.question import Job, Question
from memest.machines.versions import Torch
from memest.network.graph import Graph
from memest.planning.axes import batch_symbol
from memest.planning.grids import grid
from memest.planning.peaks import Peaks, peaks
from memest.planning.progress import tell
from memest.planning.replayed import COLUMNS, MOST_REPLAYED, WORDS, replayed, said_of_more
from memest.planning.spread import in_order, packed, unpacked
from memest.planning.swept import Repeated, Sweep, Sweeps
from memest.runtimes.table import runtime_named
from memest.sizes import asked as numbers
from memest.sizes.interpreter import available_bytes
from memest.sizes.units import format_bytes

Column = NDArray[Any]
PART = 1 << 22  # points computed at once
SHARE, LEAST_SHARE, MOST_SHARE = 64, 1 << 12, 1 << 17  # parts of the points for others to compute, and the points of one
PLAYED_SHARE = 16  # of those at which an allocator is played
WORKING = 320 * 1024**2  # bytes: what computing a part takes at most, beside the columns
A_POINT = 16  # bytes in the columns of the result; a row's number is kept with it where others are left out
A_NUMBER = 8


@dataclass(frozen=True, eq=False)
class _Part:
    """Bytes of the configurations from ``start`` on: of ``count``, or of those that ``rows`` names, counted from there. ``peak`` are those
    asked for; ``figures`` what an allocator makes of them, where it is played."""

    start: int
    count: int
    rows: Column | None
    resident: Column
    peak: Column
    figures: Mapping[str, Column] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Product:
    """What a sweep goes through: the ``symbols`` that vary together with their values, and the ``questions`` with their ``jobs``,
    of which the ``shown`` settings get a column. Sizes that cannot be are skipped, or refused. ``torch`` is the one they are
    played as."""

    graph: Graph
    symbols: tuple[tuple[tuple[str, ...], Column], ...]
    questions: tuple[Question, ...]
    jobs: tuple[Job, ...]
    shown: tuple[str, ...]
    skip: bool
    torch: Torch

    @property
    def points(self) -> int:
        """How many configurations there are."""
        return prod(self._lengths) * len(self.jobs)

    @property
    def replays(self) -> bool:
        """Whether an allocator takes more than is asked for."""
        return any(runtime_named(q.runtime).replays for q in self.questions)

    @property
    def played(self) -> bool:
        """Whether the allocator is played at every point."""
        return self.replays and self.points <= MOST_REPLAYED

    @property
    def about(self) -> tuple[str, ...]:
        """Which figures the columns show, where there are several."""
        if not self.replays:
            return ()
        return WORDS if self.played else (said_of_more(self.points),)

    @property
    def _shown(self) -> tuple[str, ...]:
        """The columns of bytes."""
        if not self.replays:
            return ("standing_bytes", "peak_bytes")
        return ("standing_bytes", "peak_bytes", "requested_bytes", *COLUMNS) if self.played else ("standing_bytes", "requested_bytes")

    @property
    def _lengths(self) -> list[int]:
        return [len(values) for _, values in self.symbols]

    def whole(self, memory: int | str | None = None, executor: Executor | None = None) -> Sweep:
        """All at once, within ``memory`` bytes, computed here or by an ``executor`` (see memest.planning.sweep.sweep)."""
        limit = available_bytes() if memory is None else numbers.budget(memory, "memory")
        needed = self.points * (A_POINT + A_NUMBER * self.skip) + WORKING * min(self.points, PART) // PART
        refusal = UsageError(
            f"{self.points:,} points take about {format_bytes(needed)} of memory, and {format_bytes(limit)} may be used: narrow an axis, "
            "go through them in parts (memest.sweeps), or allow more (memory=, --memory)"
        )
        if needed > limit:
            raise refusal
        try:
            return self._sweep(self._joined(self._parts(executor)))
        except MemoryError:
            raise refusal from None

    def _joined(self, parts: Iterator[_Part]) -> _Part:
        """All parts as one; what is too much for one part has its room taken before the first is computed."""
        columns = {name: np.empty(self.points, dtype=np.int64) for name in ("resident", "peak") if self.points > PART}
        first = next(parts)
        if first.count == self.points:
            return first
        columns |= {n: np.empty(self.points, dtype=np.int64) for n in ("resident", "peak", *first.figures) if n not in columns}
        rows: list[Column] = []
        done = 0
        for part in chain([first], parts):
            for name, column in {"resident": part.resident, "peak": part.peak, **part.figures}.items():
                if column.dtype == object and columns[name].dtype != object:
                    columns[name] = columns[name].astype(object)
                columns[name][done : done + len(column)] = column
            rows.append((np.arange(part.count) if part.rows is None else part.rows) + part.start if self.skip else np.empty(0))
            done += len(part.peak)
        kept = None if done == self.points else np.concatenate(rows)
        resident, peak, *others = (column[:done] for column in columns.values())
        return _Part(0, self.points, kept, resident, peak, dict(zip(first.figures, others, strict=True)))

    def parts(self, at_once: int, executor: Executor | None = None) -> Sweeps:
        """In parts of at most ``at_once`` points (or one size in all its settings), in order, computed here or by an ``executor``."""
        sizes = dict.fromkeys((title(self.graph, name) for tied, _ in self.symbols for name in tied), int)
        kinds = {**sizes, **dict.fromkeys(self.shown, str), **dict.fromkeys(self._shown, int)}
        return Sweeps(partial(self._sliced, at_once, executor), kinds, self.torch, self.about)

    def _sliced(self, at_once: int, executor: Executor | None) -> Iterator[Sweep]:
        step = max(at_once // len(self.jobs), 1) * len(self.jobs)
        for part in self._parts(executor):
            for start in range(0, part.count, step):
                count = min(step, part.count - start)
                if part.rows is None:
                    rows, here = None, slice(start, start + count)
                else:
                    here = slice(*np.searchsorted(part.rows, (start, start + count)))
                    rows = part.rows[here] - start
                yield self._sweep(
                    _Part(
                        part.start + start, count, rows, part.resident[here], part.peak[here], {n: c[here] for n, c in part.figures.items()}
                    )
                )

    def _parts(self, executor: Executor | None) -> Iterator[_Part]:
        """As they are computed, here or by an ``executor``: in order, whichever is done first."""
        if executor is None:
            yield from (self.part(start, stretch) for start, stretch in self._stretches(PART))
            return
        least, most = (1, PLAYED_SHARE) if self.played else (LEAST_SHARE, MOST_SHARE)
        thing, stretches = packed(self), self._stretches(min(max(self.points // SHARE, least), most))
        for part in in_order(executor, _part_of, ((thing, start, stretch) for start, stretch in stretches)):
            tell("configurations", part.start + part.count, self.points)
            yield part

    def _stretches(self, most: int) -> Iterator[tuple[int, list[slice]]]:
        """Whole stretches of an axis of at most ``most`` points (or one size in all its settings), with all that varies faster: the number
        of the first point, and the rows of each axis."""
        lengths = self._lengths
        most = max(most // len(self.jobs), 1)
        cut = next(k for k in range(len(lengths)) if prod(lengths[k + 1 :]) <= most)
        run = max(most // prod(lengths[cut + 1 :]), 1)
        start = 0
        for first in product(*map(range, lengths[:cut])):
            for begin in range(0, lengths[cut], run):
                rows = range(begin, min(begin + run, lengths[cut]))
                yield start, [*(slice(n, n + 1) for n in first), slice(rows.start, rows.stop), *(slice(None) for _ in lengths[cut + 1 :])]
                start += len(rows) * prod(lengths[cut + 1 :]) * len(self.jobs)

    def part(self, start: int, rows: list[slice]) -> _Part:
        """The configurations at these rows of each axis, the first of them number ``start``."""
        sizes = grid([{s: values[r] for s in tied} for (tied, values), r in zip(self.symbols, rows, strict=True)])
        found: list[Peaks] = []
        figures: list[Mapping[str, Column]] = []
        for n, job in enumerate(self.jobs):
            before = start + n * sizes.points
            tell("configurations", before, self.points)
            if self.played:
                answer, columns = replayed(self.graph, self.questions[n], sizes, partial(self._tell, before))
                figures.append(columns)
            else:
                answer = peaks(job, sizes)
            if answer.refused and not self.skip:
                first = min(answer.refused, key=lambda r: r.first)
                at = ", ".join(f"{title(self.graph, name)}={n}" for name, n in sizes.row(first.first).items())
                raise UsageError(
                    f"{self.graph.name} cannot run at {at}: {first.error}; leave such sizes out (invalid='skip', --skip-invalid)"
                )
            found.append(answer)
        resident, peak = (_interleaved(columns) for columns in ([f.resident for f in found], [f.peak for f in found]))
        taken = {name: _interleaved([columns[name] for columns in figures]) for name in (COLUMNS if figures else ())}
        kept = np.flatnonzero(peak >= 0) if any(f.refused for f in found) else None
        if kept is None:
            return _Part(start, len(peak), None, resident, peak, taken)
        return _Part(start, len(peak), kept, resident[kept], peak[kept], {name: c[kept] for name, c in taken.items()})

    def _tell(self, before: int, done: int) -> None:
        tell("configurations", before + done, self.points)

    def _sweep(self, part: _Part) -> Sweep:
        """A part with its sizes and names, which are made where they are read."""

        def repeated(values: Column, each: int) -> Repeated:
            return Repeated(values, each, part.start, part.count, part.rows)

        columns: dict[str, Column | Repeated] = {}
        for k, (tied, values) in enumerate(self.symbols):
            each = prod(self._lengths[k + 1 :]) * len(self.jobs)
            columns.update({title(self.graph, name): repeated(values, each) for name in tied})
        columns.update({name: repeated(self._labels(name), 1) for name in self.shown})
        allocated = part.figures.get("allocated_bytes", part.peak)
        known = {"standing_bytes": part.resident, "peak_bytes": allocated, "requested_bytes": part.peak, **part.figures}
        return Sweep({**columns, **{name: known[name] for name in self._shown}}, self.torch, self.about)

    def _labels(self, name: str) -> Column:
        return np.array([getattr(q, name) for q in self.questions])


def _part_of(thing: bytes, start: int, rows: list[slice]) -> _Part:
    """A part of a packed product, for whoever computes it."""
    product: Product = unpacked(thing)
    return product.part(start, rows)


def _interleaved(columns: list[Column]) -> Column:
    return columns[0] if len(columns) == 1 else np.stack(columns, axis=1).ravel()


def title(graph: Graph, name: str) -> str:
    """What users call a size."""
    return "batch" if name == batch_symbol(graph) else name
