"""A comparison as a report: the two peaks, and what moved by category and by layer."""

from __future__ import annotations

from typing import Any

from memest.estimate.estimate import Estimate
from memest.memory.figure import Figure
from memest.planning.compare import ComparedRow, Comparison
from memest.render.report import Kind, Report, Table, stamped
from memest.render.reports import heading, moment, notes, range_text
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
            *_figures(c),
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
            **{f"{found.name}_difference_bytes": found.difference_bytes for found in c.figures},
            "standing_difference_bytes": c.standing_difference,
            "categories": [_data(r) for r in c.categories],
            "layers": [_data(r) for r in c.layers],
        },
        sheet=_sheet(c),
        notes=_notes(c),
    )


def _notes(c: Comparison) -> tuple[str, ...]:
    """What either side's numbers promise; what both say alike is said once."""
    of_a, of_b = notes(c.a), notes(c.b)
    both = [note for note in of_a[-1:] if note in of_b]
    sides = (("a", of_a), ("b", of_b))
    return tuple(dict.fromkeys(f"{side}: {note}" for side, said in sides for note in said if note not in both)) + tuple(both)


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


def _figures(c: Comparison) -> list[tuple[str, str]]:
    """What each figure comes to on either side, those that are modelled with their ranges; the peak where there is no allocator."""
    if not c.figures:
        return [("peak", _moved(c.a.peak_bytes, c.b.peak_bytes))]
    return [(f.name, _moved(f.a.bytes or 0, f.b.bytes or 0, _range(f.a), _range(f.b))) for f in c.figures]


def _range(figure: Figure) -> str:
    """Beside the bytes of a figure: that it is modelled, and from where to where."""
    return f" (modelled{range_text(figure, ': ')})" if figure.claim == "modelled" else ""


def _moved(a: int, b: int, of_a: str = "", of_b: str = "") -> str:
    """``1.00 GiB → 1.50 GiB: +536,870,912 bytes (+512.00 MiB, +50.0 %)``, the difference that of what is expected."""
    d = b - a
    sign = "+" if d > 0 else ""
    share = f", {sign}{100 * d / a:.1f} %" if a and d else ""
    return f"{format_bytes(a)}{of_a} → {format_bytes(b)}{of_b}: {sign}{d:,} bytes ({sign}{format_bytes(d)}{share})"


def _side(e: Estimate) -> dict[str, Any]:
    return {k: v for k, v in e.to_dict().items() if k not in ("by_category", "by_layer")}


def _data(r: ComparedRow) -> dict[str, Any]:
    return {"name": r.name, "a_bytes": r.a_bytes, "b_bytes": r.b_bytes, "difference_bytes": r.difference_bytes, "in": r.side}


def _sheet(c: Comparison) -> Table:
    rows: list[tuple[Any, ...]] = [
        ("total", "peak", c.a.peak_bytes, c.b.peak_bytes, c.peak_difference, "both"),
        *[("total", f.name, f.a.bytes, f.b.bytes, f.difference_bytes, "both") for f in c.figures],
        *[("low", f.name, f.a.low, f.b.low, None, "both") for f in c.figures],
        *[("high", f.name, f.a.high, f.b.high, None, "both") for f in c.figures],
        ("total", "standing", c.a.standing_bytes, c.b.standing_bytes, c.standing_difference, "both"),
    ]
    for what, found in (("category", c.categories), ("layer", c.layers)):
        rows += [(what, r.name, r.a_bytes, r.b_bytes, r.difference_bytes, r.side) for r in found]
    return stamped(Table(title="", columns=SHEET_COLUMNS, rows=tuple(rows)), {"a_torch": c.a.torch.modelled, "b_torch": c.b.torch.modelled})
