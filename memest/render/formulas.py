"""The report of a closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memest.estimate.formulas import text
from memest.estimate.formulas.notation import PLAIN
from memest.render.report import Kind, Report, Table, stamped
from memest.render.reports import torch_cells, torch_notes

if TYPE_CHECKING:
    from memest.estimate.formulas.formula import Formula

PART_COLUMNS: tuple[tuple[str, Kind], ...] = (("category", "word"), ("formula", "text"), ("bytes", "count"))
MOMENT_COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("phase", "word"), ("layer", "name"), ("operator", "word"), ("formula", "text"), ("bytes", "count"),
)  # fmt: skip
LAYER_COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("layer", "name"), ("kept for backward", "text"), ("output", "text"), ("parameters", "count"), ("gradients", "count"),
)  # fmt: skip
MOMENT_DROPS = ("operator", "phase", "bytes")
LAYER_DROPS = ("gradients", "parameters", "output")
SHEET_COLUMNS: tuple[tuple[str, Kind], ...] = (("table", "text"), ("name", "text"), ("formula", "text"), ("bytes", "text"))


def formula_report(formula: Formula, *, every: bool = False, layers: bool = False) -> Report:
    """The regime and what it is made of; with ``every`` all moments, with ``layers`` all layers. CSV has one row an expression."""
    parts, sums = text.parts(formula, PLAIN), text.sums(formula, PLAIN)
    tables = [
        Table(title="Alive at the peak", columns=PART_COLUMNS, rows=text.parts(formula)),
        Table(title="Over the step", columns=PART_COLUMNS, rows=text.sums(formula)),
    ]
    data: dict[str, Any] = {
        "graph": formula.estimate.graph,
        "mode": formula.estimate.mode,
        "optimizer": formula.estimate.optimizer,
        "loss": formula.estimate.loss,
        "torch": formula.estimate.torch.to_dict(),
        "notes": list(formula.estimate.notes),
        "unit": "byte",
        "sizes": dict(formula.estimate.sizes),
        "figure": formula.figure,
        **_figures(formula),
        "conditions": list(formula.conditions),
        "regime": {
            "peak": text.peak(formula, PLAIN),
            "scratchpad": {name: formula.regime.scratchpad_bytes for name in formula.scratch},
            "conditions": list(formula.regime.texts(formula.program.symbols)),
            "kernels": [
                {"phase": w.instant.phase, "layer": w.instant.layer, "chosen": text.chosen(w), "bytes": text.held(formula, w, PLAIN)}
                for w in formula.regime.kernels
            ],
        },
        "alive_at_peak": [_named(PART_COLUMNS, row) for row in parts],
        "over_the_step": [_named(PART_COLUMNS, row) for row in sums],
    }
    rows = [("regime", formula.figure, text.peak(formula, PLAIN), str(formula.estimate.requested_bytes))]
    rows += [("alive at the peak", c, e, str(n)) for c, e, n in parts] + [("over the step", c, e, str(n)) for c, e, n in sums]
    if every:
        moments = text.moments(formula, PLAIN)
        tables.append(Table(title="Moments that could be the peak", columns=MOMENT_COLUMNS, rows=text.moments(formula), drops=MOMENT_DROPS))
        data["moments"] = [_named(MOMENT_COLUMNS, row) for row in moments]
        rows += [("moments", f"{phase} {layer}", e, str(n)) for phase, layer, _, e, n in moments]
    if layers:
        table = text.layers(formula, PLAIN)
        tables.append(Table(title="Layers", columns=LAYER_COLUMNS, rows=text.layers(formula), drops=LAYER_DROPS))
        data["layers"] = [_named(LAYER_COLUMNS, row) for row in table]
        rows += [("layers", name, kept, "") for name, kept, *_ in table]
    return Report(
        title=formula.title,
        facts=text.facts(formula, every),
        tables=tuple(tables),
        data=data,
        sheet=stamped(Table(title="", columns=SHEET_COLUMNS, rows=tuple(rows)), torch_cells(formula.estimate.torch)),
        notes=(*torch_notes(formula.estimate.torch), text.promise(formula)),
    )


def _figures(formula: Formula) -> dict[str, Any]:
    """The peak; where an allocator is played, what is asked for and every figure of it."""
    figures = formula.estimate.figures
    if not formula.estimate.replays:
        return {"peak_bytes": formula.estimate.requested_bytes}
    plain = {name: getattr(figures, name).to_dict() for name in ("allocated", "reserved", "process")}
    return {"peak_bytes": figures.allocated.bytes, "requested_bytes": formula.estimate.requested_bytes, **plain}


def _named(columns: tuple[tuple[str, Kind], ...], row: tuple[Any, ...]) -> dict[str, Any]:
    return {name.replace(" ", "_"): value for (name, _), value in zip(columns, row, strict=True)}
