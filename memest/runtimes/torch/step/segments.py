"""Segments: runs of layers whose activations are not kept but computed again in backward.

A segment is what one call of ``torch.utils.checkpoint.checkpoint`` wraps. Its arguments are the values that its layers read and layers
before it made, and those that it is given without reading them; what it returns are its values that outlive it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memest.errors import UsageError
from memest.network.graph import Graph, Layer, Segment
from memest.network.segments import flat

MOST_BOUNDS = 1_024


@dataclass(frozen=True, slots=True)
class Bounds:
    """What crosses a segment's borders: values that come in, the network's own tensors it reads, values that stay alive after it; and the
    outermost contexts of autocast that begin and end inside."""

    arguments: tuple[str, ...]
    owned: tuple[str, ...]
    results: tuple[str, ...]
    scopes: frozenset[str]


def check_segments(graph: Graph, segments: Sequence[Segment]) -> None:
    """UsageError when segments are not in order, overlap, are empty, or leave the graph."""
    last = 0
    for s in segments:
        if not 0 <= s.start < s.end <= len(graph.layers):
            raise UsageError(f"segment {s.name or s} is not a run of layers; the graph has {len(graph.layers)}")
        if s.start < last:
            raise UsageError(f"segment {s.name or s} overlaps the one before it; segments do not nest and stand in order")
        last = s.end


def bounds_of(graph: Graph, layers: Sequence[Layer], segment: Segment) -> Bounds:
    """What crosses the borders of a ``segment`` of these ``layers``, the graph's or those of what runs in backward; remembered on the
    graph."""
    key = segment, layers[segment.start].name
    return graph.memo.find("bounds", key, MOST_BOUNDS, lambda: _find_bounds(graph, layers, segment))


def _find_bounds(graph: Graph, whole: Sequence[Layer], segment: Segment) -> Bounds:
    own = {p.name for p in graph.parameters}
    layers = whole[segment.start : segment.end]
    made: dict[str, None] = {}
    read: dict[str, None] = {}
    given: dict[int, tuple[str, ...]] = {}
    for s in flat([segment]):
        given[s.start] = (*given.get(s.start, ()), *s.call.arguments)
    for i, layer in enumerate(layers, segment.start):
        read.update((name, None) for name in (*given.get(i, ()), *layer.reads) if name not in made)
        made.update((name, None) for name in layer.outputs)
    gone = {name for layer in layers for name in layer.drops}
    return Bounds(
        arguments=tuple(n for n in read if n not in own),
        owned=tuple(n for n in read if n in own),
        results=tuple(n for n in made if n not in gone or n in segment.call.results),
        scopes=_scopes_inside(whole, segment),
    )


def _scopes_inside(layers: Sequence[Layer], segment: Segment) -> frozenset[str]:
    """A network's own checkpoint begins the names of those inside it with its own; of one put around layers it is all that are whole."""
    inside = {c.scope for layer in layers[segment.start : segment.end] for c in layer.autocast}
    if layers[segment.start].checkpoint is not None:
        return frozenset(s for s in inside if s.startswith(f"{segment.name}."))
    others = (*layers[: segment.start], *layers[segment.end :])
    return frozenset(inside - {c.scope for layer in others for c in layer.autocast})
