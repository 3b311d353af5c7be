"""The step of an estimate and the first one before it, each played once, and only where it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from memest.memory.listing import Listing, listed
from memest.memory.stream import Stream
from memest.network.graph import Graph
from memest.network.tensor import Shape
from memest.runtimes.compiling import DIRECT_PLAYS, MOST_PROGRAMS, MOST_RECIPES
from memest.runtimes.lowering import Lowered, lowered
from memest.runtimes.table import play
from memest.runtimes.torch.step import Recipe


class TheSteps:
    """The steps of one question (:class:`memest.runtimes.runtime.Steps`)."""

    def __init__(self, graph: Graph, shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Recipe) -> None:
        self.graph, self.shapes, self.sizes, self.recipe = graph, shapes, sizes, recipe
        self._streams: dict[Recipe, Stream] = {}
        self._listings: dict[Recipe, Listing] = {}

    @property
    def is_first(self) -> bool:
        return self.recipe.step == 1

    @property
    def keeps_gradients(self) -> bool:
        return self.recipe.keep_grads

    @property
    def converted(self) -> frozenset[str]:
        found = {p.name for p in self.graph.parameters if p.layout == "channels_last"}
        return frozenset(found | {i.name for i in self.graph.inputs if i.layout == "channels_last"})

    @property
    def listing(self) -> Mapping[str, int]:
        layers = (layer for graph in (self.graph.inference, self.graph) if graph is not None for layer in graph.layers)
        return {layer.name: len(names) for layer in layers for names in layer.tensors if isinstance(names, tuple)}

    @property
    def whole(self) -> bool:
        return self.graph.step

    @property
    def distributed(self) -> bool:
        return self.recipe.parallel is not None

    def asked(self) -> Stream:
        return self._played(self.recipe)

    def first(self) -> Stream:
        return self._played(replace(self.recipe, step=1))

    def listed(self) -> tuple[Listing, Listing]:
        return self._listed(replace(self.recipe, step=1)), self.listed_asked()

    def listed_asked(self) -> Listing:
        """The step asked about by number."""
        return self._listed(self.recipe)

    def _played(self, recipe: Recipe) -> Stream:
        found = self._streams.get(recipe)
        if found is None:
            found = self._streams[recipe] = play(self.graph, self.shapes, self.sizes, recipe)
        return found

    def _listed(self, recipe: Recipe) -> Listing:
        found = self._listings.get(recipe)
        if found is None:
            found = self._listings[recipe] = self._compiled(recipe) or listed(self._played(recipe))
        return found

    def _compiled(self, recipe: Recipe) -> Listing | None:
        """From the compiled step, once a graph was asked about at several sizes; None where none says it."""
        steps: LoweredSteps = self.graph.memo.find("lowered", recipe, MOST_RECIPES, LoweredSteps)
        for step in steps.known:
            found = step.at(self.sizes)
            if found is not None:
                return found
        steps.played += 1
        if steps.played <= DIRECT_PLAYS or not steps.can_be or len(steps.known) >= MOST_PROGRAMS:
            return None
        with self.graph.memo.busy:
            made = lowered(self.graph, self.shapes, self.sizes, recipe)
            if made is None:
                steps.can_be = False
                return None
            steps.known = (*steps.known, made)
        return made.at(self.sizes)


class LoweredSteps:
    """What is known of one recipe: how many sizes were played because no compiled step took them, the ``known`` ones, and whether
    there can be one."""

    __slots__ = ("can_be", "known", "played")

    def __init__(self) -> None:
        self.known: tuple[Lowered, ...] = ()
        self.played = 0
        self.can_be = True
