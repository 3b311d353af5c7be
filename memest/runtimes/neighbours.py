"""Sizes near those asked at which a network runs, for the error that says it does not run there.

Promises nothing it has not played: the sizes it names are the nearest multiples of the smallest power of two of which two in a row run;
where what lies between them runs, too, it is size that is missing, and the least that runs is named; where a batch of 2 runs, that.
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
    """``use multiples of 16: 240 or 256``, ``use a batch of 2 or more``, ``use H = 33, W = 33 or more``; None where no such sizes are
    found."""
    first = [d.text for d in graph.inputs[0].shape[:1] if isinstance(d, Expr)]
    names = [s for s in sizes if s not in first]
    alone = [s for s in first if sizes.get(s) == 1]
    if alone and _runs(graph, {**sizes, **dict.fromkeys(alone, 2)}, recipe):
        return "use a batch of 2 or more"
    for m in MULTIPLES:
        below = {s: sizes[s] // m * m for s in names}
        above = {s: -(-sizes[s] // m) * m for s in names}
        smaller = all(below.values())
        others = below if smaller else {s: n + m for s, n in above.items()}
        if below != above and all(_runs(graph, {**sizes, **near}, recipe) for near in (above, others)):
            if _runs(graph, {**sizes, **{s: n + 1 for s, n in above.items()}}, recipe):
                return _larger(graph, sizes, above, recipe)
            found = {s: (below[s], above[s]) if smaller else (above[s],) for s in names if below[s] != above[s]}
            texts = {s: " or ".join(map(str, values)) for s, values in found.items()}
            alike = len(names) == len(texts) and len(set(texts.values())) == 1
            return f"use multiples of {m}: {next(iter(texts.values())) if alike else ', '.join(f'{s}={t}' for s, t in texts.items())}"
    return None


def _larger(graph: Graph, sizes: Mapping[str, int], enough: Mapping[str, int], recipe: Recipe) -> str:
    """The least sizes that run, of those between ``sizes``, which do not, and ``enough``."""
    low, high = 0, max(n - sizes[s] for s, n in enough.items())
    found = dict(enough)
    while high - low > 1:
        middle = (low + high) // 2
        near = {s: min(n, sizes[s] + middle) for s, n in enough.items()}
        if _runs(graph, {**sizes, **near}, recipe):
            high, found = middle, near
        else:
            low = middle
    return f"use {', '.join(f'{s} = {n}' for s, n in found.items())} or more"


def _runs(graph: Graph, sizes: Mapping[str, int], recipe: Recipe) -> bool:
    try:
        shapes = {i.name: resolve(i.shape, sizes) for i in graph.inputs}
        play(graph, shapes, bind(graph.inputs, shapes), recipe)
    except MemestError:
        return False
    return all(g.holds(sizes) for g in graph.guards)
