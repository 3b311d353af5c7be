"""What Keras's tensors are in the graph: torch's order of dims, channels first, wherever a layer works on images; Keras's own elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from memest.errors import UnsupportedError
from memest.sizes.dims import recording
from memest.sources.builder import Builder, Node


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor: ``node`` in the graph, whose second dim is Keras's last where it is ``moved``."""

    node: Node
    moved: bool = False

    @property
    def rank(self) -> int:
        """How many dims it has, the batch among them."""
        return len(self.node.shape)

    def axis(self, axis: int) -> int:
        """Keras's ``axis`` in the graph's order. UnsupportedError for one that is not there."""
        if not -self.rank <= axis < self.rank:
            raise UnsupportedError(f"axis {axis} of a tensor with {self.rank} dims")
        axis %= self.rank
        if not self.moved or axis == 0:
            return axis
        return 1 if axis == self.rank - 1 else axis + 1


class Orders:
    """Views of a tensor in the other order of dims, under the name of the layer that asks for them."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder

    def moved(self, value: Value, name: str) -> Value:
        """With the channels second."""
        if value.moved or value.rank < 3:
            return value
        dims = (0, value.rank - 1, *range(1, value.rank - 1))
        return Value(self._permuted(value.node, dims, f"{name}.channels_first"), True)

    def plain(self, value: Value, name: str) -> Value:
        """In Keras's order."""
        if not value.moved:
            return value
        dims = (0, *range(2, value.rank), 1)
        return Value(self._permuted(value.node, dims, f"{name}.channels_last"), False)

    def alike(self, values: Sequence[Value], name: str) -> list[Value]:
        """All in one order: with the channels second where one of them is so."""
        if not any(v.moved for v in values):
            return list(values)
        return [self.moved(v, f"{name}.{n}" if len(values) > 1 else name) for n, v in enumerate(values)]

    def _permuted(self, node: Node, dims: tuple[int, ...], name: str) -> Any:
        return written(self._builder, "permute", node, dims=dims, name=name)


def written(builder: Builder, op: str, *nodes: Any, **attributes: Any) -> Any:
    """A layer of the graph. What rows compare of sizes is theirs to say when they are played."""
    with recording(None):
        return builder.layer(op, *nodes, **attributes)
