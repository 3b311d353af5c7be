"""One node of an ONNX graph about to become layers: its attributes, what it reads, and the layers that it writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx

from memest.errors import GraphError, UnsupportedError
from memest.network.tensor import Shape
from memest.sizes.dims import Dim
from memest.sources.builder import Node
from memest.sources.importers.onnx.values import Initial, Known, Value
from memest.sources.importers.onnx.writing import Writer

Result = Value | Sequence[Value] | None
Handler = Callable[["Call"], Result]
"""What makes of a node the values of its outputs, in order."""


class Call:
    """A node with the values of its inputs (None: left out), in the opset ``version`` of its domain."""

    def __init__(self, node: Any, inputs: Sequence[Value | None], attributes: Mapping[str, Any], version: int, writer: Writer) -> None:
        self.node, self.inputs, self.version, self.writer = node, inputs, version, writer
        self._attributes = attributes

    @property
    def op(self) -> str:
        """The operator's name."""
        return str(self.node.op_type)

    @property
    def wanted(self) -> int:
        """How many outputs the node names."""
        return max((i + 1 for i, name in enumerate(self.node.output) if name), default=0)

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of an attribute."""
        proto = self._attributes.get(name)
        if proto is None:
            return default
        value = onnx.helper.get_attribute_value(proto)
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        return tuple(value) if proto.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS, onnx.AttributeProto.STRINGS) else value

    def given(self, i: int) -> bool:
        """Whether there is an input of that number."""
        return i < len(self.inputs) and self.inputs[i] is not None

    def input(self, i: int) -> Value:
        """What an input stands for; GraphError where it is left out."""
        value = self.inputs[i] if i < len(self.inputs) else None
        if value is None:
            raise GraphError(f"needs an input of number {i + 1}")
        return value

    def tensor(self, i: int) -> Node:
        """An input as a tensor of the graph."""
        return self.writer.tensor(self.input(i))

    def optional(self, i: int) -> Node | None:
        """The same where it may be left out."""
        return self.tensor(i) if self.given(i) else None

    def shaped(self, i: int, shape: Shape) -> Node:
        """A parameter as our rows have it: of that shape, with as many elements."""
        value = self.input(i)
        return self.writer.parameter(value, shape) if isinstance(value, Initial) else self.tensor(i)

    def known(self, i: int) -> Known | None:
        """The numbers of an input, where they are known."""
        value = self.input(i)
        return value.numbers if isinstance(value, Initial) else value if isinstance(value, Known) else None

    def numbers(self, i: int) -> tuple[Any, ...]:
        """The numbers of an input, flat; UnsupportedError where they are known only when the network runs."""
        found = self.known(i)
        if found is None:
            raise UnsupportedError(
                f"the numbers in {self.node.input[i]!r} are known only when the network runs, and its sizes depend on them"
            )
        return tuple(found.array.flat)

    def number(self, i: int) -> Any:
        """A single one."""
        found = self.numbers(i)
        if len(found) != 1:
            raise GraphError(f"{self.node.input[i]!r} should be one number, got {len(found)}")
        return found[0]

    def scalar(self, i: int) -> Any:
        """An input that is a number of the code and no tensor; None where it is one."""
        value = self.input(i)
        if isinstance(value, Known) and value.shape == ():
            return value.array[()]
        return value.numbers.array[()] if isinstance(value, Initial) and value.is_number and value.numbers is not None else None

    def axes(self, i: int | None, ndim: int, name: str = "axes") -> tuple[int, ...] | None:
        """Axes that stand in an attribute or in the input ``i``, from 0; None where they are in neither."""
        given = self.attribute(name)
        if given is None and i is not None and self.given(i):
            given = self.numbers(i)
        return None if given is None else tuple(axis(a, ndim) for a in given)

    def axis(self, default: int, ndim: int, name: str = "axis") -> int:
        """An axis in an attribute, from 0."""
        return axis(self.attribute(name, default), ndim)

    def layer(self, op: str, *tensors: Any, **attributes: Any) -> Any:
        """A call of a row; its output, or a tuple of them."""
        return self.writer.layer(op, *tensors, **attributes)

    def refuse(self, what: str) -> UnsupportedError:
        """The error of what has no rule."""
        return UnsupportedError(f"no rule for {what}")


def axis(value: Any, ndim: int) -> int:
    """An axis from 0; GraphError where the tensor has none like it."""
    at = int(value) if not isinstance(value, Dim) else value.pin()
    if not -ndim <= at < max(ndim, 1):
        raise GraphError(f"axis {at} of a tensor with {ndim} dims")
    return at % max(ndim, 1)
