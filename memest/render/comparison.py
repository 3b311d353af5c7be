"""A comparison as a report: the two peaks, and what moved by category and by layer."""

from __future__ import annotations

from typing import Any

from memest.estimate.estimate import Estimate
from memest.planning.compare import ComparedRow, Comparison
from memest.render.report import Kind, Report, Table, stamped
from memest.render.reports import heading, moment, notes
from memest.sizes.units import format_bytes

DROPS = ("in", "a", "b")
SHEET_COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("what", "text"),
    ("name", "text"),
    ("a_bytes", "bytes"),
    ("b_bytes", "bytes"),
    ("difference_bytes", "bytes"),
    ("in", "text"),
)


def comparison_report(c: Comparison, top: int) -> Report:
    """Facts about the peaks, every category, and the ``top`` layers that moved most."""
    moved = [r for r in c.layers if r.difference_bytes]
    shown = moved[:top]
    rest = sum(r.difference_bytes for r in moved[top:])
    layers = [_cells(r) for r in shown] + ([(f"{len(moved) - top:,} others", None, None, rest, "")] if len(moved) > top else [])
    return Report(
        title=f"{c.a.graph} and {c.b.graph}: what moves from a to b" if c.a.graph != c.b.graph else f"{c.a.graph}: what moves from a to b",
        facts=(
            ("a", heading(c.a)),
            ("b", heading(c.b)),
            *[(name, _moved(a, b)) for name, a, b in c.figures or (("peak", c.a.peak_bytes, c.b.peak_bytes),)],
            ("standing", _moved(c.a.standing_bytes, c.b.standing_bytes)),
            ("moment of a", moment(c.a)),
            ("moment of b", moment(c.b)),
        ),
        tables=(
            Table(
                title="At the peaks, by category", columns=_columns("category"), rows=tuple(_cells(r) for r in c.categories), drops=DROPS
            ),
            Table(title=_title(len(moved), len(shown), len(c.layers)), columns=_columns("layer"), rows=tuple(layers), drops=DROPS),
        ),
        data={
            "a": _side(c.a),
            "b": _side(c.b),
            "peak_difference_bytes": c.peak_difference,
            **{f"{name}_difference_bytes": b - a for name, a, b in c.figures},
            "standing_difference_bytes": c.standing_difference,
            "categories": [_data(r) for r in c.categories],
            "layers": [_data(r) for r in c.layers],
        },
        sheet=_sheet(c),
        notes=tuple(dict.fromkeys(f"{side}: {note}" for side, e in (("a", c.a), ("b", c.b)) for note in notes(e)[:-1])) + notes(c.a)[-1:],
    )


def _columns(first: str) -> tuple[tuple[str, Kind], ...]:
    return ((first, "word" if first == "category" else "name"), ("a", "bytes"), ("b", "bytes"), ("difference", "bytes"), ("in", "word"))


def _cells(r: ComparedRow) -> tuple[Any, ...]:
    return (r.name, r.a_bytes, r.b_bytes, r.difference_bytes, _in(r))


def _in(r: ComparedRow) -> str:
    return "" if r.side == "both" else f"{r.side} only"


def _title(moved: int, shown: int, of: int) -> str:
    if not moved:
        return f"By layer: none of {of:,} moved"
    return f"By layer: {moved:,} of {of:,} moved" + ("" if shown == moved else f", the {shown:,} that moved most")


def _moved(a: int, b: int) -> str:
    """``1.00 GiB → 1.50 GiB: +536,870,912 bytes (+512.00 MiB, +50.0 %)``."""
    d = b - a
    sign = "+" if d > 0 else ""
    share = f", {sign}{100 * d / a:.1f} %" if a and d else ""
    return f"{format_bytes(a)} → {format_bytes(b)}: {sign}{d:,} bytes ({sign}{format_bytes(d)}{share})"


def _side(e: Estimate) -> dict[str, Any]:
    return {k: v for k, v in e.to_dict().items() if k not in ("by_category", "by_layer")}


def _data(r: ComparedRow) -> dict[str, Any]:
    return {"name": r.name, "a_bytes": r.a_bytes, "b_bytes": r.b_bytes, "difference_bytes": r.difference_bytes, "in": r.side}


def _sheet(c: Comparison) -> Table:
    rows: list[tuple[Any, ...]] = [
        ("total", "peak", c.a.peak_bytes, c.b.peak_bytes, c.peak_difference, "both"),
        *[("total", name, a, b, b - a, "both") for name, a, b in c.figures],
        ("total", "standing", c.a.standing_bytes, c.b.standing_bytes, c.standing_difference, "both"),
    ]
    for what, found in (("category", c.categories), ("layer", c.layers)):
        rows += [(what, r.name, r.a_bytes, r.b_bytes, r.difference_bytes, r.side) for r in found]
    return stamped(Table(title="", columns=SHEET_COLUMNS, rows=tuple(rows)), {"a_torch": c.a.torch.modelled, "b_torch": c.b.torch.modelled})
