"""Which nodes write over what they read, or look at a part of it.

Source: openvino/src/plugins/intel_cpu/src/nodes/eltwise.cpp and subgraph.cpp (``canBeInPlace``), softmax.cpp, mvn.cpp, reshape.cpp,
gather.cpp (``resolveInPlaceEdges``), split.cpp, concat.cpp, edge.cpp (``enforceReorder``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from math import prod

from memest.network.graph import Layer
from memest.network.tensor import Shape
from memest.runtimes.openvino.rows import node, telling, told

ALWAYS = frozenset({"Reshape", "Softmax"})
ELEMENTWISE = frozenset({"Eltwise", "Subgraph"})
PARTS = frozenset({"Gather", "Split"})


def in_place(layers: Sequence[Layer], outputs: Sequence[str], inputs: Sequence[str], shapes: Mapping[str, Shape]) -> list[Layer]:
    """The nodes with ``over`` and ``room`` set, and a copy before each that would write over a part of something."""
    state = _State(layers, outputs, inputs, shapes)
    for layer in layers:
        state.put(layer)
    return list(state.found.values())


class _State:
    """The nodes so far, by name; ``parts`` are values that are a part of another. What a softmax wrote over its input is copied, too."""

    def __init__(self, layers: Sequence[Layer], outputs: Sequence[str], inputs: Sequence[str], shapes: Mapping[str, Shape]) -> None:
        self.makers = {value: layer for layer in layers for value in layer.outputs}
        self.inputs, self.shapes = frozenset(inputs), dict(shapes)
        self.found: dict[str, Layer] = {}
        self.parts: set[str] = set()
        self.readers: dict[str, int] = {}
        for name in (*(name for layer in layers for name in layer.reads), *outputs):
            self.readers[name] = self.readers.get(name, 0) + 1

    def put(self, layer: Layer) -> None:
        """One node more, behind what it reads."""
        first = layer.reads[0] if layer.reads else ""
        if told(layer, "over") is not None:
            if first in self.inputs:
                self.inputs |= {*layer.outputs}
            self.found[layer.name] = layer
            return
        if layer.op == "Concatenation" and self._joins(layer):
            self._join(layer)
            return
        writes = layer.op in ELEMENTWISE and _elementwise(layer, self.makers, self.readers, self.inputs, self.shapes)
        if writes and (first in self.parts or self.makers[first].op == "Softmax"):
            layer = replace(layer, tensors=((self._copy(first, layer), *layer.reads[1:]),))
        if layer.op == "MVN":
            writes = first in self.makers and sum(self.readers.get(v, 0) for v in self.makers[first].outputs) == 1
        looks = layer.op in PARTS and _is_leading(layer, self.shapes[first])
        if layer.op in ALWAYS or writes or looks:
            layer = replace(layer, attributes=telling(layer, over=0))
        if looks:
            self.parts.update(layer.outputs)
        self.found[layer.name] = layer

    def _copy(self, value: str, reader: Layer) -> str:
        made = f"{value}:copy:{reader.name}"
        self.found[made] = node(made, "Reorder", (value,), (self.shapes[value],), what="copy", dtype=told(reader, "dtype"))
        self.shapes[made], self.readers[made] = self.shapes[value], 1
        return made

    def _joins(self, layer: Layer) -> bool:
        """Whether what is joined can be made where it will lie: one piece behind the other, each of them made in the call."""
        made = all(name in self.makers for name in layer.reads)
        return made and len(set(layer.reads)) == len(layer.reads) and _is_leading(layer, self.shapes[layer.outputs[0]])

    def _join(self, layer: Layer) -> None:
        pieces = [self._own(name, layer) for name in layer.reads]
        places = {name: n for n, name in enumerate(self.found)}
        makers = {piece: next(m for m in self.found.values() if piece in m.outputs) for piece in pieces}
        owner = min(pieces, key=lambda piece: places[makers[piece].name])
        for piece, maker in makers.items():
            if piece == owner:
                changed = replace(maker, attributes=telling(maker, room=prod(self.shapes[layer.outputs[0]])))
            else:
                changed = replace(maker, tensors=((*maker.reads, owner),), attributes=telling(maker, over=len(maker.reads)))
            self.found[maker.name] = changed
        over = telling(layer, over=pieces.index(owner))
        self.found[layer.name] = replace(layer, tensors=(tuple(pieces),), attributes=over)

    def _own(self, value: str, layer: Layer) -> str:
        """A piece that nobody else has: the value itself, or a copy."""
        maker = self.found[self.makers[value].name]
        own = self.readers[value] == 1 and len(maker.outputs) == 1 and told(maker, "over") is None and told(maker, "room") is None
        return value if own else self._copy(value, layer)


def _elementwise(
    layer: Layer, makers: Mapping[str, Layer], readers: Mapping[str, int], inputs: Collection[str], shapes: Mapping[str, Shape]
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
    return all(n == 1 for n in shape[: int(told(layer, "what").split()[1])])
