"""Layers and parameters of an ONNX graph, written with the builder."""

from __future__ import annotations

from math import prod
from typing import Any

from memest.errors import GraphError, UnsupportedError
from memest.network.tensor import Shape
from memest.ops.operator import REQUIRED
from memest.ops.table import operator_named
from memest.sizes.dims import recording
from memest.sources.builder import Builder, Node
from memest.sources.importers.onnx.naming import Names, plain
from memest.sources.importers.onnx.values import Initial, Known, Several, Value, check_elements

MOST_LAYERS = 50_000


class Writer:
    """Writes the layers of the node whose ``home`` is set, and a parameter where its initializer is first read as a tensor."""

    def __init__(self, builder: Builder, names: Names) -> None:
        self.builder, self.names = builder, names
        self.home = ""
        self._constants: dict[int, Node] = {}
        self._held: list[Any] = []
        self._count = 0

    def layer(self, op: str, *tensors: Any, called: str = "", **attributes: Any) -> Any:
        """A call of a row; its output, or a tuple of them. What rows compare of sizes is theirs to say when they are played. ``called``:
        what its name is to end in."""
        self._count += 1
        if self._count > MOST_LAYERS:
            raise UnsupportedError(f"more than {MOST_LAYERS:,} layers")
        required = {a.name: a.default for a in operator_named(op).attributes}
        given = {k: v for k, v in attributes.items() if required.get(k, REQUIRED) is REQUIRED or v != required[k]}
        with recording(None):
            made = self.builder.layer(op, *tensors, name=self.names.layer(self.home, op, called), **given)
            for node in made if isinstance(made, tuple) else (made,):
                check_elements(node.shape, f"{op} {node.name!r}")
        return made

    def tensor(self, value: Value) -> Node:
        """The value as a tensor: a parameter, a buffer of numbers, or one made of sizes."""
        if isinstance(value, Node):
            return value
        if isinstance(value, Several):
            raise GraphError("a sequence of tensors, where a tensor is wanted")
        if isinstance(value, Initial):
            return self.parameter(value, value.shape)
        found = self._constants.get(id(value))
        if found is None:
            found = self._constants[id(value)] = self._constant(value)
            self._held.append(value)
        return found

    def parameter(self, value: Initial, shape: Shape) -> Node:
        """The parameter or buffer that an initializer is, in a shape of as many elements."""
        if shape not in value.nodes:
            if value.nodes:
                raise UnsupportedError(f"the initializer {value.name!r} is read in two shapes")
            if any(n == 0 for n in shape):
                raise GraphError(f"the initializer {value.name!r} has the sizes {list(shape)}: there is nothing in it")
            if prod(shape) != prod(value.shape):
                raise GraphError(f"the initializer {value.name!r} has the sizes {list(value.shape)}, where {list(shape)} is wanted")
            name = self.names.take(plain(value.name))
            value.nodes[shape] = self.builder.parameter(name, shape, dtype=value.dtype, buffer=not value.trainable)
        return value.nodes[shape]

    def owned(self, name: str, shape: Shape, dtype: str) -> Node:
        """A parameter that is a part of an initializer."""
        return self.builder.parameter(self.names.take(name), shape, dtype=dtype)

    def _constant(self, value: Known) -> Node:
        """Numbers of the code are in a buffer; sizes are put into a tensor when the network runs."""
        if not value.symbolic:
            name = self.names.take(f"{self.home}.constant" if self.home else "constant")
            return self.builder.parameter(name, value.shape, dtype=value.dtype, buffer=True)
        made: Node = self.layer("empty", shape=value.shape, dtype=value.dtype)
        return made


def shape_of(value: Value) -> Shape:
    """The dims of a value of any kind."""
    return tuple(value.shape)


def dtype_of(value: Value) -> str:
    """Its dtype by torch's name."""
    if isinstance(value, Several):
        raise GraphError("a sequence of tensors, where a tensor is wanted")
    return value.value.spec.dtype if isinstance(value, Node) else value.dtype
