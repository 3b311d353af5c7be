"""What a sweep found, as flat columns of which only the bytes are written out: sizes and names repeat, and are made where they are read."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memest.errors import UsageError, did_you_mean
from memest.machines.versions import Torch
from memest.planning.written import csv_text, json_text, write
from memest.shown import Shown, counted
from memest.sizes.units import format_bytes

Column = NDArray[Any]
BLOCK = 10_000  # rows made into Python's numbers at once
A_BATCH = 1 << 17  # rows written together


@dataclass(frozen=True, eq=False)
class Repeated:
    """A column of a product, not written out: each of ``values`` stands ``each`` times in a row, over and over, from row ``start`` of the
    product on; of ``count`` rows, or of those of them that ``rows`` names."""

    values: Column
    each: int
    start: int
    count: int
    rows: Column | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of its values."""
        return self.values.dtype

    def __len__(self) -> int:
        return self.count if self.rows is None else len(self.rows)

    def __getitem__(self, rows: slice) -> Column:
        first, last, step = rows.indices(len(self))
        if self.rows is not None:
            numbers = self.start + self.rows[rows]
        elif self.each == 1 or step != 1:
            numbers = np.arange(self.start + first, self.start + last, step)
        else:
            return self._run(self.start + first, self.start + max(first, last))
        if self.each > 1:
            numbers //= self.each
        return np.asarray(self.values[numbers % len(self.values)])

    def _run(self, first: int, last: int) -> Column:
        """Rows in order, of the product."""
        low, high = first // self.each, -(-last // self.each)
        values = np.repeat(self.values[np.arange(low, high) % len(self.values)], self.each)
        return values[first - low * self.each : last - low * self.each]


class NoColumnError(UsageError, KeyError):
    """A column that a sweep has not."""

    __str__ = UsageError.__str__


@dataclass(frozen=True, eq=False)
class Sweep(Mapping[str, Column], Shown):
    """Columns of equal length, one row a configuration: the sizes by name (``batch`` for the batch), the other settings that were
    swept, ``standing_bytes`` and ``peak_bytes``. Where an allocator is played, ``requested_bytes`` and each figure with its range stand
    beside them (``requested_bytes`` alone, where there are too many points). Bytes are int64 where they fit, else Python ints. ``torch``
    is the one they speak of, ``about`` says which figures they are.
    A column that is asked for is an array of its own: keep it, rather than asking again."""

    columns: Mapping[str, Column | Repeated]
    torch: Torch
    about: tuple[str, ...] = ()

    def __repr__(self) -> str:
        if not self.points:
            return "<Sweep: no configurations>"
        peak = self["peak_bytes" if "peak_bytes" in self.columns else "requested_bytes"]
        least, most = (format_bytes(int(end)) for end in (peak.min(), peak.max()))
        return f"<Sweep: {counted(self.points, 'configuration')}, {least} to {most}>"

    def __getitem__(self, name: str) -> Column:
        if name == "resident_bytes" and name not in self.columns:
            warnings.warn("resident_bytes is called standing_bytes now, and goes with the next release", DeprecationWarning, stacklevel=2)
            name = "standing_bytes"
        try:
            found = self.columns[name]
        except KeyError:
            raise NoColumnError(f"the sweep has no column {name!r}{did_you_mean(str(name), self.columns)}") from None
        return found[:] if isinstance(found, Repeated) else found

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
        """Which figures the columns show, and where they speak of another torch than the one at hand."""
        return (*self.about, *self.torch.notes)

    @property
    def points(self) -> int:
        """How many configurations it holds."""
        return len(next(iter(self.columns.values()), ()))

    def blocks(self, length: int = BLOCK) -> Iterator[dict[str, Column]]:
        """The columns, ``length`` rows at a time."""
        for start in range(0, self.points, length):
            yield {name: c[start : start + length] for name, c in self.columns.items()}

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain mapping a configuration."""
        names = list(self.columns)
        for block in self.blocks():
            for values in zip(*(c.tolist() for c in block.values()), strict=True):
                yield dict(zip(names, values, strict=True))

    @property
    def kinds(self) -> dict[str, type]:
        """What each column holds: int or str."""
        return {name: str if c.dtype.kind == "U" else int for name, c in self.columns.items()}

    def to_csv(self) -> str:
        """Comma-separated text with a heading."""
        return "".join(csv_text(self.kinds, self.blocks()))

    def to_json(self) -> str:
        """``{"torch": {…}, "columns": {name: [values]}}``."""
        return "".join(json_text(self.kinds, self.blocks(), {"torch": self.torch.to_dict()}))

    def write(self, path: str | Path) -> None:
        """To a .csv, .json, .parquet or .arrow file (the last two with pyarrow), block by block, whole or not at all."""
        write(path, self.kinds, self.blocks(A_BATCH), self.torch.to_dict())

    def to_frame(self) -> Any:
        """A pandas DataFrame; UsageError where pandas is not installed."""
        try:
            import pandas
        except ModuleNotFoundError:
            raise UsageError("a DataFrame needs pandas; pip install pandas, or use the columns as they are") from None
        return pandas.DataFrame(dict(self))


class Sweeps(Iterator[Sweep]):
    """A sweep in parts, computed as they are asked for: by every loop from the first on, by ``next`` one after the other. ``kinds`` are
    their columns with what they hold, int or str; ``about`` says which figures they are."""

    def __init__(self, parts: Callable[[], Iterator[Sweep]], kinds: Mapping[str, type], torch: Torch, about: tuple[str, ...] = ()) -> None:
        self._parts, self.kinds, self.torch, self.about = parts, kinds, torch, about
        self._running: Iterator[Sweep] | None = None

    def __iter__(self) -> Iterator[Sweep]:
        return self._parts()

    def __next__(self) -> Sweep:
        self._running = self._running or self._parts()
        return next(self._running)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_running": None}

    def blocks(self, length: int = A_BATCH) -> Iterator[dict[str, Column]]:
        """The columns of all parts, at most ``length`` rows at a time."""
        return (block for part in self for block in part.blocks(length))

    def write(self, path: str | Path) -> None:
        """All parts, to a .csv, .json, .parquet or .arrow file (the last two with pyarrow), as they are computed, whole or not at all."""
        write(path, self.kinds, self.blocks(), self.torch.to_dict())
