"""Which sizes a recorded network is free in: those at which it is found to be the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from memest.network.graph import Graph
from memest.sizes.conditions import Conditions, reduced
from memest.sizes.dims import Guard, symbol
from memest.sizes.variation import one_by_one, varied

Agrees = Callable[[Mapping[str, int]], bool | None]


def described_where(graph: Graph, agrees: Agrees) -> Graph:
    """The graph, with the sizes as conditions of it that it is not free in. ``agrees`` says of other sizes whether the network is the same
    there, or None where it cannot be."""
    sizes = dict(graph.examples)
    conditions: Conditions = graph.memo.find("conditions", None, 1, lambda: reduced(graph.guards, sizes))
    fixed: frozenset[str] = frozenset()
    while True:
        other = varied(conditions, sizes, without=fixed)
        if other is None or agrees(other) is not False:
            break
        parts = list(one_by_one(conditions, sizes, other))
        blamed = frozenset[str]().union(*(names for names, at in parts if agrees(at) is False))
        fixed |= blamed or frozenset(s for s in sizes if other[s] != sizes[s])
    return graph.with_(guards=(*graph.guards, *(Guard("==", symbol(s), sizes[s]) for s in sizes if s in fixed))) if fixed else graph
