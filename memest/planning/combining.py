"""Which changes to combine so that a step fits: a beam search whose every step is an estimate, from the cheapest kind of change up.

The changes of the cheapest kind are tried first, alone and in growing combinations; only where they do not do are the next kind's added.
A change joins a combination when it lowers the peak further. What is found is then made gentler: a change that is not needed goes, and
one that has a gentler form takes it, as long as the step still fits. It is a search, so a cheaper combination may exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from memest.errors import MemestError
from memest.estimate.estimate import Estimate, estimate
from memest.network.tensor import Shape
from memest.planning.advice import RANKS, Choice, Situation
from memest.planning.progress import tell

WIDTH = 2
Path = tuple[Choice, ...]
Cost = tuple[tuple[int, ...], int, int]


class Trials:
    """Estimates of combinations, each made once."""

    def __init__(self, situation: Situation) -> None:
        self._situation = situation
        self._known: dict[frozenset[Choice], Estimate | MemestError] = {}

    def at(self, path: Path) -> Estimate | MemestError:
        """The estimate with the changes of ``path``, or why there is none."""
        key = frozenset(path)
        if key not in self._known:
            tell("combinations", len(self._known))
            try:
                self._known[key] = estimate(self._situation.graph, **keywords(self._situation, path))
            except MemestError as e:
                self._known[key] = e
        return self._known[key]

    def peak(self, path: Path) -> int | None:
        """What counts against the limit with the changes of ``path``; None where they cannot be made together."""
        found = self.at(path)
        return found.held_bytes if isinstance(found, Estimate) else None


def keywords(situation: Situation, path: Path) -> dict[str, Any]:
    """The keywords of ``estimate`` with the changes of ``path`` made."""
    step = dict(situation.step)
    for choice in path:
        step.update(choice.change.settings)
    levers = (*situation.step.get("levers", ()), *(c.change.lever for c in path if c.change.lever))
    sizes = {**situation.sizes, **{s: n for c in path for s, n in c.change.sizes}}
    return {**step, "levers": levers, "input_shape": _shapes(situation, sizes)}


def _shapes(situation: Situation, sizes: Mapping[str, int]) -> dict[str, Shape]:
    return {i.name: tuple(d if isinstance(d, int) else d.evaluate(sizes) for d in i.shape) for i in situation.graph.inputs}


def combine(trials: Trials, choices: Sequence[Choice], limit: int) -> Path:
    """The cheapest combination found that fits, in an order in which each change lowers the peak; where none does, that of the least
    peak."""
    least: Path = ()
    if _peak(trials, least) <= limit:
        return least
    for rank in range(RANKS):
        if not any(c.rank == rank for c in choices):
            continue
        path = _descend(trials, _strongest(trials, [c for c in choices if c.rank <= rank]), limit)
        if _peak(trials, path) <= limit:
            return _gentler(trials, choices, path, limit)
        least = min(least, path, key=lambda p: _peak(trials, p))
    return _gentler(trials, choices, least, _peak(trials, least))


def _strongest(trials: Trials, choices: Sequence[Choice]) -> list[Choice]:
    """For each slot and kind the change that saves most alone, and the last: gentler ones are tried at the end."""
    groups: dict[tuple[str, int], list[Choice]] = {}
    for c in choices:
        if trials.peak((c,)) is not None:
            groups.setdefault((c.candidate.name, c.rank), []).append(c)
    found: dict[Choice, None] = {}
    for group in groups.values():
        found.update(dict.fromkeys((min(group, key=lambda c: _peak(trials, (c,))), group[-1])))
    return list(found)


def _descend(trials: Trials, choices: Sequence[Choice], limit: int) -> Path:
    """Growing combinations until one fits or none lowers the peak."""
    beam: list[Path] = [()]
    while True:
        grown: dict[frozenset[Choice], Path] = {}
        for path in beam:
            for choice in choices:
                longer = (*path, choice)
                if frozenset(longer) in grown or any(choice.clashes(c) for c in path):
                    continue
                peak = trials.peak(longer)
                if peak is not None and peak < _peak(trials, path):
                    grown[frozenset(longer)] = longer
        fitting = [p for p in grown.values() if _peak(trials, p) <= limit]
        if fitting:
            return min(fitting, key=lambda p: _cost(trials, p))
        if not grown:
            return beam[0]
        beam = sorted(grown.values(), key=lambda p: (_peak(trials, p), _cost(trials, p)))[:WIDTH]


def _gentler(trials: Trials, choices: Sequence[Choice], path: Path, limit: int) -> Path:
    """``path`` without what it does not need, and with the gentlest form of what it does, dearest first."""

    def holds(p: Path) -> bool:
        peaks = [trials.peak(p[:n]) for n in range(len(p) + 1)]
        known = [n for n in peaks if n is not None]
        return len(known) == len(peaks) and known[-1] <= limit and all(a > b for a, b in pairwise(known))

    for old in sorted(path, key=lambda c: -c.order):
        at = path.index(old)
        before, after = path[:at], path[at + 1 :]
        gentler = [c for c in choices if c.candidate.slot == old.candidate.slot and c.order < old.order]
        others = (*before, *after)
        options: list[Path] = [others]
        for c in gentler:
            if not _clashing(c, others):
                options += [(*before, c, *after), (*others, c)]
        path = next((p for p in options if holds(p)), path)
    return path


def _clashing(choice: Choice, path: Path) -> bool:
    return any(choice.clashes(c) for c in path)


def _cost(trials: Trials, path: Path) -> Cost:
    """How many changes of each rank, dearest first; then how strong they are; then the peak."""
    counts = tuple(sum(c.rank == rank for c in path) for rank in reversed(range(RANKS)))
    return counts, sum(c.grade for c in path), _peak(trials, path)


def _peak(trials: Trials, path: Path) -> int:
    found = trials.at(path)
    if isinstance(found, MemestError):
        raise found
    return found.held_bytes
