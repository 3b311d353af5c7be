"""The search for segments on an additive model of the step.

The model adds up a survey of the plain step: a checkpointed segment keeps its arguments and pays for running again; its backward needs
what its layers would have kept. Sets of storages are exact, moments within a layer are those of the plain step. For one limit of bytes a
dynamic program over the cuts gives the segments with the fewest operations run again. The model only proposes: every proposal is played.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from operator import attrgetter
from typing import Any, NamedTuple

from memest.levers.checkpoints.modules import blocks_of
from memest.levers.checkpoints.survey import Survey

MOST_CUTS = 64  # the search is cubic in the cuts; a network of more is cut at its narrowest places
MOST_LABELS = 24  # partial plans kept at a cut

Cut = tuple[int, int]
Segments = tuple[Cut, ...]
Chain = tuple[Any, Cut] | None  # the last segment behind the chain of those before it


class Label(NamedTuple):
    """A plan of the layers so far: operations run again, bytes kept, the set kept, the highest point, its last segment and those before."""

    cost: int
    kept: int
    mask: int
    peak: int
    last: Chain


_ORDER = attrgetter("cost", "kept", "peak")


@dataclass(frozen=True)
class Piece:
    """A run of layers as one segment: its arguments, its price, and the most bytes above what is kept while it runs and runs again."""

    arguments: int
    cost: int
    forward: int
    backward: int


@dataclass(frozen=True)
class Model:
    """A survey between the cuts of a search."""

    survey: Survey
    cuts: tuple[int, ...]

    def cheapest(self, limit: int) -> Segments | None:
        """The segments with the fewest operations run again whose modelled peak stays within ``limit`` bytes (above the resident ones);
        None when there are none."""
        labels: list[_Labels] = [_Labels() for _ in self.cuts]
        labels[0].add(0, 0, 0, 0, None)
        for i, here in enumerate(labels[:-1]):
            for label in here.thinned():
                self._extend(labels, i, label, limit)
            for there in labels[i + 1 :]:
                there.thinned()
        best = min(labels[-1].thinned(), key=lambda label: (label.cost, label.peak), default=None)
        return None if best is None else _segments(best.last)

    def _extend(self, labels: list[_Labels], i: int, label: Label, limit: int) -> None:
        cost, kept, mask, highest, last = label
        weights, start, others = self._weights, self.cuts[i], ~mask
        before = kept + weights[self.survey.crossing[start] & others]
        saved, forward, backward = self.plain[i]
        new = kept + weights[saved & others]
        peak = max(highest, before + forward, new + backward)
        if peak <= limit:
            labels[i + 1].add(cost, new, mask | saved, peak, last)
        for j, piece in self.pieces[i]:
            forward, backward = before + piece.forward, kept + piece.backward
            if forward > limit or backward > limit:
                continue
            more = weights[piece.arguments & others]
            if backward + more <= limit:
                peak = max(highest, forward, backward + more)
                labels[j].add(cost + piece.cost, kept + more, mask | piece.arguments, peak, (last, (start, self.cuts[j])))

    @cached_property
    def _weights(self) -> _Weights:
        return _Weights(self.survey)

    @cached_property
    def plain(self) -> tuple[tuple[int, int, int], ...]:
        """Between two cuts, nothing run again: the set kept, the rise of forward, the height of backward above all that is kept."""
        found = []
        for start, end in pairwise(self.cuts):
            run = _Run(self.survey, 0)
            for i in range(start, end):
                run.add(i)
            found.append((run.saved, run.rise, max(0, run.fall - run.held)))
        return tuple(found)

    @cached_property
    def pieces(self) -> tuple[tuple[tuple[int, Piece], ...], ...]:
        """For every cut, the segments that may begin there, with the number of the cut they end at."""
        return tuple(tuple(self._from(i)) if self.survey.may_begin(cut) else () for i, cut in enumerate(self.cuts[:-1]))

    def _from(self, i: int) -> Iterator[tuple[int, Piece]]:
        survey, start = self.survey, self.cuts[i]
        reads = survey.reads_from(start)
        run = _Run(survey, 0)
        done, arguments = start, 0
        for j in range(i + 1, len(self.cuts)):
            end = self.cuts[j]
            wanted = arguments
            for name, at in reads.items():
                if at < end:
                    wanted |= survey.holders[name]
            if wanted != arguments:  # what is an argument is not counted as kept by the layers
                done, arguments, run = start, wanted, _Run(survey, wanted)
            for layer in range(done, end):
                run.add(layer)
            done = end
            yield j, Piece(arguments, run.cost, run.highest, max(run.fall, survey.arriving[end - 1] + run.again))


class _Weights(dict[int, int]):
    """Bytes of sets of storages, each added up once: limits differ, and ask for the same sets."""

    def __init__(self, survey: Survey) -> None:
        super().__init__()
        self._survey = survey

    def __missing__(self, mask: int) -> int:
        self[mask] = found = self._survey.nbytes(mask)
        return found


class _Run:
    """Layers one after the other: what they keep beside ``known``, the highest points of their forward and backward above that, and the
    operations and the highest point of running them again, which ends with the last tensor saved."""

    def __init__(self, survey: Survey, known: int) -> None:
        self._survey = survey
        self._mask = known
        self.saved = 0
        self.held = self.rise = self.fall = self.highest = self.again = self.cost = self._flops = 0

    def add(self, layer: int) -> None:
        """One layer more."""
        survey, until = self._survey, self._survey.until_saved[layer]
        if until is not None:
            self.cost = self._flops + until
            self.again = max(self.rise, self.held + (survey.rise[layer] if until else 0))
        self._flops += survey.flops[layer]
        self.highest = max(self.highest, survey.rise[layer])
        self.rise = max(self.rise, self.held + survey.rise[layer])
        self.held += survey.nbytes(survey.saved[layer] & ~self._mask)
        self._mask |= survey.saved[layer]
        self.saved |= survey.saved[layer]
        self.fall = max(self.fall, self.held + survey.fall[layer])


def cuts_of(survey: Survey) -> tuple[int, ...]:
    """Where segments may begin and end: all places where torch allows it, or the narrowest of them, borders of blocks first."""
    count = len(survey.graph.layers)
    wide = {i: survey.nbytes(survey.crossing[i]) for i in range(count + 1)}
    cuts = [0, *(i for i in range(1, count) if survey.may_begin(i)), count]
    borders = {border for block in blocks_of(survey.graph) for border in (block.start, block.end)}
    while len(cuts) > MOST_CUTS:
        inner = range(1, len(cuts) - 1)
        worst = max(inner, key=lambda n: (cuts[n] not in borders, wide[cuts[n]] / (1 + min(wide[cuts[n - 1]], wide[cuts[n + 1]]))))
        del cuts[worst]
    return tuple(cuts)


def _segments(chain: Chain) -> Segments:
    found: list[Cut] = []
    while chain is not None:
        chain, segment = chain
        found.append(segment)
    return tuple(reversed(found))


class _Labels:
    """Partial plans at a cut."""

    def __init__(self) -> None:
        self._front: list[Label] = []
        self._costs: list[int] = []
        self._new: list[Label] = []

    def add(self, cost: int, kept: int, mask: int, peak: int, last: Chain) -> None:
        """One more, unless one that was there when they were thinned is as good."""
        at = bisect_right(self._costs, cost)
        if at:
            other = self._front[at - 1]
            if other.kept < kept or (other.kept == kept and (other.cost < cost or other.peak <= peak)):
                return
        self._new.append(Label(cost, kept, mask, peak, last))

    def thinned(self) -> list[Label]:
        """Those that no other beats in cost and in bytes kept, thinned evenly when there are many; the cheapest first."""
        if self._new:
            self._front = _undominated(self._front + self._new)
            self._costs = [label.cost for label in self._front]
            self._new = []
        return self._front


def _undominated(labels: list[Label]) -> list[Label]:
    """Labels that no other beats in cost and in bytes kept, thinned evenly when there are many."""
    found: list[Label] = []
    for label in sorted(labels, key=_ORDER):
        if not found or label.kept < found[-1].kept:
            found.append(label)
    if len(found) <= MOST_LABELS:
        return found
    step = (len(found) - 1) / (MOST_LABELS - 1)
    return [found[round(n * step)] for n in range(MOST_LABELS)]
