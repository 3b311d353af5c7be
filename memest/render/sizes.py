"""Peaks over sides and batches as a report: a row a side, a column a batch, and the largest side that each capacity holds."""

from __future__ import annotations

from collections.abc import Sequence

from memest.machines.claims import claim_on
from memest.planning.growth import Growth
from memest.render.report import Kind, Report, Table, stamped
from memest.render.reports import torch_cells, torch_notes

TITLES = {"peak": "Peak", "allocated": "Allocated, by replay of the caching allocator"}


def sizes_report(found: Growth, capacities: Sequence[tuple[str, int]]) -> Report:
    """The table, its numbers as data, and why a side is missing."""
    batches = found.batches
    columns: tuple[tuple[str, Kind], ...] = (("side", "count"), *((f"batch {b:,}", "bytes") for b in batches))
    rows = tuple((side, *(found.peak_bytes(side, b) for b in batches)) for side in found.sides)
    fit: tuple[tuple[str, Kind], ...] = (("capacity", "name"), ("bytes", "bytes"), *((f"batch {b:,}", "count") for b in batches))
    fits = tuple((name, n, *(found.largest_side(b, n) for b in batches)) for name, n in capacities)
    sheet: tuple[tuple[str, Kind], ...] = (("side", "text"), ("batch", "text"), ("input", "shapes"), ("peak_bytes", "text"))
    points = tuple((p.side, p.batch, [p.input_shape], p.peak_bytes) for p in found.points)
    held = Table(title="Largest of these sides that fits", columns=fit, rows=fits, drops=("bytes",))
    return Report(
        title=f"{found.graph}: {found.how}",
        facts=(),
        tables=(Table(title=TITLES[found.figure], columns=columns, rows=rows), *([held] if fits else [])),
        data={
            "graph": found.graph,
            "torch": found.torch.to_dict(),
            "figure": found.figure,
            "notes": list(found.torch.notes),
            "points": [
                {"side": p.side, "batch": p.batch, "input_shape": list(p.input_shape), "peak_bytes": p.peak_bytes} for p in found.points
            ],
            "refused": [{"side": r.side, "reason": r.reason} for r in found.refused],
            "capacities": [{"name": name, "bytes": n} for name, n in capacities],
        },
        sheet=stamped(Table(title="", columns=sheet, rows=points), torch_cells(found.torch)),
        notes=(
            *(f"side {r.side:,} is left out: {r.reason}" for r in found.refused),
            *torch_notes(found.torch),
            *((claim_on("budget", found.source).note,) if fits else ()),
        ),
    )
