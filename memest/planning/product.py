"""The configurations of a sweep, gone through in parts of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import product
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
from memest.planning.swept import Repeated, Sweep, Sweeps
from memest.runtimes.table import runtime_named
from memest.sizes import asked as numbers
from memest.sizes.interpreter import available_bytes
from memest.sizes.units import format_bytes

Column = NDArray[Any]
PART = 1 << 22  # points computed at once
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

    def whole(self, memory: int | str | None = None) -> Sweep:
        """All at once, within ``memory`` bytes (see memest.planning.sweep.sweep)."""
        limit = available_bytes() if memory is None else numbers.budget(memory, "memory")
        needed = self.points * (A_POINT + A_NUMBER * self.skip) + WORKING * min(self.points, PART) // PART
        refusal = UsageError(
            f"{self.points:,} points take about {format_bytes(needed)} of memory, and {format_bytes(limit)} may be used: narrow an axis, "
            "go through them in parts (memest.sweeps), or allow more (memory=, --memory)"
        )
        if needed > limit:
            raise refusal
        try:
            return self._sweep(self._joined())
        except MemoryError:
            raise refusal from None

    def _joined(self) -> _Part:
        """All parts as one; room for several is taken before the first."""
        if self.points <= PART:
            return next(self._parts())
        resident, peak = np.empty((2, self.points), dtype=np.int64)
        rows: list[Column] = []
        done = 0
        for part in self._parts():
            if part.peak.dtype != peak.dtype and peak.dtype != object:
                resident, peak = resident.astype(object), peak.astype(object)
            resident[done : done + len(part.peak)], peak[done : done + len(part.peak)] = part.resident, part.peak
            rows.append((np.arange(part.count) if part.rows is None else part.rows) + part.start if self.skip else np.empty(0))
            done += len(part.peak)
        kept = None if done == self.points else np.concatenate(rows)
        return _Part(0, self.points, kept, resident[:done], peak[:done])

    def parts(self, at_once: int) -> Sweeps:
        """In parts of at most ``at_once`` points (or one size in all its settings), in order."""
        sizes = dict.fromkeys((title(self.graph, name) for tied, _ in self.symbols for name in tied), int)
        kinds = {**sizes, **dict.fromkeys(self.shown, str), **dict.fromkeys(self._shown, int)}
        return Sweeps(partial(self._sliced, at_once), kinds, self.torch, self.about)

    def _sliced(self, at_once: int) -> Iterator[Sweep]:
        step = max(at_once // len(self.jobs), 1) * len(self.jobs)
        for part in self._parts():
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

    def _parts(self) -> Iterator[_Part]:
        """As they are computed: whole stretches of an axis, with all that varies faster."""
        lengths = self._lengths
        most = max(PART // len(self.jobs), 1)
        cut = next(k for k in range(len(lengths)) if prod(lengths[k + 1 :]) <= most)
        run = max(most // prod(lengths[cut + 1 :]), 1)
        start = 0
        for first in product(*map(range, lengths[:cut])):
            for begin in range(0, lengths[cut], run):
                stretch = [*(slice(n, n + 1) for n in first), slice(begin, begin + run), *(slice(None) for _ in lengths[cut + 1 :])]
                part = self._part(start, stretch)
                start += part.count
                yield part

    def _part(self, start: int, rows: list[slice]) -> _Part:
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


def _interleaved(columns: list[Column]) -> Column:
    return columns[0] if len(columns) == 1 else np.stack(columns, axis=1).ravel()


def title(graph: Graph, name: str) -> str:
    """What users call a size."""
    return "batch" if name == batch_symbol(graph) else name
