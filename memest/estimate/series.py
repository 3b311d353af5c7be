"""The step as series over its moments: bytes alive in total and per category, and the runs of phases, layers and operators.

Moment 0 is the state before the step, moment ``i + 1`` the state after event ``i``. All sizes are exact ints. A storage counts under its
final category (an output that autograd keeps is an activation from its first moment), as everywhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from memest.estimate.estimate import Estimate
from memest.estimate.peak import CATEGORIES
from memest.memory.stream import Event

RESIDENT_FIRST = ("parameter", "buffer", "optimizer_state", "input", "gradient", "activation", "temporary", "workspace")
assert sorted(RESIDENT_FIRST) == sorted(CATEGORIES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A run of moments, ``start`` included and ``stop`` not, that belong to ``name``; ``within`` is the phase and layer it lies in."""

    name: str
    start: int
    stop: int
    within: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """``totals`` and each of ``categories`` (those that ever hold a byte, resident ones first) have one value a moment; ``peak`` is the
    first moment of the highest total."""

    totals: tuple[int, ...]
    categories: Mapping[str, tuple[int, ...]]
    phases: tuple[Span, ...]
    layers: tuple[Span, ...]
    ops: tuple[Span, ...]
    peak: int

    @property
    def peak_bytes(self) -> int:
        """The highest total."""
        return self.totals[self.peak]


def series(estimate: Estimate) -> Series:
    """The series of an estimate."""
    alive = dict.fromkeys(RESIDENT_FIRST, 0)
    for storage in estimate.timeline.residents:
        alive[storage.category] += storage.nbytes
    rows = [tuple(alive.values())]
    for step in estimate.events:
        alive[step.storage.category] += step.delta
        rows.append(tuple(alive.values()))
    columns = dict(zip(RESIDENT_FIRST, zip(*rows, strict=True), strict=True))
    return Series(
        totals=tuple(sum(row) for row in rows),
        categories={name: column for name, column in columns.items() if any(column)},
        phases=_runs(estimate.events, 1),
        layers=_runs(estimate.events, 2),
        ops=_runs(estimate.events, 3),
        peak=estimate.moment.index + 1,
    )


def _runs(steps: Iterable[Event], depth: int) -> tuple[Span, ...]:
    """Runs of events with the same first ``depth`` of (phase, layer, operator); nameless ones (between calls) are left out."""
    found: list[Span] = []
    at = 1
    for key, run in groupby(steps, lambda s: (s.phase, s.layer, s.op)[:depth]):
        length = sum(1 for _ in run)
        if key[-1]:
            found.append(Span(name=key[-1], start=at, stop=at + length, within=key[:-1]))
        at += length
    return tuple(found)


def outline(totals: Sequence[int], columns: int, *, lows: bool = True) -> tuple[int, ...]:
    """Moments that draw ``totals`` in ``columns`` equal parts: of each part its first highest and, with ``lows``, its first lowest.

    All moments where they are few enough; the highest of all is always among them."""
    n = len(totals)
    if n <= columns * (2 if lows else 1):
        return tuple(range(n))
    chosen: list[int] = []
    for c in range(columns):
        part = range(c * n // columns, (c + 1) * n // columns)
        ends = {max(part, key=totals.__getitem__)}
        if lows:
            ends.add(min(part, key=totals.__getitem__))
        chosen += sorted(ends)
    return tuple(chosen)
