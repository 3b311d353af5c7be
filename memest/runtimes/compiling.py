"""A step played once with symbolic sizes, and the table that is left of it (:mod:`memest.memory.live_sets`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from memest.memory.live_sets import LiveSets, live_sets
from memest.memory.stream import Stream
from memest.network.graph import Graph
from memest.network.tensor import Shape
from memest.runtimes.table import play
from memest.runtimes.torch.step import Recipe
from memest.sizes.conditions import reduced
from memest.sizes.dims import Dim, Expr, Guard, expression, recording, symbol

DIRECT_PLAYS = 2  # sizes played directly before a graph is compiled for a recipe: compiling costs some five plays
MOST_RECIPES = 32  # of a graph, whose programs are kept
MOST_PROGRAMS = 64  # of a recipe; sizes that none of them takes are played


class Programs:
    """What is known of one recipe: how many sizes were played because no program took them, and the ``known`` programs."""

    __slots__ = ("known", "played")

    def __init__(self) -> None:
        self.known: tuple[LiveSets, ...] = ()
        self.played = 0


def programs_of(graph: Graph, recipe: Recipe) -> Programs:
    """The programs of ``graph`` for ``recipe``, remembered on the graph."""
    return graph.memo.find("programs", recipe, MOST_RECIPES, Programs)


def tries_plans(recipe: Recipe) -> bool:
    """Whether libraries try their plans in the step, in buffers that are no formula."""
    cuda = recipe.target.cuda
    return cuda is not None and cuda.benchmark and recipe.step == 1


def play_symbols(
    graph: Graph, input_shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Recipe, guards: dict[Guard, None]
) -> Stream:
    """The step with symbolic sizes, whose numbers are those given; ``guards`` collects the comparisons made on the way, also when the
    network cannot run at these sizes."""
    symbolic = {name: Dim(n, symbol(name)) for name, n in sizes.items()}
    shapes: dict[str, Shape] = {}
    for i in graph.inputs:
        shapes[i.name] = tuple(Dim(n, d) if isinstance(d, Expr) else n for d, n in zip(i.shape, input_shapes[i.name], strict=True))
    with recording(guards):
        return play(graph, shapes, symbolic, recipe, remember=False)


def compile_program(
    graph: Graph,
    input_shapes: Mapping[str, Shape],
    sizes: Mapping[str, int],
    recipe: Recipe,
    guards: dict[Guard, None] | None = None,
) -> LiveSets:
    """Play the step with symbolic sizes (at the given example) and keep what does not depend on the example. ``guards`` is that of
    :func:`play_symbols`."""
    symbols = tuple(sizes)
    guards = {} if guards is None else guards
    timeline = play_symbols(graph, input_shapes, sizes, recipe, guards)
    held = [s.nbytes for s in timeline.residents]
    with recording(guards):
        resident: Any = sum(n for n in held if isinstance(n, Dim)) + sum(n for n in held if not isinstance(n, Dim))
    table = live_sets(timeline.events, expression(resident), symbols, reduced(guards, symbols))
    return replace(table, residents=timeline.residents, values=timeline.values)
