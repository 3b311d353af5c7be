"""Other tools' figures beside ours, as a report."""

from __future__ import annotations

from typing import Any

from memest.planning.peers.explaining import Beside, Explanation
from memest.render.report import Kind, Report, Table
from memest.render.reports import heading, moment, notes, peak_facts
from memest.sizes.units import format_bytes

SHEET: tuple[tuple[str, Kind], ...] = (("tool", "text"), ("what", "text"), ("bytes", "bytes"))
OURS = "memest"


def explanation_report(found: Explanation) -> Report:
    """A table of the figures, and one for each tool of the way from its figure to ours."""
    estimate = found.estimate
    return Report(
        title=heading(estimate),
        facts=(*peak_facts(estimate), ("moment", moment(estimate))),
        tables=(_figures(found), *(_way(b, estimate.peak_bytes) for b in found.tools if b.said.nbytes is not None)),
        data={**estimate.to_dict(), "tools": [_data(b, estimate.peak_bytes) for b in found.tools]},
        sheet=Table(title="", columns=SHEET, rows=tuple(_rows(found))),
        notes=(
            *(f"{b.said.tool} says nothing: {b.said.reason}" for b in found.tools if b.said.reason),
            *_rules(found),
            *notes(estimate),
        ),
    )


def _rules(found: Explanation) -> list[str]:
    """What each figure is of and where its rule was read; tools of one rule together."""
    tools: dict[str, list[str]] = {}
    for beside in found.tools:
        tools.setdefault(f"{beside.said.asks}, by {beside.said.rule}", []).append(beside.said.tool)
    return [f"{', '.join(names)}: {rule}" for rule, names in tools.items()]


def _figures(found: Explanation) -> Table:
    peak = found.estimate.peak_bytes
    rows: list[tuple[Any, ...]] = [(OURS, peak, None, "")]
    for beside in found.tools:
        n = beside.said.nbytes
        rows.append((beside.said.tool, n, None if n is None else n / max(peak, 1) - 1, beside.said.printed))
    columns: tuple[tuple[str, Kind], ...] = (("tool", "text"), ("says", "bytes"), ("off by", "share"), ("as it prints it", "text"))
    return Table(title="What each tool says", columns=columns, rows=tuple(rows), drops=("as it prints it",))


def _way(beside: Beside, peak: int) -> Table:
    said = beside.said
    assert said.nbytes is not None
    rows: list[tuple[Any, ...]] = [(said.nbytes, f"{said.tool} says")]
    rows += [(i.nbytes, i.what) for i in beside.items]
    columns: tuple[tuple[str, Kind], ...] = (("bytes", "bytes"), ("what", "text"))
    gap = peak - said.nbytes
    title = f"From {said.tool} to {OURS}: {'+' if gap > 0 else ''}{format_bytes(gap)}"
    return Table(title=title, columns=columns, rows=(*rows, (peak, f"{OURS} says")))


def _data(beside: Beside, peak: int) -> dict[str, Any]:
    said = beside.said
    return {
        "tool": said.tool,
        "rule": said.rule,
        "asks": said.asks,
        "bytes": said.nbytes,
        "printed": said.printed or None,
        "reason": said.reason or None,
        "difference_bytes": None if said.nbytes is None else peak - said.nbytes,
        "items": [{"bytes": i.nbytes, "what": i.what} for i in beside.items],
    }


def _rows(found: Explanation) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = [(OURS, "says", found.estimate.peak_bytes)]
    for beside in found.tools:
        rows.append((beside.said.tool, "says", beside.said.nbytes))
        rows += [(beside.said.tool, i.what, i.nbytes) for i in beside.items]
    return rows
