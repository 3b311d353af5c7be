"""Where a layer's operations go: the net, the values that layers have given so far, and the names that Keras gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memest.errors import UnsupportedError
from memest.network.graph import Graph, Layer
from memest.network.tensor import Shape, Spec
from memest.runtimes.rewriting import attributes_of, bound
from memest.runtimes.tensorflow.nodes import Net, Value

PARTS = frozenset({"depthwise", "pointwise", "pad", "relu"})
"""Of a layer that the importer writes as several, none of which has its name."""


def channels_last(shape: Shape) -> Shape:
    """Keras's order of dims, from torch's."""
    return shape if len(shape) < 3 else (shape[0], *shape[2:], shape[1])


class Place:
    """The network so far. ``turned`` are the values that stand in torch's order in the graph and in Keras's here."""

    def __init__(self, graph: Graph, specs: Mapping[str, Spec], sizes: Mapping[str, int], training: bool) -> None:
        self.net = Net()
        self.graph, self.specs, self.sizes, self.training = graph, specs, sizes, training
        self.values: dict[str, Value] = {}
        self.turned: set[str] = set()
        self.padded: dict[str, str] = {}
        self.trainable: list[str] = []
        self._layers = {layer.name for layer in graph.layers}
        self.frozen = {p.name for p in graph.parameters if not p.trainable or p.buffer}
        self._parameters = {p.name for p in graph.parameters}

    def at(self, layer: Layer) -> Here:
        """A layer with its operations' place."""
        owner, _, last = layer.name.rpartition(".")
        self.net.layer = layer.name
        return Here(self, layer, owner if last in PARTS or (owner in self._layers and last) else layer.name)

    def give(self, name: str, value: Value, turned: bool) -> None:
        """A layer's output is there."""
        self.values[name] = value
        if turned:
            self.turned.add(name)

    def variable(self, name: str, shape: Shape) -> None:
        """A parameter, in the shape that Keras has for it."""
        if name in self.net.variables:
            return
        trained = name not in self.frozen
        self.net.variable(name, shape, "float32", "parameter" if trained else "buffer")
        if trained:
            self.trainable.append(name)

    def is_layer(self, name: str) -> bool:
        """Whether a name is that of a layer."""
        return name in self._layers

    def is_parameter(self, name: str) -> bool:
        """Whether a name is that of a parameter."""
        return name in self._parameters


class Here:
    """One layer: what it reads, its attributes, and the operations that it becomes."""

    def __init__(self, place: Place, layer: Layer, scope: str) -> None:
        self.place, self.net, self.layer, self.scope = place, place.net, layer, scope
        self.given: dict[str, Any] = attributes_of(layer, place.sizes)
        self.roles = bound(layer)
        self.training = place.training and self.given.get("training") is not False

    def value(self, role: str = "input") -> Value:
        """The tensor of a role."""
        name = self.roles[role]
        assert isinstance(name, str)
        return self.of(name)

    def of(self, name: str) -> Value:
        """The tensor of a name; UnsupportedError for a parameter that is trained, read where Keras's layer has none."""
        if name not in self.place.values and self.place.is_parameter(name):
            if name not in self.place.frozen:
                raise UnsupportedError(f"reads the parameter {name!r} in a layer that has none in Keras")
            shape = channels_last(self.shape(name))
            self.place.variable(name, shape)
            read = self.op("ReadVariableOp", f"{name.rpartition('.')[2]}/ReadVariableOp", [], shape, variable=name)
            self.place.give(name, read, len(shape) > 2)
        return self.place.values[name]

    def shape(self, name: str) -> Shape:
        """The shape of a value in torch's order."""
        return self.place.specs[name].shape

    def is_turned(self, role: str = "input") -> bool:
        """Whether a tensor's channels stand last here and second in the graph."""
        return self.roles[role] in self.place.turned

    def axis(self, dim: int, role: str = "input") -> int:
        """torch's dim in Keras's order."""
        rank = len(self.value(role).shape)
        dim %= rank
        if not self.is_turned(role) or dim == 0:
            return dim
        return rank - 1 if dim == 1 else dim - 1

    def op(self, op: str, name: str, inputs: Sequence[Value], *shapes: Shape, **more: Any) -> Value:
        """An operation of the layer's, in its scope."""
        return self.net.op(op, f"{self.scope}/{name}", inputs, *shapes, **more)

    def part(self, op: str, name: str, inputs: Sequence[Value], *shapes: Shape, **more: Any) -> Value:
        """An operation that Keras calls without a name of its own: its gradient's names begin where it was called."""
        full = f"{self.scope}/{name}"
        return self.net.op(op, full, inputs, *shapes, scope=full.rpartition("/")[0], **more)

    def read(self, role: str, shape: Shape, name: str) -> Value | None:
        """A parameter read, made a variable of Keras's shape; None where the layer has none."""
        owner = self.roles.get(role)
        if not isinstance(owner, str):
            return None
        self.place.variable(owner, shape)
        return self.op("ReadVariableOp", f"{name}/ReadVariableOp", [], shape, variable=owner)

    def assign(self, role: str, value: Value) -> None:
        """A variable takes a value."""
        owner = self.roles[role]
        assert isinstance(owner, str)
        done = self.op("AssignVariableOp", "AssignVariableOp", [value], variable=owner)
        self.net.fetched.append(done.name)

    def done(self, value: Value, turned: bool | None = None) -> None:
        """What the layer gives."""
        self.place.give(self.layer.outputs[0], value, self.is_turned() if turned is None else turned)
