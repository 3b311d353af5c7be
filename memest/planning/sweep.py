"""Sweeps: the peak over a product of sizes, optimizers, dtypes and modes, as flat columns.

Every number equals what an estimate of that configuration alone would say, to the byte, and is exact past 2**63.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memest.errors import UsageError, did_you_mean, kind_of
from memest.estimate.question import KEYWORDS, Job, Question, apart, question
from memest.machines.versions import Torch, torch_of
from memest.network.graph import Graph, as_graph
from memest.planning.axes import batch_symbol, pinned_sizes, symbols_in_order
from memest.planning.peaks import peaks
from memest.planning.progress import tell
from memest.shown import Shown, counted
from memest.sizes import asked
from memest.sizes.interpreter import available_bytes
from memest.sizes.units import format_bytes

Column = NDArray[Any]
MOST_VALUES = 50_000_000  # of an axis
PART = 1 << 18  # points computed at once
WORKING = 256 * 1024**2  # bytes: what computing a part takes at most, beside the columns
BLOCK = 10_000  # rows made into Python's numbers at once
SEVERAL = (list, tuple, set, frozenset, np.ndarray)
SETTINGS = ("mode", "optimizer", "loss", "dtype", "runtime")


@dataclass(frozen=True, eq=False)
class Sweep(Mapping[str, Column], Shown):
    """Columns of equal length, one row a configuration: the sizes by name (``batch`` for the batch), the other settings that were
    swept, ``resident_bytes`` and ``peak_bytes``. Bytes are int64 where they fit, else Python ints. ``torch`` is the one they speak of."""

    columns: Mapping[str, Column]
    torch: Torch

    def __repr__(self) -> str:
        if not self.points:
            return "<Sweep: no configurations>"
        least, most = (format_bytes(int(end)) for end in (self["peak_bytes"].min(), self["peak_bytes"].max()))
        return f"<Sweep: {counted(self.points, 'configuration')}, {least} to {most}>"

    def __getitem__(self, name: str) -> Column:
        try:
            return self.columns[name]
        except KeyError:
            raise UsageError(f"the sweep has no column {name!r}{did_you_mean(name, self.columns)}") from None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sweep):
            return NotImplemented
        return list(self) == list(other) and all(np.array_equal(c, other[name]) for name, c in self.items())

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def notes(self) -> tuple[str, ...]:
        """Where the numbers speak of another torch than the one at hand."""
        return self.torch.notes

    @property
    def points(self) -> int:
        """How many configurations it holds."""
        return len(self.columns["peak_bytes"])

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain mapping a configuration."""
        names = list(self.columns)
        for start in range(0, self.points, BLOCK):
            for values in zip(*(c[start : start + BLOCK].tolist() for c in self.columns.values()), strict=True):
                yield dict(zip(names, values, strict=True))

    def to_csv(self) -> str:
        """Comma-separated text with a heading."""
        blocks, rows = [",".join(self.columns)], self.rows()
        while block := [",".join(map(str, row.values())) for row in islice(rows, BLOCK)]:
            blocks.append("\n".join(block))
        return "\n".join(blocks) + "\n"

    def to_json(self) -> str:
        """``{"torch": {…}, "columns": {name: [values]}}``."""
        return json.dumps({"torch": self.torch.to_dict(), "columns": {name: c.tolist() for name, c in self.columns.items()}})

    def to_frame(self) -> Any:
        """A pandas DataFrame; UsageError where pandas is not installed."""
        try:
            import pandas
        except ModuleNotFoundError:
            raise UsageError("a DataFrame needs pandas; pip install pandas, or use the columns as they are") from None
        return pandas.DataFrame(dict(self.columns))


def sweep(
    graph: Graph,
    *,
    batch: Any = None,
    spatial: Any = None,
    axes: Sequence[tuple[Sequence[str], Any]] = (),
    invalid: str = "raise",
    memory: int | str | None = None,
    **settings_and_sizes: Any,
) -> Sweep:
    """The peak of every combination of the values given.

    ``batch`` is the first dim of the first input, ``spatial`` all the graph's other symbols at once (cubes), ``sizes`` are the graph's
    symbols by name, ``axes`` pairs of symbols that vary together and their values; each is a number or a sequence of them. The settings
    are those of :func:`memest.estimate`; ``mode``, ``optimizer``, ``loss``, ``dtype`` and ``runtime`` may be sequences of names. The last
    axis varies fastest; axes come in the order batch, spatial, axes, sizes, names.

    ``invalid`` says what becomes of sizes the network cannot run at: ``raise`` (UsageError that names the first) or ``skip``. ``memory``
    is what the sweep itself may take, in bytes or as text such as ``8GiB``; what is available when left out. It takes 8 bytes a point
    and column, and up to ``WORKING`` more.
    Raises UsageError for an empty axis, an unknown or missing size, and, before anything is computed, where memory is not enough:
    :func:`sweeps` goes through any number of points.
    """
    return product_of(graph, batch=batch, spatial=spatial, axes=axes, invalid=invalid, **settings_and_sizes).whole(memory)


def sweeps(graph: Graph, *, at_once: int = 1_000_000, **what: Any) -> Iterator[Sweep]:
    """The same as :func:`sweep` (``what`` are its keywords) in parts of at most ``at_once`` points, for products that do not fit in
    memory."""
    at_once = asked.size(at_once, "at_once")
    return product_of(graph, **what).parts(at_once)


def product_of(
    graph: Graph,
    *,
    batch: Any = None,
    spatial: Any = None,
    axes: Sequence[tuple[Sequence[str], Any]] = (),
    invalid: str = "raise",
    **settings_and_sizes: Any,
) -> Product:
    """The configurations of a sweep, checked; see :func:`sweep`."""
    graph = as_graph(graph, "sweep")
    if not isinstance(invalid, str) or invalid not in ("raise", "skip"):
        raise UsageError(f"invalid={kind_of(invalid)}: use 'raise' or 'skip'")
    settings, sizes = apart(settings_and_sizes)
    several = {name: _several(name, settings.pop(name)) for name in SETTINGS if isinstance(settings.get(name), SEVERAL)}
    questions = tuple(question(graph, {**settings, **dict(zip(several, c, strict=True))}, "sweep") for c in product(*several.values()))
    return Product(
        graph=graph,
        symbols=tuple(_size_axes(graph, batch, spatial, axes, sizes)),
        questions=questions,
        jobs=tuple(_job(graph, q) for q in questions),
        shown=tuple(several),
        skip=invalid == "skip",
        torch=torch_of(questions[0].job(graph).recipe.target.version, graph.torch),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Product:
    """What a sweep goes through: the ``symbols`` that vary together with their values, and the ``questions`` with their
    ``jobs``, of which the ``shown`` settings get a column. Sizes that cannot be are skipped, or refused. ``torch`` is the one they are
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
        return prod(self._lengths) * len(self.questions)

    @property
    def bytes_per_point(self) -> int:
        """What a point takes in the columns of the result."""
        return 8 * (sum(len(tied) for tied, _ in self.symbols) + 2) + sum(self._labels(name).itemsize for name in self.shown)

    @property
    def _lengths(self) -> list[int]:
        return [len(values) for _, values in self.symbols]

    def whole(self, memory: int | str | None = None, beside: int = 0) -> Sweep:
        """All at once, within ``memory`` (see :func:`sweep`); ``beside`` are bytes a point that the caller needs to go on."""
        limit = available_bytes() if memory is None else asked.budget(memory, "memory")
        needed = self.points * (self.bytes_per_point + beside) + WORKING * (self.points >= PART)
        refusal = UsageError(
            f"{self.points:,} points take about {format_bytes(needed)} of memory, and {format_bytes(limit)} may be used: narrow an axis, "
            "go through them in parts (memest.sweeps), or allow more (memory=, --memory)"
        )
        if needed > limit:
            raise refusal
        try:
            return self._filled()
        except MemoryError:
            raise refusal from None

    def _filled(self) -> Sweep:
        columns: dict[str, Column] = {}
        done = 0
        for part in self.parts(PART):
            if part.points == self.points:
                return part
            for name, column in part.items():
                whole = columns.setdefault(name, np.empty(self.points, column.dtype))
                if column.dtype != whole.dtype and whole.dtype != object:
                    whole = columns[name] = whole.astype(object)
                whole[done : done + part.points] = column
            done += part.points
        return Sweep({name: c[:done] for name, c in columns.items()}, self.torch)

    def parts(self, at_once: int) -> Iterator[Sweep]:
        """In parts of at most ``at_once`` points (or one size in all its settings), in order."""
        per_size = len(self.questions)
        step = max(at_once // per_size, 1)
        for start in range(0, prod(self._lengths), step):
            flat = np.arange(start, min(start + step, prod(self._lengths)))
            places = np.unravel_index(flat, self._lengths)
            sizes = {name: values[place] for (tied, values), place in zip(self.symbols, places, strict=True) for name in tied}
            yield self._part(sizes, start * per_size, len(flat))

    def _part(self, sizes: Mapping[str, Column], done: int, count: int) -> Sweep:
        """The configurations at ``count`` sizes, ``done`` configurations after the first; sizes vary slowest, names fastest."""
        found = []
        for n, job in enumerate(self.jobs):
            tell("configurations", done + n * count, self.points)
            answer = peaks(job, sizes)
            if answer.refused and not self.skip:
                first = min(answer.refused, key=lambda r: int(r.rows.min()))
                at = ", ".join(f"{_title(self.graph, name)}={int(c[first.rows.min()])}" for name, c in sizes.items())
                raise UsageError(f"{self.graph.name} cannot run at {at}: {first.error}; leave such sizes out with invalid='skip'")
            found.append(answer)
        columns: dict[str, Column] = {_title(self.graph, name): np.repeat(c, len(found)) for name, c in sizes.items()}
        columns.update({name: np.tile(self._labels(name), len(found[0].peak)) for name in self.shown})
        columns["resident_bytes"] = np.stack([f.resident for f in found], axis=1).ravel()
        columns["peak_bytes"] = np.stack([f.peak for f in found], axis=1).ravel()
        kept = columns["peak_bytes"] >= 0
        return Sweep(columns if kept.all() else {name: c[kept] for name, c in columns.items()}, self.torch)

    def _labels(self, name: str) -> Column:
        return np.array([getattr(q, name) for q in self.questions])


def _job(graph: Graph, asking: Question) -> Job:
    job = asking.job(graph)
    if job.depends_on_shape:
        raise UsageError(f"levers {', '.join(asking.levers)}: chosen for one input shape at a time; estimate each, or name the segments")
    return job


def _title(graph: Graph, name: str) -> str:
    return "batch" if name == batch_symbol(graph) else name


def _size_axes(
    graph: Graph, batch: Any, spatial: Any, axes: Sequence[tuple[Sequence[str], Any]], sizes: Mapping[str, Any]
) -> list[tuple[tuple[str, ...], Column]]:
    """(the symbols that vary together, their values), in the order of the result's columns."""
    known, first = symbols_in_order(graph), batch_symbol(graph)
    given: dict[tuple[str, ...], Any] = {}
    if batch is not None:
        if first is None:
            raise UsageError("the graph's batch is a number, so it cannot vary; describe it as a symbol, such as N")
        given[(first,)] = batch
    if not isinstance(axes, list | tuple) or not all(
        isinstance(a, list | tuple) and len(a) == 2 and isinstance(a[0], list | tuple) for a in axes
    ):
        raise UsageError(f"axes are pairs of names and values, such as [(('H', 'W'), [64, 128])], got {kind_of(axes)}")
    if spatial is not None:
        given[tuple(s for s in known if s != first and s not in sizes)] = spatial
    given.update({tuple(tied): values for tied, values in axes})
    given.update({(name,): values for name, values in sizes.items()})
    named = {s for tied in given for s in tied}
    for name in named:
        if name not in known:
            raise UsageError(f"the graph has no size {name!r}{did_you_mean(name, (*known, *KEYWORDS))}; it has {', '.join(known)}")
    if sum(map(len, given)) > len(named):
        raise UsageError("a size is given on two axes; name each once")
    given.update({(s,): n for s, n in pinned_sizes(graph).items() if s not in named})
    missing = [s for s in known if s not in {s for tied in given for s in tied}]
    if missing:
        raise UsageError(f"no values are given for {', '.join('batch' if s == first else s for s in missing)}")
    if not known:
        raise UsageError("every size of the graph is a number, so there is nothing to sweep; use estimate")
    return [(tied, _values("batch" if tied == (first,) else ", ".join(tied), values)) for tied, values in given.items() if tied]


def _values(name: str, values: Any) -> Column:
    """A range, a sequence or a number as an int64 column; UsageError names the axis."""
    if isinstance(values, str | bytes | Mapping) or not (asked.whole(values) is not None or isinstance(values, Iterable)):
        raise UsageError(f"{name}: give a number, a range or a list of numbers, got {kind_of(values)}")
    found = values if isinstance(values, Iterable) else [values]
    if isinstance(found, range) and found and max(found[0], found[-1]) >= 2**31:
        raise UsageError(f"{name}: sizes are whole numbers from 1 to {2**31 - 1:,}")
    if isinstance(found, range) and len(found) > MOST_VALUES:
        raise UsageError(
            f"{name}: {len(found):,} values are more than a sweep holds ({MOST_VALUES:,}); give a step, such as range(a, b, 32)"
        )
    if isinstance(found, range):
        column = np.arange(found.start, found.stop, found.step)
    else:
        column = np.asarray(found if isinstance(found, np.ndarray) else list(found))
    if column.ndim != 1 or column.size == 0:
        raise UsageError(f"{name}: no values are given")
    if column.dtype.kind not in "iu" or (column < 1).any() or (column >= 2**31).any():
        raise UsageError(f"{name}: sizes are whole numbers from 1 to {2**31 - 1:,}")
    return column.astype(np.int64)


def _several(name: str, values: Any) -> tuple[Any, ...]:
    """The names that a setting takes one after the other."""
    found = tuple(values)
    if not found or any(value is None for value in found):
        raise UsageError(f"{name}: give a name, or a list of names")
    return found
