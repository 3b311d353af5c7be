"""Segments by name: a module path stands for the run of layers whose names begin with it.

A block is what networks repeat: the numbered child of a module (``layer1.0``, ``features.3``, ``denseblock1.denselayer2``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise

from memest.errors import UnknownNameError, UsageError, did_you_mean
from memest.network.graph import Graph, Layer, Segment


def segment_of(graph: Graph, path: str) -> Segment:
    """The layers of module ``path``, or of the range ``first..last``; UsageError when they do not run one after the other."""
    if ".." in path:
        return _range(graph, path)
    found = [i for i, layer in enumerate(graph.layers) if _belongs(layer.name, path)]
    if not found:
        raise UnknownNameError(f"the graph has no module {path!r}{did_you_mean(path, modules_of(graph))}")
    start, end = found[0], found[-1] + 1
    if len(found) != end - start:
        between = next(layer.name for layer in graph.layers[start:end] if not _belongs(layer.name, path))
        raise UsageError(f"the layers of module {path!r} do not run one after the other: {between!r} runs between them")
    return Segment(start, end, path)


def _range(graph: Graph, text: str) -> Segment:
    first, last = (_layer(graph, path) or segment_of(graph, path) for path in text.split("..", 1))
    if last.end <= first.start:
        raise UsageError(f"in {text!r} the last layer runs before the first")
    return Segment(first.start, last.end, text)


def _layer(graph: Graph, name: str) -> Segment | None:
    return next((Segment(i, i + 1, name) for i, layer in enumerate(graph.layers) if layer.name == name), None)


def segments_of(graph: Graph, paths: Sequence[str]) -> tuple[Segment, ...]:
    """The segments of several modules, in the order they run; UsageError when one contains another or is named twice."""
    found = sorted(segment_of(graph, path) for path in paths)
    for one, other in pairwise(found):
        if other.start < one.end:
            raise UsageError(f"modules {one.name!r} and {other.name!r} overlap: nested checkpoints are not modelled; give one of them")
    return tuple(found)


def modules_of(graph: Graph) -> tuple[str, ...]:
    """Every module path in the layers' names, layers themselves included, in order of appearance."""
    paths: dict[str, None] = {}
    for layer in graph.layers:
        parts = layer.name.split(".")
        paths.update((".".join(parts[:n]), None) for n in range(1, len(parts) + 1))
    return tuple(paths)


def blocks_of(graph: Graph) -> tuple[Segment, ...]:
    """The blocks of at least two layers that run one after the other."""
    runs = [(key, list(members)) for key, members in groupby(enumerate(graph.layers), key=lambda item: _block(item[1].name))]
    names = [key for key, _ in runs if key]
    return tuple(
        Segment(members[0][0], members[-1][0] + 1, key) for key, members in runs if key and len(members) > 1 and names.count(key) == 1
    )


def every(graph: Graph, count: int) -> tuple[Segment, ...]:
    """Segments of ``count`` blocks each (the last may have fewer), with what lies between those."""
    blocks = blocks_of(graph)
    if not blocks:
        raise UsageError(f"{graph.name}: no blocks found (numbered modules such as layer1.0); name the modules instead")
    groups = [blocks[i : i + count] for i in range(0, len(blocks), count)]
    return tuple(named(graph, group[0].start, group[-1].end) for group in groups)


def named(graph: Graph, start: int, end: int) -> Segment:
    """The segment under the name of the outermost module that it is, or as a range of layers."""
    first, last = graph.layers[start].name, graph.layers[end - 1].name
    parts = first.split(".")
    for n in range(1, len(parts) + 1):
        path = ".".join(parts[:n])
        if _is_module(graph, path, start, end):
            return Segment(start, end, path)
    return Segment(start, end, f"{first}..{last}")


def _is_module(graph: Graph, path: str, start: int, end: int) -> bool:
    inside = (_belongs(layer.name, path) for layer in graph.layers[start:end])
    return all(inside) and not any(_belongs(layer.name, path) for layer in _outside(graph, start, end))


def _outside(graph: Graph, start: int, end: int) -> tuple[Layer, ...]:
    return (*graph.layers[:start], *graph.layers[end:])


def _belongs(layer: str, path: str) -> bool:
    return layer == path or layer.startswith(f"{path}.")


def _block(layer: str) -> str:
    """The path of the block a layer is in: up to its first numbered part, and the numbered ones right after that ("" when in none)."""
    parts = layer.split(".")[:-1]
    first = next((i for i, part in enumerate(parts) if part[-1:].isdigit()), None)
    if first is None:
        return ""
    last = first
    while last + 1 < len(parts) and parts[last + 1][-1:].isdigit():
        last += 1
    return ".".join(parts[: last + 1])
