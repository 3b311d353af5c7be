"""The shapes that a graph's inputs are given: those asked for, or the usual ones, and whether the graph holds at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from memest.errors import UsageError, one_of
from memest.network.graph import Graph
from memest.network.tensor import Shape
from memest.shown import middle
from memest.sizes.conditions import Conditions, reduced
from memest.sizes.dims import resolve

InputShape = Sequence[int] | Sequence[Sequence[int]] | Mapping[str, Sequence[int]]


def check_guards(graph: Graph, sizes: Mapping[str, int]) -> None:
    """UsageError where the network would take another path than the one described."""
    conditions: Conditions = graph.memo.find("conditions", None, 1, lambda: reduced(graph.guards, sizes))
    if not conditions.hold(sizes):
        broken = middle(str(next(g for g in graph.guards if not g.holds(sizes))), 120)
        raise UsageError(
            f"{graph.name}: described for sizes where {broken}; it may run differently here: import it again at this input shape"
        )


def input_shapes(graph: Graph, given: InputShape | None) -> dict[str, Shape]:
    """The concrete shape of every input; UsageError when they do not fit the graph's inputs."""
    names = [i.name for i in graph.inputs]
    if given is None:
        shapes = [i.shape for i in graph.inputs]
    elif isinstance(given, Mapping):
        for name in given:
            if name not in names:
                raise UsageError(f"the graph has no input {name!r}{one_of(str(name), names)}")
        missing = [n for n in names if n not in given]
        if missing:
            raise UsageError(f"no shape is given for input {missing[0]!r}")
        shapes = [tuple(given[n]) for n in names]
    elif given and isinstance(given[0], Sequence):
        shapes = [tuple(s) for s in given]  # type: ignore[arg-type]
    else:
        shapes = [tuple(given)]  # type: ignore[arg-type]
    if len(shapes) != len(names):
        raise UsageError(f"the graph has {len(names)} inputs ({', '.join(names)}), {len(shapes)} shapes are given")
    return dict(zip(names, shapes, strict=True))  # type: ignore[arg-type]


def usual_shapes(graph: Graph, mode: str, runtime: str) -> dict[str, Shape] | None:
    """The shapes of the inputs as the network's makers use them; None where nothing says it."""
    if graph.usual is None:
        return None
    sizes = dict(graph.usual.way(mode, runtime).sizes)
    return {i.name: resolve(i.shape, sizes) for i in graph.inputs}
