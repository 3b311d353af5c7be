"""The choice of segments: proposals of the search, each played to the byte, the best of them improved by small changes.

Nothing here rests on the model: a peak that is given was played.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate, islice, pairwise

from memest.errors import UnsupportedError
from memest.levers.checkpoints.modules import blocks_of, named
from memest.levers.checkpoints.search import Cut, Model, Segments, cuts_of
from memest.levers.checkpoints.survey import Survey, survey
from memest.network.graph import Graph, Segment
from memest.network.tensor import Shape
from memest.runtimes.table import play
from memest.runtimes.torch.step import Recipe
from memest.runtimes.torch.step.parallel import Shard

RUNGS = 12  # limits between the least and the plain peak that the search is asked for, closer together near the least
NEAR = (1.03, 1.015, 1.0, 0.985, 0.97, 0.94)  # the model errs by some percent: limits around a budget
PLAYS = 40  # small changes that are tried at most
MOST_CHOICES = 1_024
COUNTS = (2, 3, 4, 6, 8, 12, 16)  # equal parts that are tried, too


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """Segments, the peak of the step with them, and the share of the forward's operations that runs again."""

    segments: tuple[Segment, ...]
    peak_bytes: int
    recomputed_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The option chosen, the plain step, and every option that no other beats in both bytes and operations, by bytes."""

    chosen: Option
    plain: Option
    front: tuple[Option, ...]


def choose(graph: Graph, shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Recipe, budget: int | None) -> Choice:
    """The segments that need the fewest operations run again within ``budget`` bytes; where none keep to it, or without a budget, those
    that need the least memory."""
    at = (recipe, tuple(sizes.items()), budget)
    return graph.memo.find("choices", at, MOST_CHOICES, lambda: _choose(graph, shapes, sizes, recipe, budget))


def _choose(graph: Graph, shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Recipe, budget: int | None) -> Choice:
    if recipe.segments:
        raise UnsupportedError("the step has checkpointed segments already; plan a step without")
    if any(layer.packing for layer in graph.layers):
        raise UnsupportedError("hooks of saved tensors (saved_tensors_hooks) in the network: checkpoints are planned without them")
    if isinstance(recipe.parallel, Shard):
        raise UnsupportedError("checkpoints are planned where parameters are whole, not beside fsdp; name the modules to checkpoint")
    stage = _Stage(graph, shapes, sizes, recipe)
    plain = stage.option(())
    for segments in stage.proposals(budget):
        stage.option(segments)
    chosen = stage.best(budget)
    if budget is None or plain.peak_bytes > budget:
        chosen = _improved(stage, chosen, budget)
    return Choice(chosen=stage.named(chosen), plain=plain, front=tuple(stage.named(o) for o in stage.front()))


def _improved(stage: _Stage, chosen: Option, budget: int | None) -> Option:
    """Small changes while they help: a segment less, two in one, one in two, a border moved."""
    left = PLAYS
    improving = True
    while improving and left:
        improving = False
        for segments in islice(stage.neighbours(chosen), left):
            left -= 1
            stage.option(segments)
        better = stage.best(budget)
        if better is not chosen:
            chosen, improving = better, True
    return chosen


class _Stage:
    """Where segments are played: each set once."""

    def __init__(self, graph: Graph, shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Recipe) -> None:
        self._graph, self._shapes, self._sizes, self._recipe = graph, shapes, sizes, recipe
        self._played: dict[Segments, Option] = {}
        self._resident = 0
        self._survey: Survey = survey(graph, shapes, sizes, recipe)
        self._model = Model(self._survey, cuts_of(self._survey))
        self._flops = {layer.name: n for layer, n in zip(graph.layers, self._survey.flops, strict=True)}

    def option(self, segments: Segments) -> Option:
        """The step with ``segments``, played."""
        if segments not in self._played:
            recipe = replace(self._recipe, segments=tuple(Segment(*cut) for cut in segments))
            timeline = play(self._graph, self._shapes, self._sizes, recipe)
            self._resident = sum(s.nbytes for s in timeline.residents)
            above = max(accumulate((s.delta for s in timeline.events), initial=0))
            again = sum(self._flops[name] for name in set(timeline.ran_again))  # of each pass, where there are several
            self._played[segments] = Option(
                segments=recipe.segments,
                peak_bytes=self._resident + above,
                recomputed_share=again / max(1, sum(self._survey.flops)),
            )
        return self._played[segments]

    def best(self, budget: int | None) -> Option:
        """The cheapest option within the budget; the smallest when there is none."""
        fitting = [o for o in self._played.values() if budget is not None and o.peak_bytes <= budget]
        if fitting:
            return min(fitting, key=lambda o: (o.recomputed_share, o.peak_bytes))
        return min(self._played.values(), key=lambda o: (o.peak_bytes, o.recomputed_share))

    def front(self) -> list[Option]:
        """The options that no other beats, the smallest first."""
        found: list[Option] = []
        for o in sorted(self._played.values(), key=lambda o: (o.peak_bytes, o.recomputed_share)):
            if not found or o.recomputed_share < found[-1].recomputed_share:
                found.append(o)
        return found

    def named(self, option: Option) -> Option:
        """The option, its segments under names."""
        return replace(option, segments=tuple(named(self._graph, s.start, s.end) for s in option.segments))

    def proposals(self, budget: int | None) -> Iterator[Segments]:
        """What the model finds cheapest under limits between its least and the plain peak and around the budget; equal parts."""
        below = self._resident + self._survey.carried
        most = self.option(()).peak_bytes - below
        least = self._least(most)
        limits = [least + (most - least) * n * n // RUNGS**2 for n in range(RUNGS)]
        if budget is not None:
            limits += [int((budget - below) * near) for near in NEAR]
        yield from filter(None, (self._model.cheapest(limit) for limit in limits))
        yield from self._equal_parts()

    def _least(self, most: int) -> int:
        """The lowest limit under which the model finds segments, to a thousandth of ``most``."""
        low, high = 0, most
        while high - low > most // 1000:
            middle = (low + high) // 2
            if self._model.cheapest(middle) is None:
                low = middle
            else:
                high = middle
        return high

    def _equal_parts(self) -> Iterator[Segments]:
        """The blocks in parts of equal number, the last of them kept (as checkpoint_sequential does) or not."""
        starts = [b.start for b in blocks_of(self._graph) if self._survey.may_begin(b.start)]
        borders = [0, *(s for s in starts if s), len(self._graph.layers)]
        for count in COUNTS:
            size = (len(borders) - 1) // count
            if size:
                ends = [*borders[: size * count : size], borders[-1]]
                parts = tuple(pairwise(ends))
                yield parts[:-1]
                yield parts

    def neighbours(self, option: Option) -> Iterator[Segments]:
        """Segments that differ by one change."""
        cuts = self._model.cuts
        segments = tuple((s.start, s.end) for s in option.segments)
        for i, (start, end) in enumerate(segments):
            before, after = segments[:i], segments[i + 1 :]
            yield before + after
            if after:
                yield (*before, (start, after[0][1]), *after[1:])
            for moved in self._moved(start, end, cuts):
                if (not before or before[-1][1] <= moved[0]) and (not after or moved[1] <= after[0][0]):
                    yield (*before, moved, *after)
            for cut in cuts:
                if start < cut < end and self._survey.may_begin(cut):
                    yield (*before, (start, cut), (cut, end), *after)

    def _moved(self, start: int, end: int, cuts: tuple[int, ...]) -> Iterator[Cut]:
        """A segment with one border at the next cut."""
        if start not in cuts or end not in cuts:
            return
        for n in (-1, 1):
            i, j = cuts.index(start) + n, cuts.index(end) + n
            if i >= 0 and cuts[i] < end and self._survey.may_begin(cuts[i]):
                yield cuts[i], end
            if j < len(cuts) and start < cuts[j]:
                yield start, cuts[j]
