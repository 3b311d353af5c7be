"""Two event streams side by side: where they part, and which operator was at work."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from memest.estimate.estimate import Estimate
from memest.memory.stream import Event
from memest.network.graph import at_sizes
from memest.network.tensor import nbytes
from validation.profiling import Measured
from validation.rows import normalized


@dataclass(frozen=True)
class Difference:
    """The first moment at which the streams differ: predicted and measured entries around it."""

    predicted_index: int
    measured_index: int
    predicted: tuple[str, ...]
    measured: tuple[str, ...]

    def __str__(self) -> str:
        left = "\n".join(f"    {line}" for line in self.predicted)
        right = "\n".join(f"    {line}" for line in self.measured)
        return f"  predicted from event {self.predicted_index}:\n{left}\n  measured from event {self.measured_index}:\n{right}"


def allocations(deltas: Sequence[int]) -> list[int]:
    """The sizes asked for, in order."""
    return [d for d in deltas if d > 0]


def first_difference(predicted: Sequence[Event], measured: Sequence[Measured], around: int = 4) -> Difference | None:
    """The first place where, releases between two allocations taken as one moment, the streams differ."""
    ours, theirs = _moments([s.delta for s in predicted]), _moments([m.delta for m in measured])
    n = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a[0] != b[0]), min(len(ours), len(theirs)))
    if n == len(ours) == len(theirs):
        return None
    i = ours[n][1] if n < len(ours) else len(predicted)
    j = theirs[n][1] if n < len(theirs) else len(measured)
    lines = [f"{s.delta:>14,}  {s.phase}  {s.layer}  {s.op}" for s in predicted[max(0, i - around) : i + 2 * around]]
    other = [f"{m.delta:>14,}  {_short(m.where)}" for m in measured[max(0, j - around) : j + 2 * around]]
    return Difference(i, j, tuple(lines), tuple(other))


def of_the_step(predicted: Estimate, measured: Sequence[Measured]) -> tuple[list[Event], list[Measured]]:
    """Both streams without releases of what was there before: torch's profiler reports that of a tensor made before it began only where it
    once saw another at that address, and then with the other's size. Where leaving out all that nothing alive explains does not do, the
    ones too many of the size of a resident, or of a tensor that is not registered, are left out."""
    residents = predicted.timeline.residents
    known = {s.id for s in residents}
    ours = [e for e in predicted.events if e.storage.id not in known]
    theirs = _explained(measured, len(measured) - len(ours))
    if first_difference(ours, theirs) is None:
        return ours, theirs
    kept = [at_sizes(p, predicted.sizes) for p in predicted.played.parameters if not p.registered]
    old = Counter([*(s.nbytes for s in residents), *(nbytes(p.shape, p.dtype) for p in kept)])
    return ours, _without_too_many(ours, measured, old)


def _explained(measured: Sequence[Measured], stale: int) -> list[Measured]:
    """Without the first ``stale`` releases of a size that nothing alive has."""
    alive: Counter[int] = Counter()
    events = []
    for e in measured:
        alive[abs(e.delta)] += 1 if e.delta > 0 else -1
        if stale > 0 and alive[abs(e.delta)] < 0:
            alive[abs(e.delta)], stale = 0, stale - 1
        else:
            events.append(e)
    return events


def _without_too_many(ours: Sequence[Event], measured: Sequence[Measured], old: Counter[int]) -> list[Measured]:
    """Without releases of an ``old`` size that our stream does not have at that moment."""
    moments = _released([e.delta for e in ours])
    events: list[Measured] = []
    at = 0
    for e in measured:
        at += e.delta > 0
        here = moments[at] if at < len(moments) else Counter()
        if e.delta < 0 and not here[e.delta] and old[-e.delta] > 0:
            old[-e.delta] -= 1
            continue
        here[e.delta] -= e.delta < 0
        events.append(e)
    return events


def _released(deltas: Sequence[int]) -> list[Counter[int]]:
    """What is released before the first allocation, and after each."""
    found: list[Counter[int]] = [Counter()]
    for d in deltas:
        if d > 0:
            found.append(Counter())
        else:
            found[-1][d] += 1
    return found


def differing(predicted: Sequence[int], measured: Sequence[int]) -> int:
    """How many allocations have no partner of the same size in order."""
    a, b = allocations(predicted), allocations(measured)
    same = sum(block.size for block in SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks())
    return max(len(a), len(b)) - same


def stream_digest(deltas: Iterable[int]) -> str:
    """Sixteen characters that tell streams apart, releases between two allocations in any order."""
    return hashlib.sha256(repr(normalized(list(deltas))).encode()).hexdigest()[:16]


def _moments(deltas: Sequence[int]) -> list[tuple[tuple[int, ...], int]]:
    """Single allocations, and runs of releases in order of size, each with its first index."""
    out: list[tuple[tuple[int, ...], int]] = []
    run: list[int] = []
    start = 0
    for i, d in enumerate(deltas):
        if d < 0:
            if not run:
                start = i
            run.append(d)
            continue
        if run:
            out.append((tuple(sorted(run)), start))
            run = []
        out.append(((d,), i))
    if run:
        out.append((tuple(sorted(run)), start))
    return out


def _short(where: str) -> str:
    parts = [p.replace("autograd::engine::evaluate_function: ", "") for p in where.split(" / ")]
    return " / ".join(parts[-4:])
