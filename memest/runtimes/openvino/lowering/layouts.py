"""In which order the elements of each value lie, and the Reorders between nodes that want them otherwise.

Convolutions work with channels last (``acdb``), views and products with rows (``abcd``); the others take what they get, of two kinds the
more frequent one. A transposition that a Reorder undoes goes with it: what is left is a view.

Source: openvino/src/plugins/intel_cpu/src/node.cpp (``selectPreferPrimitiveDescriptor``), nodes/concat.cpp, graph.cpp
(``EnforceInferencePrecision``, ``ResolveEdgeConflicts``), graph_optimizer.cpp (``ShareReorders``, ``MergeTransposeAndReorder``,
``MergeReorderAndTranspose``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import NamedTuple

from memest.network.graph import Layer
from memest.network.tensor import Shape
from memest.runtimes.openvino.rows import node, telling, told

PLANAR, CHANNELS_LAST = "planar", "last"
WANT_LAST = frozenset({"Convolution", "Deconvolution"})
FOLLOW = frozenset(
    {"Concatenation", "Convert", "DepthToSpace", "Eltwise", "Interpolate", "MVN", "Pad", "Pooling", "Reduce", "ShuffleChannels", "Split"}
    | {"StridedSlice", "Subgraph", "Tile", "Transpose"}
)
FULL = "float32"
AS_THEY_ARE = frozenset({"int32", "bool"})  # what indices and conditions are, which nobody converts to anything else
IN_FULL = frozenset({"GridSample", "Math"})
MAKES_FULL = frozenset({"Reduce"})
SIGNIFICANT = frozenset({"Convolution", "FullyConnected", "MatMul", "Interpolate"})
LAST_FIRST = frozenset({"Eltwise", "Subgraph", "Tile"})
"""What prefers channels last where as many operands lie so as otherwise, or none lies anyhow yet."""


class Lying(NamedTuple):
    """How a value lies: its layout and the type of its elements."""

    layout: str
    dtype: str


class Layouts:
    """Goes through the nodes, each behind what it reads, of a network that is computed in ``precision``; ``given`` says how values lie so
    far (what is not there: in rows, as the caller gives it)."""

    def __init__(self, shapes: Mapping[str, Shape], constants: frozenset[str], precision: str) -> None:
        self.shapes, self.constants, self.precision = dict(shapes), constants, precision
        self.given: dict[str, Lying] = {}
        self.reordered: dict[tuple[str, Lying], str] = {}

    def run(self, layers: Sequence[Layer], outputs: Sequence[str]) -> tuple[list[Layer], list[str]]:
        """The nodes and Reorders, and what the network returns then. A reduction that drops dims reads any layout."""
        found: list[Layer] = []
        tail, wanted = tail_of(layers, outputs)
        for layer in layers:
            whole = told(layer, "dtype")
            dtype = whole if whole != FULL else FULL if layer.op in IN_FULL or layer.name in tail else self.precision
            layout = self._layout(layer, dtype)
            anyhow = layer.op == "Reduce" and layout == PLANAR
            reads = [self._as(name, layout, dtype, found, anyhow) for name in layer.reads]
            made = FULL if layer.op in MAKES_FULL or self._ends_full(layer, wanted) else dtype
            found.append(replace(layer, tensors=(tuple(reads),), attributes=telling(layer, layout=layout, dtype=made)))
            self.given.update(dict.fromkeys(layer.outputs, Lying(layout, made)))
        return found, [self._as(o, PLANAR, FULL, found) for o in outputs]

    def _ends_full(self, layer: Layer, wanted: set[str]) -> bool:
        """Whether who reads this wants full precision, and it can give that itself: what it took in says so, or it is a product."""
        fused = layer.op == "FullyConnected" or layer.outputs != (layer.name,)
        return layer.op in SIGNIFICANT and fused and any(o in wanted for o in layer.outputs)

    def _lying(self, name: str) -> Lying:
        return self.given.get(name, Lying(PLANAR, FULL))

    def _layout(self, layer: Layer, dtype: str) -> str:
        if layer.op in WANT_LAST:
            return CHANNELS_LAST
        shape = self.shapes[layer.outputs[0]]
        rank = len(shape)
        if layer.op == "Interpolate" and rank > 3 and shape[1] != 1:
            return CHANNELS_LAST
        if layer.op not in FOLLOW or rank < 3 or (rank == 3 and layer.op != "Pooling"):
            return PLANAR
        votes = {PLANAR: 0, CHANNELS_LAST: 0}
        for n, name in enumerate(layer.reads):
            if name not in self.constants:
                votes[self._lying(name).layout] += name in self.given or dtype == FULL
            elif n == 0:
                votes[PLANAR] += 1
        return CHANNELS_LAST if votes[CHANNELS_LAST] + (layer.op in LAST_FIRST) > votes[PLANAR] else PLANAR

    def _as(self, name: str, layout: str, dtype: str, found: list[Layer], anyhow: bool = False) -> str:
        wanted, have = Lying(layout, dtype), self._lying(name)
        if name in self.constants or have == wanted or AS_THEY_ARE & {have.dtype, dtype} or (anyhow and have.dtype == dtype):
            return name
        if (name, wanted) not in self.reordered:
            made = f"{name}:{layout}:{dtype}"
            what = layout if have.layout != layout else "convert"
            added = node(made, "Reorder", (name,), (self.shapes[name],), what=what, dtype=dtype)
            over = 0 if have.dtype == dtype and _lies_alike(self.shapes[name]) else None
            found.append(replace(added, attributes=telling(added, layout=layout, over=over)))
            self.shapes[made] = self.shapes[name]
            self.given[made] = wanted
            self.reordered[name, wanted] = made
        return self.reordered[name, wanted]


def _lies_alike(shape: Shape) -> bool:
    """Whether channels last is the same as rows: of one channel, or of one element a channel (edge.cpp, ``ReorderStatus::Optimized``)."""
    return len(shape) > 2 and (shape[1] == 1 or prod(shape[2:]) == 1)


def tail_of(layers: Sequence[Layer], outputs: Sequence[str]) -> tuple[set[str], set[str]]:
    """The nodes that lead to an output with no product behind them, which are computed in full precision; and the values wanted in it."""
    found: set[str] = set()
    wanted = set(outputs)
    for layer in reversed(layers):
        if layer.op not in SIGNIFICANT and any(o in wanted for o in layer.outputs):
            found.add(layer.name)
            wanted.update(layer.reads)
    return found, wanted


def without_cancelled(layers: Sequence[Layer], outputs: Sequence[str]) -> list[Layer]:
    """Transpositions and Reorders that undo each other become one Reorder that moves nothing (``what``: ``view``)."""
    readers: dict[str, list[Layer]] = {}
    for layer in layers:
        for name in layer.reads:
            readers.setdefault(name, []).append(layer)
    for name in outputs:
        readers.setdefault(name, []).extend([*layers[-1:], *layers[-1:]])
    gone: set[str] = set()
    changed: dict[str, Layer] = {}
    for layer in layers:
        chain = _cancelled(layer, readers)
        if chain and layer.name not in gone:
            end = chain[-1]
            gone |= {part.name for part in chain[:-1]}
            changed[end.name] = replace(
                end, op="Reorder", tensors=layer.tensors, attributes=telling(end, what="view", over=0), outputs=end.outputs
            )
    return [changed.get(layer.name, layer) for layer in layers if layer.name not in gone]


def _cancelled(layer: Layer, readers: Mapping[str, list[Layer]]) -> list[Layer]:
    chain = [layer]
    while len(chain) < 3 and len(chain[-1].outputs) == 1 and len(readers.get(chain[-1].outputs[0], ())) == 1:
        chain.append(readers[chain[-1].outputs[0]][0])
    kinds = [part.op for part in chain]
    if layer.op == "Transpose" and kinds[:2] == ["Transpose", "Reorder"] and told(chain[1], "what") == CHANNELS_LAST:
        rank = len(told(layer, "shapes")[0])
        inner = ",".join(map(str, (0, rank - 1, *range(1, rank - 1))))
        return chain[:2] if told(layer, "layout") == PLANAR and told(layer, "what") == inner else []
    if kinds == ["Reorder", "Reshape", "Transpose"] and told(layer, "what") == PLANAR:
        before, after = told(layer, "shapes")[0], told(chain[1], "shapes")[0]
        return chain if (len(before), len(after)) == (4, 3) and after[:2] == before[:2] and told(chain[2], "what") == "0,2,1" else []
    return []
