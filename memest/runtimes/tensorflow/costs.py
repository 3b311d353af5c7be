"""How long a node takes beside others: what it reads, writes and computes. Only which of several ends first depends on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

from memest.network.tensor import Shape
from memest.runtimes.tensorflow.nodes import Node, Value

OPERATIONS = 8.0  # that a processor does in the time in which it moves a byte


def costs(nodes: Sequence[Node], given: Mapping[str, Value], operations: float = OPERATIONS) -> Callable[[Node], float]:
    """The time of a node, counted in bytes moved."""
    values = {**given, **{v.name: v for node in nodes for v in node.outputs}}

    def takes(node: Node) -> float:
        shapes = [values[name].shape for name in node.inputs]
        moved = sum(values[name].nbytes for name in node.inputs) + sum(v.nbytes for v in node.outputs)
        return moved + _computed(node, shapes) / operations

    return takes


def _computed(node: Node, shapes: Sequence[Shape]) -> int:
    """Multiplications and additions of a convolution or a product, or of its gradient."""
    made = node.outputs[0].shape if node.outputs else ()
    if "MatMul" in node.op:
        return 2 * prod(shapes[0]) * (prod(made) // made[0]) // (shapes[0][0] if shapes[0][0] != made[0] else 1)
    if "Conv" not in node.op:
        return 0
    if "BackpropFilter" in node.op:
        return 2 * prod(shapes[1]) * prod(made[:-1])
    if "BackpropInput" in node.op:
        return 2 * prod(shapes[1]) * prod(shapes[0][:-1])
    return 2 * prod(made) * prod(shapes[1][:-1])
