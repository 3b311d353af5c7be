"""TensorFlow's graph as data: operations with their inputs, and what they give; names are TensorFlow's own without the model's scope.

A constant is no value here: it stands in the graph's own memory, and kernels read it in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

from memest.network.dtypes import ITEMSIZE
from memest.network.tensor import Shape

TAPE = "gradient_tape/"


class Value(NamedTuple):
    """An output of a node: ``name`` is the node's, with ``:1`` behind it for the second output."""

    name: str
    shape: Shape
    dtype: str = "float32"

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return prod(self.shape) * ITEMSIZE[self.dtype]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """An operation ``op`` that reads ``inputs`` once the nodes ``after`` have run; ``scope`` is where its gradient's nodes are named.
    A ``variable`` is what it reads or assigns; ``merged`` names the nodes that computed the same. ``layer`` and ``phase`` are ours."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[Value, ...]
    scope: str
    after: tuple[str, ...] = ()
    variable: str = ""
    merged: tuple[str, ...] = ()
    layer: str = ""
    phase: str = "forward"
    attributes: Mapping[str, Any] = field(default_factory=dict)


class Variable(NamedTuple):
    """A resource that stands between steps. The ``reset`` ones are set from Python before each: their buffer is numpy's."""

    name: str
    shape: Shape
    dtype: str
    category: str
    reset: bool = False


class Net:
    """Operations in the order in which Python makes them, which is an order that they can run in; names are made unique as TensorFlow
    does, by a number at their end."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.values: dict[str, Value] = {}
        self.variables: dict[str, Variable] = {}
        self.inputs: dict[str, Value] = {}
        self.fetched: list[str] = []
        self.layer, self.phase = "", "forward"
        self._used: dict[str, int] = {}

    def input(self, name: str, shape: Shape, dtype: str) -> Value:
        """What the caller feeds."""
        value = self.inputs[name] = self.values[name] = Value(name, tuple(shape), dtype)
        return value

    def variable(self, name: str, shape: Shape, dtype: str = "float32", category: str = "parameter", reset: bool = False) -> Variable:
        """A variable."""
        found = self.variables[name] = Variable(name, tuple(shape), dtype, category, reset)
        return found

    def op(
        self,
        op: str,
        name: str,
        inputs: Sequence[Value],
        *shapes: Shape,
        dtypes: Sequence[str] = (),
        scope: str | None = None,
        after: Sequence[str] = (),
        variable: str = "",
        named: bool = False,
        **attributes: Any,
    ) -> Value:
        """The first output of a new node; without dtypes the outputs have that of its first input. ``scope``: None for the node's own name,
        else the name of the place where it was called; where it is ``named`` the name is taken as it is."""
        full = name if named else self.unique(name)
        dtype = inputs[0].dtype if inputs else "float32"
        outputs = tuple(
            [Value(f"{full}:{n}" if n else full, tuple(shape), dtypes[n] if n < len(dtypes) else dtype) for n, shape in enumerate(shapes)]
        )
        node = Node(
            name=full, op=op, inputs=tuple([v.name for v in inputs]), outputs=outputs, scope=full if scope is None else scope,
            after=tuple(after), variable=variable, layer=self.layer, phase=self.phase, attributes=attributes,
        )  # fmt: skip
        self.nodes[full] = node
        self.values.update((v.name, v) for v in outputs)
        return outputs[0] if outputs else Value(full, (), "resource")

    def unique(self, name: str) -> str:
        """A name that no node has; capitals do not tell two apart."""
        times = self._used.get(name.lower(), 0)
        self._used[name.lower()] = times + 1
        return f"{name}_{times}" if times else name

    def value(self, name: str) -> Value:
        """A value by its name."""
        return self.values[name]

    def output(self, node: Value, number: int) -> Value:
        """Another output of the node whose first output this is."""
        return self.nodes[node.name].outputs[number]


def node_of(value: str) -> str:
    """The node that gives a value."""
    return value.partition(":")[0]


def readers(nodes: Mapping[str, Node]) -> dict[str, list[str]]:
    """The nodes that read each value, once for each time that they do."""
    found: dict[str, list[str]] = {}
    for node in nodes.values():
        for name in node.inputs:
            found.setdefault(name, []).append(node.name)
    return found


def needed(net: Net) -> Iterator[Node]:
    """The nodes that what is fetched needs, in the net's order."""
    wanted: set[str] = set()
    stack = [node_of(name) for name in net.fetched]
    while stack:
        name = stack.pop()
        if name in net.nodes and name not in wanted:
            wanted.add(name)
            node = net.nodes[name]
            stack += [*map(node_of, node.inputs), *node.after]
    return (node for node in net.nodes.values() if node.name in wanted)
