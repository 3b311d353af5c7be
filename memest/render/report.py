"""What every format shows: facts, tables, and the same as plain data. Formats differ in looks, never in content.

A cell is a raw value (bytes as an int, a share as a fraction); its column's kind says how a person wants to read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from memest.units import format_bytes

Kind = Literal["text", "bytes", "count", "share", "shapes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns as (name, kind), and rows of raw values in their order."""

    title: str
    columns: tuple[tuple[str, Kind], ...]
    rows: Sequence[tuple[Any, ...]]


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
    return str(value)


def plain(value: Any, kind: Kind) -> str:
    """A cell as a program reads it: no units, no separators."""
    if value is None:
        return ""
    if kind == "share":
        return f"{value:.6f}"
    if kind == "shapes":
        return shapes(value)
    return str(value)


def shapes(value: Sequence[Sequence[int]]) -> str:
    """``2x64x56x56``, several joined by commas."""
    return ", ".join("x".join(str(n) for n in shape) or "scalar" for shape in value)
