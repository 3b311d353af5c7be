"""What planners make of one inference call, as a report: a row a planner, and the blocks with their offsets as the sheet."""

from __future__ import annotations

from memest.planning.arena.ways import JOINED, Reach, Way
from memest.planning.inference import InferencePlan
from memest.render.report import Kind, Report, Table
from memest.render.reports import heading
from memest.sizes.units import format_bytes

COLUMNS: tuple[tuple[str, Kind], ...] = (("planner", "word"), ("bytes", "bytes"), ("less by", "text"))
BLOCK_COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("id", "text"),
    ("lower", "text"),
    ("upper", "text"),
    ("size", "text"),
    ("offset", "text"),
    ("layer", "name"),
)


WAY_COLUMNS: tuple[tuple[str, Kind], ...] = (("by", "text"), ("bytes", "bytes"), ("less by", "text"), ("price", "text"))


def inference_report(found: InferencePlan, planner: str, reach: Reach | None = None) -> Report:
    """The table of planners, and how far the memory comes down where that is given; CSV lists the blocks as ``planner`` places them."""
    plan = found.plan(planner)
    rows = [(b.id, b.lower, b.upper, b.size, o, layer) for b, o, layer in zip(found.blocks, plan.offsets, found.layers, strict=True)]
    return Report(
        title=heading(found.estimate),
        facts=(
            ("standing", f"{format_bytes(found.standing_bytes)} of parameters, buffers and inputs, apart from what is planned"),
            ("planned", f"{len(found.blocks):,} blocks, each rounded up to {found.alignment} bytes"),
        ),
        tables=(
            Table(title="Planners", columns=COLUMNS, rows=tuple((r.planner, r.nbytes, f"{r.factor:.2f}x") for r in found.rows)),
            *(() if reach is None else (_ways(reach),)),
        ),
        data={
            **found.estimate.to_dict(),
            "alignment": found.alignment,
            "blocks": len(found.blocks),
            "planners": [{"planner": r.planner, "bytes": r.nbytes, "factor": r.factor} for r in found.rows],
            **({} if reach is None else {"reach": reach.to_dict()}),
        },
        sheet=Table(title="", columns=BLOCK_COLUMNS, rows=tuple(rows)),
        notes=(
            *found.estimate.notes,
            "lower_bound is the most that is alive at once: no plan of these blocks in this order takes less",
            "every plan was checked for overlaps",
            *(() if reach is None else _reached(reach)),
        ),
    )


def _ways(reach: Reach) -> Table:
    return Table(
        title="How far it comes down: inputs and outputs in the arena, values until their last reader",
        columns=WAY_COLUMNS,
        rows=tuple((w.name, w.nbytes, f"{w.factor:.2f}x", _price(w)) for w in reach.ways),
    )


def _price(way: Way) -> str:
    return f"{way.price}, {way.recomputed:.0%} more work" if way.recomputed else way.price


def _reached(reach: Reach) -> tuple[str, ...]:
    wanted, best = f"a factor of {reach.factor:g}", max(reach.ways, key=lambda w: w.factor)
    if reach.smallest is None:
        said = f"{wanted} is out of reach: {best.name} has {best.factor:.2f}"
    else:
        nearer = [w for w in reach.ways if w.rank[0] < reach.smallest.rank[0]]
        without = max(nearer, key=lambda w: w.factor, default=None)
        said = f"the smallest change that reaches {wanted}: {reach.smallest.name} ({reach.smallest.factor:.2f}; {reach.smallest.price})"
        said += "" if without is None else f"; short of that {without.factor:.2f} at most, by {without.name}"
    joins = any(JOINED in w.changes for w in reach.ways)
    return (
        said,
        *((f"{JOINED}: what is read is made where it will lie (ONNX Runtime and OpenVINO copy it instead)",) if joins else ()),
        *(() if reach.why is None else (reach.why,)),
    )
