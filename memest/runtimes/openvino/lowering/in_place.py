"""Which nodes write over what they read, or look at a part of it.

Source: openvino/src/plugins/intel_cpu/src/nodes/eltwise.cpp and subgraph.cpp (``canBeInPlace``), softmax.cpp, reshape.cpp, gather.cpp
(``resolveInPlaceEdges``), split.cpp, concat.cpp, edge.cpp (``enforceReorder``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from memest.network.graph import Layer
from memest.network.tensor import Shape
from memest.runtimes.openvino.rows import node, telling, told

ALWAYS = frozenset({"Reshape", "Softmax"})
ELEMENTWISE = frozenset({"Eltwise", "Subgraph"})
PARTS = frozenset({"Gather", "Split"})


def in_place(layers: Sequence[Layer], outputs: Sequence[str], inputs: Sequence[str], shapes: Mapping[str, Shape]) -> list[Layer]:
    """The nodes with ``over`` set, and a copy before each that would write over a part of something."""
    makers = {value: layer for layer in layers for value in layer.outputs}
    readers: dict[str, int] = {}
    for layer in layers:
        for name in layer.reads:
            readers[name] = readers.get(name, 0) + 1
    for name in outputs:
        readers[name] = readers.get(name, 0) + 1
    found: list[Layer] = []
    parts: set[str] = set()
    for layer in layers:
        if told(layer, "over") is not None:
            found.append(layer)
            continue
        first = layer.reads[0] if layer.reads else ""
        writes = layer.op in ELEMENTWISE and _elementwise(layer, makers, readers, inputs, shapes)
        if writes and first in parts:
            copy = node(f"{first}:copy", "Reorder", (first,), (shapes[first],), what="copy", dtype=told(layer, "dtype"))
            found.append(copy)
            layer = replace(layer, tensors=((copy.outputs[0], *layer.reads[1:]),))
        looks = layer.op in PARTS and _is_leading(layer, shapes[first])
        if layer.op in ALWAYS or writes or looks:
            layer = replace(layer, attributes=telling(layer, over=0))
        if looks:
            parts.update(layer.outputs)
        found.append(layer)
    return found


def _elementwise(
    layer: Layer, makers: Mapping[str, Layer], readers: Mapping[str, int], inputs: Sequence[str], shapes: Mapping[str, Shape]
) -> bool:
    """Written over the first operand, where every operand is read here alone and that has the shape of the result."""
    first = layer.reads[0]
    if first in inputs or first not in makers or len(layer.outputs) > 1 or shapes[first] != shapes[layer.outputs[0]]:
        return False
    for name in layer.reads:
        maker = makers.get(name)
        siblings = (name,) if maker is None else maker.outputs
        if sum(readers.get(value, 0) for value in siblings) != 1:
            return False
        if maker is not None and maker.op == "Concatenation":
            whole = [v for part in maker.reads for v in (makers[part].outputs if part in makers else (part,))]
            if any(readers.get(value, 0) != 1 for value in whole):
                return False
    return True


def _is_leading(layer: Layer, shape: Shape) -> bool:
    """Whether the parts lie one after the other: no dim before theirs has more than one element."""
    if told(layer, "layout") != "planar" or not told(layer, "what").startswith("axis "):
        return False
    return all(n == 1 for n in shape[: int(told(layer, "what")[5:])])
