"""What every format shows: facts, tables, and the same as plain data. Formats differ in looks, never in content.

A cell is a raw value (bytes as an int, a share as a fraction, a name as its file has it); its column's kind says how a person wants to
read it, and what would steer a terminal is escaped on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from memest.shown import visible
from memest.sizes.units import format_bytes

Kind = Literal["text", "word", "name", "literal", "bytes", "count", "share", "shapes"]  # prose, a term of ours, a user's name, to be copied
NUMBERS: tuple[Kind, ...] = ("bytes", "count", "share")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns as (name, kind), and rows of raw values in their order. ``drops`` names the columns that a narrow page can spare, the least
    important first."""

    title: str
    columns: tuple[tuple[str, Kind], ...]
    rows: Sequence[tuple[Any, ...]]
    drops: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """``facts`` and ``tables`` are for people, ``data`` (or what it gives when called) is what JSON gives, ``sheet`` the one table of CSV;
    ``notes`` come last."""

    title: str
    facts: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]
    data: Any
    sheet: Table
    notes: tuple[str, ...] = ()


def stamped(sheet: Table, cells: Mapping[str, Any]) -> Table:
    """``sheet`` with the same cells at the end of every row: what all of it rests on."""
    columns: tuple[tuple[str, Kind], ...] = tuple((name, "text") for name in cells)
    return Table(title=sheet.title, columns=(*sheet.columns, *columns), rows=_Stamped(sheet.rows, tuple(cells.values())))


class _Stamped(Sequence[tuple[Any, ...]]):
    """Rows with the same cells at their ends, made as they are read."""

    def __init__(self, rows: Sequence[tuple[Any, ...]], cells: tuple[Any, ...]) -> None:
        self._rows, self._cells = rows, cells

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return ((*row, *self._cells) for row in self._rows)

    def __getitem__(self, at: Any) -> Any:
        found = self._rows[at]
        return [(*row, *self._cells) for row in found] if isinstance(at, slice) else (*found, *self._cells)


def shown(value: Any, kind: Kind) -> str:
    """A cell as a person reads it."""
    if value is None:
        return ""
    if kind == "bytes":
        return format_bytes(value)
    if kind == "count":
        return f"{value:,}"
    if kind == "share":
        return f"{100 * value:.1f} %"
    if kind == "shapes":
        return shapes(value)
    return visible(str(value))


def plain(value: Any, kind: Kind) -> str:
    """A cell as a program reads it: no units, no separators."""
    if value is None:
        return ""
    if kind == "share":
        return f"{value:.6f}"
    if kind == "shapes":
        return shapes(value)
    return visible(str(value))


def shapes(value: Sequence[Sequence[int]]) -> str:
    """``2x64x56x56``, several joined by commas."""
    return ", ".join("x".join(str(n) for n in shape) or "scalar" for shape in value)
