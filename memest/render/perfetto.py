"""The step as a trace of events in Chrome's JSON, which ui.perfetto.dev and chrome://tracing open.

Counters for the bytes alive, in total and per category; slices of phases that hold layers that hold operators; an instant at the peak.
A timestamp is the number of a moment in microseconds, not a time: 0 is before the step, ``i + 1`` after event ``i``. A slice begins at its
first moment and ends before the moment that follows its last. Numbers are whole and exact; a peak above 2^53 bytes is refused, because
the viewers read doubles.

Format: "Trace Event Format" of the Chromium project (phases M, C, X, i).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from memest.errors import UsageError
from memest.estimate.estimate import Estimate
from memest.estimate.series import Series, Span, series
from memest.render.reports import heading, notes
from memest.shown import visible_json

EXACT = 1 << 53
PROCESS, THREAD = 1, 1
CLOCK = "ts is the number of a moment (0: before the step, i + 1: after event i), not a time"
_Row = dict[str, Any]


def render(estimate: Estimate) -> str:
    """The JSON. UsageError where a double cannot hold the bytes."""
    if estimate.peak_bytes > EXACT:
        raise UsageError(f"a peak of {estimate.peak_bytes:,} bytes: trace viewers read numbers as doubles, exact up to 2^53")
    found = series(estimate)
    rows = [*_names(estimate), *_counters(found), *_slices(found), _peak(estimate, found)]
    other = {"network": heading(estimate), "clock": CLOCK, "peak_bytes": estimate.peak_bytes, "notes": " ".join(notes(estimate))}
    lines = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
    about = json.dumps(other, ensure_ascii=False)
    return visible_json(f'{{"displayTimeUnit":"ms","otherData":{about},"traceEvents":[\n{lines}\n]}}\n')


def _names(estimate: Estimate) -> Iterator[_Row]:
    yield {"ph": "M", "pid": PROCESS, "tid": THREAD, "name": "process_name", "args": {"name": f"memest: {heading(estimate)}"}}
    yield {"ph": "M", "pid": PROCESS, "tid": THREAD, "name": "thread_name", "args": {"name": f"phase > layer > operator ({CLOCK})"}}


def _counters(found: Series) -> Iterator[_Row]:
    """The total and all categories at every moment: a viewer that stacks needs them together."""
    columns = tuple(found.categories.values())
    for ts, total in enumerate(found.totals):
        yield _row("C", "bytes alive", ts, args={"total": total})
        yield _row("C", "bytes alive by category", ts, args={n: c[ts] for n, c in zip(found.categories, columns, strict=True)})


def _slices(found: Series) -> Iterator[_Row]:
    """Complete events by start, the outer one first where two start together."""
    spans = [(s.start, depth, s, kind) for depth, (kind, group) in enumerate(_kinds(found)) for s in group]
    for _, _, s, kind in sorted(spans, key=lambda item: item[:2]):
        alive = max(found.totals[s.start : s.stop])
        yield _row("X", s.name, s.start, dur=s.stop - s.start, cat=kind, tid=THREAD, args={"highest_bytes": alive})


def _kinds(found: Series) -> tuple[tuple[str, tuple[Span, ...]], ...]:
    return (("phase", found.phases), ("layer", found.layers), ("operator", found.ops))


def _peak(estimate: Estimate, found: Series) -> _Row:
    m = estimate.moment
    args = {"bytes": found.peak_bytes, "phase": m.phase, "layer": m.layer, "operator": m.op}
    return _row("i", "peak", found.peak, s="g", tid=THREAD, args=args)


def _row(ph: str, name: str, ts: int, **more: Any) -> _Row:
    return {"ph": ph, "name": name, "pid": PROCESS, "ts": ts, **more}
