"""Sizes near those asked at which a network runs, for the error that says it does not run there.

Promises nothing it has not played: the sizes it names are the nearest multiples of the smallest power of two of which two in a row run.
"""

from __future__ import annotations

from collections.abc import Mapping

from memest.errors import MemestError
from memest.network.binding import bind
from memest.network.graph import Graph
from memest.runtimes.table import play
from memest.runtimes.torch.step.recipe import Recipe
from memest.sizes.dims import Expr, resolve

MULTIPLES = (2, 4, 8, 16, 32, 64, 128)


def sizes_that_run(graph: Graph, sizes: Mapping[str, int], recipe: Recipe) -> str | None:
    """``use multiples of 16: 240 or 256``; None where no such sizes are found. The batch is left as it is."""
    first = graph.inputs[0].shape[:1]
    names = [s for s in sizes if not any(isinstance(d, Expr) and d.text == s for d in first)]
    for m in MULTIPLES:
        below = {s: sizes[s] // m * m for s in names}
        above = {s: -(-sizes[s] // m) * m for s in names}
        smaller = all(below.values())
        others = below if smaller else {s: n + m for s, n in above.items()}
        if below != above and all(_runs(graph, {**sizes, **near}, recipe) for near in (above, others)):
            found = {s: (below[s], above[s]) if smaller else (above[s],) for s in names if below[s] != above[s]}
            texts = {s: " or ".join(map(str, values)) for s, values in found.items()}
            alike = len(names) == len(texts) and len(set(texts.values())) == 1
            return f"use multiples of {m}: {next(iter(texts.values())) if alike else ', '.join(f'{s}={t}' for s, t in texts.items())}"
    return None


def _runs(graph: Graph, sizes: Mapping[str, int], recipe: Recipe) -> bool:
    try:
        shapes = {i.name: resolve(i.shape, sizes) for i in graph.inputs}
        play(graph, shapes, bind(graph.inputs, shapes), recipe)
    except MemestError:
        return False
    return all(g.holds(sizes) for g in graph.guards)
