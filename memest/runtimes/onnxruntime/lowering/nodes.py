"""A network as ONNX Runtime holds it: nodes with numbers, values with their shapes, and the order in which nodes run.

The order is that of onnxruntime/core/graph/graph_viewer.cc (``Graph::ReverseDFSFrom``, ``NodeCompare``): depth first from the nodes that
nobody reads, of several inputs the one made by the highest number first. So numbers matter: a pass that replaces a node gives the new one
the next number, in the order in which it meets them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from memest.network.dtypes import ITEMSIZE
from memest.network.tensor import Shape, numel

VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
"""Nodes whose output is another shape of their input."""
KEPT = "parameter", "buffer", "constant"  # what stands before a run


class Value:
    """A tensor: its ``category`` is ``""`` where a node makes it. ``held`` names the parameters it was made from, where it is a weight."""

    __slots__ = ("category", "dtype", "given_back", "maker", "name", "readers", "shape")

    def __init__(self, name: str, shape: Sequence[int], dtype: str, category: str = "") -> None:
        self.name, self.shape, self.dtype, self.category = name, tuple(shape), dtype, category
        self.maker: Node | None = None
        self.readers: list[Node] = []
        self.given_back = False

    @property
    def nbytes(self) -> int:
        """Its bytes, before anything rounds them."""
        return numel(self.shape) * ITEMSIZE[self.dtype]

    @property
    def is_weight(self) -> bool:
        """Whether its contents are known before a run."""
        return self.category in KEPT

    @property
    def uses(self) -> int:
        """How often it is read, the caller included."""
        return len(self.readers) + self.given_back

    def __repr__(self) -> str:
        return f"<Value {self.name} {self.shape}>"


class Node:
    """A call: ``op`` is ONNX's name, in another domain after a colon (``nchwc:Conv``). ``layer`` is that of the graph it came from."""

    __slots__ = ("attributes", "inputs", "layer", "number", "op", "outputs")

    def __init__(
        self, number: int, op: str, inputs: Sequence[Value | None], outputs: Sequence[Value], layer: str, **attributes: Any
    ) -> None:
        self.number, self.op, self.layer, self.attributes = number, op, layer, attributes
        self.inputs, self.outputs = list(inputs), list(outputs)

    @property
    def source(self) -> Value:
        """Its first input."""
        found = self.inputs[0]
        assert found is not None
        return found

    @property
    def result(self) -> Value:
        """Its first output."""
        return self.outputs[0]

    @property
    def reads(self) -> Iterator[Value]:
        """Its inputs, without those left out."""
        return (v for v in self.inputs if v is not None)

    @property
    def single_reader(self) -> Node | None:
        """The node that alone reads its only output; None where there are several, none, or the caller does."""
        return self.result.readers[0] if self.result.uses == 1 and self.result.readers else None

    def __repr__(self) -> str:
        return f"<Node {self.number} {self.op} {[v and v.name for v in self.inputs]} -> {self.outputs}>"


class Net:
    """Nodes by number, what the caller gives, and what it gets back; ``written`` is how many nodes the file has."""

    def __init__(self) -> None:
        self.written = 0
        self.nodes: dict[int, Node] = {}
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self._next = 0

    def add(self, op: str, inputs: Sequence[Value | None], outputs: Sequence[Value], layer: str, **attributes: Any) -> Node:
        """A new node, with the next number."""
        node = Node(self._next, op, inputs, outputs, layer, **attributes)
        self._next += 1
        self.nodes[node.number] = node
        for value in node.reads:
            value.readers.append(node)
        for value in node.outputs:
            value.maker = node
        return node

    def remove(self, node: Node) -> None:
        """The node goes; its outputs belong to whom they were given since."""
        del self.nodes[node.number]
        for value in node.reads:
            value.readers.remove(node)
        for value in node.outputs:
            if value.maker is node:
                value.maker = None

    def read(self, node: Node, slot: int, value: Value | None) -> None:
        """Input ``slot`` is another one now."""
        before = node.inputs[slot]
        if before is not None:
            before.readers.remove(node)
        node.inputs[slot] = value
        if value is not None:
            value.readers.append(node)

    def replace(self, olds: Iterable[Node], op: str, inputs: Sequence[Value | None], outputs: Sequence[Value], **attributes: Any) -> Node:
        """One new node for several, under the layer of the last."""
        olds = list(olds)
        for old in olds:
            self.remove(old)
        return self.add(op, inputs, outputs, olds[-1].layer, **attributes)

    def bypass(self, node: Node) -> None:
        """The node goes, and whoever read its output reads its first input."""
        source, result = node.source, node.result
        for reader in list(dict.fromkeys(result.readers)):
            for slot, value in enumerate(reader.inputs):
                if value is result:
                    self.read(reader, slot, source)
        if result.given_back:
            self.outputs[self.outputs.index(result)] = source
            source.given_back = True
        self.remove(node)

    def order(self) -> list[Node]:
        """The nodes as they run."""
        found: list[Node] = []
        seen: set[int] = set()
        stack = [(n, False) for n in self.nodes.values() if not any(v.readers for v in n.outputs)]
        stack.sort(key=lambda entry: entry[0].number)
        while stack:
            node, done = stack.pop()
            if done:
                found.append(node)
                continue
            if node.number in seen:
                continue
            seen.add(node.number)
            stack.append((node, True))
            makers = {v.maker.number: v.maker for v in node.reads if v.maker is not None}
            stack += [(makers[n], False) for n in sorted(makers) if n not in seen]
        return found


def like(value: Value, name: str, shape: Shape | None = None, dtype: str | None = None) -> Value:
    """A new value, as large as another one where nothing else is said."""
    return Value(name, value.shape if shape is None else shape, value.dtype if dtype is None else dtype)


def is_a_channel(value: Value, rank: int, channels: int) -> bool:
    """Whether it has one number for each channel of a tensor with ``rank`` dims: Cx1x1 or 1xCx1x1."""
    behind = value.shape[1:] if len(value.shape) == rank else value.shape
    return numel(value.shape) == channels and len(behind) == rank - 1 and behind[0] == channels
