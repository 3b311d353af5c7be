"""What backward computes under ``create_graph=True``, as the engine asks for it: every step of it is a call that autograd records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from memest.network.tensor import Spec
from memest.runtimes.torch.autograd.nodes import Node
from memest.runtimes.torch.ledger import Value


class Created(Protocol):
    """Gradients that come and go are held."""

    def backward_of(self, node: Node, grads: Sequence[Value | None], needs: Sequence[bool], create: bool) -> list[Value | None]:
        """The gradients of a node's inputs, computed by calls that are recorded (``create``) or not. UnsupportedError where nothing says
        which calls these are."""

    def fitted(self, gradient: Value, wanted: Spec) -> Value:
        """The gradient summed to the shape it was broadcast from, and in its dtype."""

    def total(self, old: Value, new: Value) -> Value:
        """Their sum, a new tensor; ``old`` is let go of."""

    def copy(self, gradient: Value, spec: Spec) -> Value:
        """A copy that lies as ``spec`` says."""
