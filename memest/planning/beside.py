"""A predicted step beside a recorded history: which requests are equal in order, and where the two part.

A record is of a whole program, a prediction of one step. The step is found by runs of sizes that both have; of several like it the last is
taken. From its beginning on the sizes are laid side by side. Where they differ the nearest place is looked for from which on they agree
again, no farther than :data:`REACH` requests ahead, so that the work grows with the lengths and no faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from memest.memory.allocators.history import History
from memest.memory.stream import Event

REACH = 512
RUNS = (4, 2, 1)  # so many equal sizes in a row are agreement; fewer, where no more are found
SEEN = 32  # of places in the record where a run of sizes stands, the last so many are looked at
RARE = 4  # a run of sizes that stands more often in the prediction says nothing of the place
LIKE = 0.8  # of two steps with almost as many runs found, the later one


class Parting(NamedTuple):
    """A stretch of requests that only one of the two has, or that have other sizes there: half-open ranges of both."""

    recorded: tuple[int, int]
    predicted: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """The requests of a step as ``recorded`` (numbers of the history's events) and as ``predicted``; ``partings`` number them, and all
    outside of these are ``equal``."""

    history: History
    recorded: tuple[int, ...]
    predicted: tuple[Event, ...]
    partings: tuple[Parting, ...]
    equal: int


def beside(history: History, events: Sequence[Event]) -> Beside:
    """The step of ``events`` in the history that resembles it most."""
    predicted = tuple(e for e in events if e.delta > 0 and not _perhaps(e))
    requests = [number for number, e in enumerate(history.entries) if e.action == "alloc"]
    sizes = [history.entries[number].size for number in requests]
    wanted = [e.delta for e in predicted]
    start = _beginning(sizes, wanted)
    *partings, end = aligned(sizes[start:], wanted)
    return Beside(
        history=history,
        recorded=tuple(requests[start : start + end.recorded[0]]),
        predicted=predicted,
        partings=tuple(partings),
        equal=len(wanted) - sum(p.predicted[1] - p.predicted[0] for p in partings),
    )


def _perhaps(e: Event) -> bool:
    """Whether it stands for a range of bytes from 0 on, of which none is expected."""
    return e.storage.spread is not None and not e.storage.spread[0] and e.delta == 1


def aligned(recorded: Sequence[int], predicted: Sequence[int]) -> Iterator[Parting]:
    """The stretches that differ, up to the end of the prediction; the last one is empty and says where that is."""
    i = j = 0
    while j < len(predicted):
        if i < len(recorded) and recorded[i] == predicted[j]:
            i, j = i + 1, j + 1
            continue
        ahead, beyond = _agreement(recorded[i : i + REACH], predicted[j : j + REACH])
        yield Parting((i, i + ahead), (j, j + beyond))
        i, j = i + ahead, j + beyond
    yield Parting((i, i), (j, j))


def _agreement(recorded: Sequence[int], predicted: Sequence[int]) -> tuple[int, int]:
    """How many of each to pass over until sizes are equal again, as few as can be; all of the prediction's where they never are."""
    for run in RUNS:
        places: dict[tuple[int, ...], int] = {}
        for j in range(len(predicted) - run + 1):
            places.setdefault(tuple(predicted[j : j + run]), j)
        best: tuple[int, int] | None = None
        for i in range(len(recorded) - run + 1):
            if best is not None and i >= sum(best):
                break
            found = places.get(tuple(recorded[i : i + run]))
            if found is not None and (best is None or i + found < sum(best)):
                best = i, found
        if best is not None:
            return best
    return (0 if len(predicted) < REACH else min(len(recorded), REACH)), len(predicted)


def _beginning(recorded: Sequence[int], predicted: Sequence[int]) -> int:
    """Where the step begins in the record: runs of sizes that both have vote for it."""
    run = RUNS[0]
    places: dict[tuple[int, ...], list[int]] = {}
    for j in range(len(predicted) - run + 1):
        places.setdefault(tuple(predicted[j : j + run]), []).append(j)
    seen: dict[tuple[int, ...], list[int]] = {}
    for i in range(len(recorded) - run + 1):
        key = tuple(recorded[i : i + run])
        if len(places.get(key, ())) in range(1, RARE + 1):
            seen.setdefault(key, []).append(i)
    width = max(RUNS[0], len(predicted) // 8)
    votes: dict[int, list[tuple[int, int]]] = {}
    for key, found in seen.items():
        for i in found[-SEEN:]:
            for j in places[key]:
                votes.setdefault((i - j) // width, []).append((j, i))
    if not votes:
        return 0
    counts = {at: len(votes[at]) + len(votes.get(at + 1, ())) for at in votes}
    most = max(counts.values())
    chosen = max(at for at, count in counts.items() if count >= LIKE * most)
    j, i = min(votes[chosen] + votes.get(chosen + 1, []))
    return max(0, i - j)
