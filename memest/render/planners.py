"""What planners make of one inference call, as a report: a row a planner, and the blocks with their offsets as the sheet."""

from __future__ import annotations

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


def inference_report(found: InferencePlan, planner: str) -> Report:
    """The table of planners; CSV lists the blocks as ``planner`` places them."""
    plan = found.of(planner).plan
    assert plan is not None
    rows = [(b.id, b.lower, b.upper, b.size, o, layer) for b, o, layer in zip(found.blocks, plan.offsets, found.layers, strict=True)]
    return Report(
        title=heading(found.estimate),
        facts=(
            ("standing", f"{format_bytes(found.standing_bytes)} of parameters, buffers and inputs, apart from what is planned"),
            ("planned", f"{len(found.blocks):,} blocks, each rounded up to {found.alignment} bytes"),
        ),
        tables=(Table(title="Planners", columns=COLUMNS, rows=tuple((r.planner, r.nbytes, f"{r.factor:.2f}x") for r in found.rows)),),
        data={
            **found.estimate.to_dict(),
            "alignment": found.alignment,
            "blocks": len(found.blocks),
            "planners": [{"planner": r.planner, "bytes": r.nbytes, "factor": r.factor} for r in found.rows],
        },
        sheet=Table(title="", columns=BLOCK_COLUMNS, rows=tuple(rows)),
        notes=(
            *found.estimate.notes,
            "lower_bound is the most that is alive at once: no plan of these blocks in this order takes less",
            "every plan was checked for overlaps",
        ),
    )
