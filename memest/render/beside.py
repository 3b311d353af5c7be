"""A predicted step beside a recorded one, added to the record's report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from memest.estimate.estimate import Estimate
from memest.memory.figure import Figure
from memest.planning.beside import Beside, Parting
from memest.planning.recorded import Recorded, where
from memest.render.report import Report, Table
from memest.shown import counted
from memest.sizes.units import format_bytes

SHOWN = 4  # sizes of a stretch that are written out


def with_prediction(report: Report, found: Beside, recorded: Recorded, estimate: Estimate, top: int) -> Report:
    """The report with the prediction's figures, and the first ``top`` places where the two part."""
    history, total = found.history, len(found.predicted)
    rows = tuple(_row(found, p) for p in found.partings[:top])
    table = Table(
        title="Where record and prediction part",
        columns=(("event", "count"), ("recorded", "text"), ("asked for at", "name"), ("predicted", "text"), ("for", "name")),
        rows=rows,
        drops=("event",),
    )
    there, stretches = len(found.recorded), len(found.partings)
    first, last = (found.recorded[0], found.recorded[-1]) if found.recorded else (0, 0)
    retraced = recorded.retraced
    facts = (
        ("predicted", f"{estimate.graph}, {estimate.where}"),
        ("its step", f"events {first:,} to {last:,} of {len(history.entries):,}"),
        (
            "equal requests",
            f"{found.equal:,} of {total:,} predicted, {there:,} recorded; {counted(stretches, 'place')} where they part",
        ),
        ("allocated", _both(retraced.allocated, estimate.allocated)),
        ("reserved", _both(retraced.reserved, estimate.reserved)),
    )
    more = stretches - len(rows)
    notes = (f"{more:,} more places where they part: --top {stretches}",) if more > 0 else ()
    data = {"events": [first, last], "equal": found.equal, "predicted": total, "recorded": len(found.recorded)}
    return replace(
        report,
        facts=(*report.facts, *facts),
        tables=(*report.tables, table) if rows else report.tables,
        notes=(*report.notes, *notes),
        data={**report.data, "prediction": {**data, "model": estimate.graph, "partings": [_plain(found, p) for p in found.partings[:top]]}},
    )


def _both(recorded: int, figure: Figure) -> str:
    predicted = figure.bytes
    if predicted is None:
        return f"{format_bytes(recorded)} recorded at most"
    off = f", {predicted / recorded - 1:+.2%}" if recorded else ""
    return f"{format_bytes(recorded)} recorded at most, {format_bytes(predicted)} predicted{off}"


def _row(found: Beside, parting: Parting) -> tuple[Any, ...]:
    made = _plain(found, parting)
    return made["event"], _sizes(made["recorded"]), made["where"], _sizes(made["predicted"]), made["for"]


def _plain(found: Beside, parting: Parting) -> dict[str, Any]:
    history = found.history
    numbers = found.recorded[slice(*parting.recorded)]
    entries = [history.entries[number] for number in numbers]
    events = found.predicted[slice(*parting.predicted)]
    place = min(parting.recorded[0], len(found.recorded) - 1)
    return {
        "event": found.recorded[place] if place >= 0 else 0,
        "recorded": [e.size for e in entries],
        "where": where(history.stacks[entries[0].stack]) if entries else "",
        "predicted": [e.delta for e in events],
        "for": " ".join(filter(None, (events[0].phase, events[0].layer, events[0].op))) if events else "",
    }


def _sizes(sizes: Sequence[int]) -> str:
    more = len(sizes) - SHOWN
    text = ", ".join(f"{n:,}" for n in sizes[:SHOWN])
    return f"{text} and {more:,} more" if more > 0 else text or "nothing"
