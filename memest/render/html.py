"""A report as a piece of HTML for notebooks, without scripts. Names from a model are text, whatever they hold."""

from __future__ import annotations

from html import escape
from typing import Any

from memest.estimate.estimate import Estimate
from memest.estimate.holdings import layer_table
from memest.planning.swept import Sweep
from memest.render.fits import sweep_report
from memest.render.report import Report, Table
from memest.render.report import shown as cell
from memest.render.reports import estimate_report, layers_report
from memest.shown import visible

TOP = 10
MOST_LAYERS = 1_000


def render(report: Report) -> str:
    """The whole report."""
    facts = "".join(f"<div><b>{_text(name)}</b> {_text(value)}</div>" for name, value in report.facts)
    notes = "".join(f"<div><small>{_text(note)}</small></div>" for note in report.notes)
    return f"<div><div><b>{_text(report.title)}</b></div>{facts}{''.join(map(_table, report.tables))}{notes}</div>"


def shown(value: Any) -> str:
    """What a notebook shows of an estimate (its layers folded away) or a sweep."""
    if isinstance(value, Sweep):
        return render(sweep_report(value, "sweep"))
    assert isinstance(value, Estimate)
    layers = layers_report(value, layer_table(value))
    (table,) = layers.tables
    kept = table.rows if len(table.rows) <= MOST_LAYERS else (*table.rows[: MOST_LAYERS - 1], table.rows[-1])
    folded = _table(Table(title="", columns=table.columns, rows=kept))
    summary = f"{len(table.rows) - 1:,} layers" + ("" if len(kept) == len(table.rows) else f", the first {len(kept) - 1:,}")
    return f"{render(estimate_report(value, TOP))}<details><summary>{summary}</summary>{folded}</details>"


def _table(table: Table) -> str:
    sides = ["right" if kind in ("bytes", "count", "share") else "left" for _, kind in table.columns]
    head = "".join(f'<th style="text-align:{side}">{_text(name)}</th>' for side, (name, _) in zip(sides, table.columns, strict=True))
    rows = "".join(f"<tr>{_cells(row, table, sides)}</tr>" for row in table.rows)
    caption = f'<caption style="text-align:left">{_text(table.title)}</caption>' if table.title else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _cells(row: tuple[Any, ...], table: Table, sides: list[str]) -> str:
    texts = [_text(cell(value, kind)) for value, (_, kind) in zip(row, table.columns, strict=True)]
    return "".join(f'<td style="text-align:{side}">{text}</td>' for side, text in zip(sides, texts, strict=True))


def _text(value: str) -> str:
    """Text that cannot be read as markup; what does not print (control and bidi characters) is written out."""
    return escape(visible(value))
