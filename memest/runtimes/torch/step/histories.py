"""The histories of tensors that a node kept: behind which node each hangs when backward unpacks it under ``create_graph=True``.

Source: torch/csrc/autograd/saved_variable.cpp (``unpack``), python_function.cpp (``unpack_saved_variables``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from memest.runtimes.torch.autograd import AccumulateGrad, Node
from memest.runtimes.torch.ledger import Value


class Body(ABC):
    """A backward that is no row's: what the engine runs at its node."""

    @abstractmethod
    def __call__(self, node: Node, grads: list[Value | None]) -> list[Value | None]:
        """The gradients of the node's inputs (held), without a graph."""

    @abstractmethod
    def created(self, node: Node, grads: list[Value | None]) -> list[Value | None]:
        """The same, recorded. UnsupportedError where torch has no way, or none is known."""


def hung(value: Value, node: Any, output: int) -> Value:
    """A tensor behind the output of a node."""
    if isinstance(node, Node):
        node.refs += 1
    value.node, value.output_nr, value.requires_grad = node, output, True
    return value


def of_input(value: Value, node: Node, slot: int) -> Value:
    """A kept input: it hangs where the node's edge leads."""
    edge = node.edges[slot] if slot < len(node.edges) else None
    if edge is None:
        return value
    target, nr = edge
    if isinstance(target, AccumulateGrad) and target.value.spec == value.spec and target.value.storage is value.storage:
        return target.value
    return hung(value, target, nr)
