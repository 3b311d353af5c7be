"""A network of torch's operators as one of the plugin's nodes, before anything is fused: what the ONNX front end and OpenVINO's common
transformations leave of each call.

What is made of parameters alone is a constant: it is computed once, and stands there like a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from memest.errors import MemestError, unforeseen
from memest.network.graph import Graph, Layer, Parameter
from memest.network.layers import node_ended, part_of
from memest.network.tensor import Shape, Spec
from memest.ops.reading import flattened
from memest.runtimes.openvino.rows import node
from memest.runtimes.rewriting import attributes_of, bound, no_rule

Translate = Callable[["Translation", Layer, dict[str, Any], dict[str, Any]], None]

FULL = "float32"
CREATED = frozenset(
    {f"new_{kind}" for kind in ("zeros", "ones", "full", "empty")} | {f"{k}_like" for k in ("zeros", "ones", "full", "empty")}
)
"""Calls that read a tensor for its shape alone."""

WHOLE = {"HardSigmoid": "hardsigmoid", "ReduceProd": "prod"}
"""Nodes of a file that several layers stand for, and the plugin runs as one: by the operator whose rule is theirs."""


class Translation:
    """Nodes so far. ``specs`` are those of torch's values, ``names`` the node's value behind each of them, ``shapes`` those of the nodes'
    values, ``constants`` the values that are known before the call."""

    def __init__(self, graph: Graph, specs: Mapping[str, Spec], sizes: Mapping[str, int]) -> None:
        self.graph, self.specs, self.sizes = graph, specs, sizes
        self.nodes: list[Layer] = []
        self.shapes: dict[str, Shape] = {name: tuple(s.shape) for name, s in specs.items()}
        self.names: dict[str, str] = {}
        self.parameters = list(graph.parameters)
        self.constants = {p.name for p in graph.parameters}
        self.transposed: dict[str, tuple[str, tuple[int, ...]]] = {}
        self.viewed: dict[str, str] = {}
        self.parts: dict[tuple[object, ...], str] = {}
        self._layer: Layer | None = None
        self._made = 0

    def run(self, table: Mapping[str, Translate]) -> Graph:
        """The network of nodes. UnsupportedError names the layer of an operator without a rule."""
        for layer in self.graph.layers:
            self._layer, self._made = layer, 0
            try:
                self._translate(layer, table)
            except MemestError as e:
                raise e.at(f"layer {layer.name!r} ({layer.op})") from None
            except (ArithmeticError, LookupError, TypeError, ValueError) as e:
                raise unforeseen(e).at(f"layer {layer.name!r} ({layer.op})") from e
        outputs = tuple([self.value(o) for o in self.graph.outputs])
        return self.graph.with_(layers=tuple(self.nodes), parameters=tuple(self.parameters), outputs=outputs)

    def _translate(self, layer: Layer, table: Mapping[str, Translate]) -> None:
        if layer.op in CREATED or all(self.is_constant(self.value(name)) for name in layer.reads):
            for name in layer.outputs:
                self.constant(name, self.specs[name].shape, self.specs[name].dtype)
            return
        if layer.op not in table:
            raise no_rule(layer.op, "openvino")
        if part_of(layer.name) in WHOLE:
            self.give(layer, self.value(layer.reads[0]))
            return
        op = WHOLE.get(node_ended(layer.name) or "", layer.op)
        table[op](self, layer, attributes_of(layer, self.sizes), self._bound(layer))

    def _bound(self, layer: Layer) -> dict[str, Any]:
        return {role: self._value_of(reference) for role, reference in bound(layer).items()}

    def _value_of(self, reference: Any) -> Any:
        if reference is None:
            return None
        return self.value(reference) if isinstance(reference, str) else tuple([self.value(name) for name in reference])

    def value(self, name: str) -> str:
        """The node's value behind one of torch's."""
        return self.names.get(name, name)

    def is_constant(self, value: str) -> bool:
        """Whether a node's value is known before the call."""
        return value in self.constants

    def made(self, layer: Layer, output: int = 0) -> Shape:
        """The shape of what a layer gives."""
        return tuple(self.specs[layer.outputs[output]].shape)

    def add(self, kind: str, reads: Sequence[str], shape: Shape, what: str = "", dtype: str = FULL) -> str:
        """A node of one output; returns its value."""
        (value,) = self.add_several(kind, reads, (shape,), what, dtype)
        return value

    def shared(self, kind: str, value: str, shape: Shape, what: str, which: object = None) -> str:
        """As :meth:`add` for one operand; the same part of the same value (``which`` tells parts of a shape apart) is taken once."""
        key = (kind, value, what, which)
        if key not in self.parts:
            self.parts[key] = self.add(kind, (value,), shape, what)
        return self.parts[key]

    def add_several(self, kind: str, reads: Sequence[str], shapes: Sequence[Shape], what: str = "", dtype: str = FULL) -> tuple[str, ...]:
        """A node of several outputs; returns its values."""
        assert self._layer is not None
        name = self._layer.name if not self._made else f"{self._layer.name}.{kind}.{self._made}"
        self._made += 1
        outputs = (name,) if len(shapes) == 1 else tuple([f"{name}.{n}" for n in range(len(shapes))])
        self.nodes.append(node(name, kind, reads, shapes, what=what, outputs=outputs, dtype=dtype))
        self.shapes.update(zip(outputs, map(tuple, shapes), strict=True))
        return outputs

    def constant(self, name: str, shape: Shape, dtype: str = "float32") -> str:
        """A value that is known before the call, folded from others."""
        if name not in self.constants:
            self.parameters.append(Parameter(name=name, shape=tuple(shape), dtype=dtype, buffer=True))
            self.constants.add(name)
        self.shapes[name] = tuple(shape)
        return name

    def give(self, layer: Layer, *values: str) -> None:
        """What stands for the outputs of a layer."""
        self.names.update(zip(layer.outputs, values, strict=False))

    # what several operators are made of

    def reshape(self, value: str, shape: Shape) -> str:
        """``value`` in another shape: a view, or nothing where it has it. Of views of views one is left."""
        source = self.viewed.get(value, value)
        if self.shapes[source] == tuple(shape):
            return source
        if self.shapes[value] == tuple(shape):
            return value
        if self.is_constant(value):
            return self.constant(f"{value}:{'x'.join(map(str, shape))}", shape)
        made = self.add("Reshape", (source,), shape)
        self.viewed[made] = source
        return made

    def transpose(self, value: str, order: Sequence[int]) -> str:
        """``value`` with its dims in another order; where dims of 1 alone move, a view. Of two in a row one is left."""
        source, before = self.transposed.get(value, (value, tuple(range(len(order)))))
        order = tuple([before[d] for d in order])
        after = tuple([self.shapes[source][d] for d in order])
        if list(order) == sorted(order):
            return source
        moved = [d for d in order if self.shapes[source][d] != 1]
        if moved == sorted(moved):
            return self.reshape(source, after)
        if self.is_constant(source):
            return self.constant(f"{source}:{','.join(map(str, order))}", after)
        made = self.add("Transpose", (source,), after, ",".join(map(str, order)))
        self.transposed[made] = source, order
        return made

    def before_transposition(self, value: str) -> str:
        """What ``value`` was before its last two dims changed places, where it is a transposition of those alone."""
        rank = len(self.shapes[value])
        found = self.transposed.get(value)
        return found[0] if found is not None and found[1] == (*range(rank - 2), rank - 1, rank - 2) else value

    def eltwise(self, what: str, *values: str, shape: Shape | None = None) -> str:
        """A function of single elements of its values, which are broadcast."""
        return self.add("Eltwise", values, self.shapes[values[0]] if shape is None else shape, what)


def tensors_of(arguments: Mapping[str, Any]) -> list[Any]:
    """What is bound to the roles, flat."""
    return flattened([a for a in arguments.values() if a is not None])[0]


def elements(shape: Shape) -> int:
    """Their number."""
    return prod(shape)
