"""Sweeps: the peak over a product of sizes, optimizers, dtypes and modes, as flat columns.

Every number equals what an estimate of that configuration alone would say, to the byte, and is exact past 2**63.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memest import asked
from memest.errors import UsageError, did_you_mean, kind_of
from memest.estimate import Job, prepare
from memest.graph import Graph
from memest.libraries.cpu import Cpu
from memest.planning.axes import batch_symbol, pinned_sizes, symbols_in_order
from memest.planning.peaks import peaks

Column = NDArray[Any]
MOST_POINTS = 50_000_000
SETTINGS = ("mode", "optimizer", "loss", "dtype")


@dataclass(frozen=True, eq=False)
class Sweep(Mapping[str, Column]):
    """Columns of equal length, one row a configuration: the sizes by name (``batch`` for the batch), the other settings that were
    swept, ``resident_bytes`` and ``peak_bytes``. Bytes are int64 where they fit, else Python ints."""

    columns: Mapping[str, Column]

    def __getitem__(self, name: str) -> Column:
        try:
            return self.columns[name]
        except KeyError:
            raise UsageError(f"the sweep has no column {name!r}{did_you_mean(name, self.columns)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def points(self) -> int:
        """How many configurations it holds."""
        return len(self.columns["peak_bytes"])

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain mapping a configuration."""
        names = list(self.columns)
        for values in zip(*(c.tolist() for c in self.columns.values()), strict=True):
            yield dict(zip(names, values, strict=True))

    def to_csv(self) -> str:
        """Comma-separated text with a heading."""
        lines = [",".join(self.columns)]
        lines += [",".join(map(str, row.values())) for row in self.rows()]
        return "\n".join(lines) + "\n"

    def to_json(self) -> str:
        """``{"columns": {name: [values]}}``."""
        return json.dumps({"columns": {name: c.tolist() for name, c in self.columns.items()}})

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
    mode: Any = "train",
    optimizer: Any = "sgd",
    loss: Any = "cross_entropy",
    dtype: Any = None,
    levers: Sequence[str] = (),
    cpu: Cpu | None = None,
    invalid: str = "raise",
    **sizes: Any,
) -> Sweep:
    """The peak of every combination of the values given.

    ``batch`` is the first dim of the first input, ``spatial`` all the graph's other symbols at once (cubes), ``sizes`` are the graph's
    symbols by name, ``axes`` pairs of symbols that vary together and their values; each is a number or a sequence of them. ``mode``,
    ``optimizer``, ``loss`` and ``dtype`` are names or sequences of names. The last axis varies fastest; axes come in the order batch,
    spatial, axes, sizes, names.

    ``invalid`` says what becomes of sizes the network cannot run at: ``raise`` (UsageError that names the first) or ``skip``.
    Raises UsageError for an empty axis, an unknown or missing size, or more than ``MOST_POINTS`` points: use :func:`sweeps` then.
    """
    how: dict[str, Any] = {"mode": mode, "optimizer": optimizer, "loss": loss, "dtype": dtype, "levers": levers, "cpu": cpu}
    (whole,) = sweeps(graph, batch=batch, spatial=spatial, axes=axes, invalid=invalid, at_once=None, **how, **sizes)
    return whole


def sweeps(
    graph: Graph,
    *,
    batch: Any = None,
    spatial: Any = None,
    axes: Sequence[tuple[Sequence[str], Any]] = (),
    mode: Any = "train",
    optimizer: Any = "sgd",
    loss: Any = "cross_entropy",
    dtype: Any = None,
    levers: Sequence[str] = (),
    cpu: Cpu | None = None,
    invalid: str = "raise",
    at_once: int | None = 1_000_000,
    **sizes: Any,
) -> Iterator[Sweep]:
    """The same as :func:`sweep` in parts of at most ``at_once`` points, for products that do not fit in memory."""
    graph = asked.graph(graph, "sweep")
    if not isinstance(invalid, str) or invalid not in ("raise", "skip"):
        raise UsageError(f"invalid={kind_of(invalid)}: use 'raise' or 'skip'")
    at_once = None if at_once is None else asked.size(at_once, "at_once")
    symbols = _size_axes(graph, batch, spatial, axes, sizes)
    names = dict(zip(SETTINGS, (mode, optimizer, loss, dtype), strict=True))
    settings = {name: _names(graph, name, value) for name, value in names.items()}
    levers, cpu = asked.levers(levers), asked.cpu(cpu)
    shown = tuple(name for name in settings if isinstance(names[name], list | tuple | set | frozenset | np.ndarray))
    points = prod(len(values) for _, values in symbols) * prod(len(v) for v in settings.values())
    if at_once is None and points > MOST_POINTS:
        raise UsageError(
            f"{points:,} points are more than a sweep holds ({MOST_POINTS:,}): "
            "narrow an axis, or go through them in parts with memest.sweeps"
        )
    for combination in product(*settings.values()):
        _job(graph, combination, levers, cpu)
    yield from _parts(graph, symbols, settings, shown, levers, cpu, invalid, min(at_once or points, max(points, 1)))


def _parts(
    graph: Graph,
    symbols: Sequence[tuple[tuple[str, ...], Column]],
    settings: Mapping[str, Sequence[str]],
    shown: tuple[str, ...],
    levers: Sequence[str],
    cpu: Cpu | None,
    invalid: str,
    at_once: int,
) -> Iterator[Sweep]:
    combinations = list(product(*settings.values()))
    per_size = len(combinations)
    lengths = [len(values) for _, values in symbols]
    step = max(at_once // per_size, 1)
    for start in range(0, prod(lengths), step):
        flat = np.arange(start, min(start + step, prod(lengths)))
        places = np.unravel_index(flat, lengths)
        columns = {name: values[place] for (tied, values), place in zip(symbols, places, strict=True) for name in tied}
        found = []
        for combination in combinations:
            answer = peaks(_job(graph, combination, levers, cpu), columns)
            if answer.refused and invalid == "raise":
                first = min(answer.refused, key=lambda r: int(r.rows.min()))
                at = ", ".join(f"{_title(graph, name)}={int(c[first.rows.min()])}" for name, c in columns.items())
                raise UsageError(f"{graph.name} cannot run at {at}: {first.error}; leave such sizes out with invalid='skip'")
            found.append(answer)
        yield _joined(graph, columns, settings, shown, combinations, found)


def _job(graph: Graph, combination: tuple[str, ...], levers: Sequence[str], cpu: Cpu | None) -> Job:
    mode, optimizer, loss, dtype = combination
    job = prepare(graph, mode=mode, optimizer=optimizer, loss=loss, dtype=dtype, levers=levers, cpu=cpu)
    if job.depends_on_shape:
        raise UsageError(f"levers {', '.join(levers)}: chosen for one input shape at a time; estimate each, or name the segments")
    return job


def _joined(
    graph: Graph,
    sizes: Mapping[str, Column],
    settings: Mapping[str, Sequence[str]],
    shown: tuple[str, ...],
    combinations: Sequence[tuple[str, ...]],
    found: Sequence[Any],
) -> Sweep:
    """Columns in the order of the product: sizes vary slowest, names fastest. Refused rows are left out."""
    count = len(combinations)
    columns: dict[str, Column] = {_title(graph, name): np.repeat(c, count) for name, c in sizes.items()}
    for i, name in enumerate(settings):
        if name in shown:
            columns[name] = np.tile(np.array([c[i] for c in combinations]), len(found[0].peak))
    columns["resident_bytes"] = np.stack([f.resident for f in found], axis=1).ravel()
    columns["peak_bytes"] = np.stack([f.peak for f in found], axis=1).ravel()
    kept = columns["peak_bytes"] >= 0
    return Sweep(columns if kept.all() else {name: c[kept] for name, c in columns.items()})


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
            raise UsageError(f"the graph has no size {name!r}{did_you_mean(name, known)}; it has {', '.join(known)}")
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
    if isinstance(found, range) and len(found) > MOST_POINTS:
        raise UsageError(
            f"{name}: {len(found):,} values are more than a sweep holds ({MOST_POINTS:,}); give a step, such as range(a, b, 32)"
        )
    column = np.asarray(found if isinstance(found, np.ndarray) else list(found))
    if column.ndim != 1 or column.size == 0:
        raise UsageError(f"{name}: no values are given")
    if column.dtype.kind not in "iu" or (column < 1).any() or (column >= 2**31).any():
        raise UsageError(f"{name}: sizes are whole numbers from 1 to {2**31 - 1:,}")
    return column.astype(np.int64)


def _names(graph: Graph, name: str, value: Any) -> tuple[Any, ...]:
    """The names asked for, one or several; None stands for the dtype as the graph describes it."""
    several = isinstance(value, list | tuple | set | frozenset | np.ndarray)
    found = tuple(asked.settings(graph, {name: v})[name] for v in (value if several else (value,)))
    if not found or (several and None in found):
        raise UsageError(f"{name}: give a name, or a list of names")
    return found
