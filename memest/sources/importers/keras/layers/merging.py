"""Layers that join several tensors, and Keras's operations on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from memest.errors import UnsupportedError
from memest.sources.builder import Node
from memest.sources.importers.keras.layer import Call
from memest.sources.importers.keras.values import Value


def _in_turn(op: str, call: Call) -> Value:
    """The first with the second, what comes of them with the third."""
    values = _several(call)
    node = values[0].node
    for n, value in enumerate(values[1:], 2):
        node = call.made(op, node, value.node, name="" if n == len(values) else f"of_{n}")
    return Value(node, values[0].moved)


def _several(call: Call) -> list[Value]:
    if len(call.values) < 2:
        raise UnsupportedError(f"joins {len(call.values)} tensor; it takes two or more")
    if len({v.rank for v in call.values}) > 1:
        raise UnsupportedError("no rule for tensors of different numbers of dims")
    return call.orders.alike(call.values, call.name)


def _average(call: Call) -> Value:
    values = _several(call)
    node = values[0].node
    for n, value in enumerate(values[1:], 2):
        node = call.made("add", node, value.node, name=f"of_{n}")
    return Value(call.made("div", node, None, value=float(len(values))), values[0].moved)


def _concatenate(call: Call) -> Value:
    values, axis = _several(call), call.setting("axis", -1)
    return Value(call.made("cat", [v.node for v in values], dim=values[0].axis(int(axis))), values[0].moved)


def _arithmetic(op: str, call: Call) -> Value:
    """``a + b``, where one may be a number."""
    numbers = [a for a in call.arguments if isinstance(a, int | float) and not isinstance(a, bool)]
    if len(call.values) == 2 and not numbers:
        if len({v.rank for v in call.values}) > 1:
            raise UnsupportedError("no rule for tensors of different numbers of dims")
        values = call.orders.alike(call.values, call.name)
        return Value(call.made(op, values[0].node, values[1].node), values[0].moved)
    if len(call.values) != 1 or len(numbers) != 1:
        raise UnsupportedError("no rule for it with these arguments")
    value, number = call.value, float(numbers[0])
    if isinstance(call.arguments[0], int | float) and op in ("sub", "div"):
        back = {"sub": "rsub", "div": "rdiv"}[op]
        return _reversed(back, call, value, number)
    return Value(call.made(op, value.node, None, value=number), value.moved)


def _reversed(op: str, call: Call, value: Value, number: float) -> Value:
    """``number - a`` and ``number / a``."""
    if op == "rsub":
        less = call.made("neg", value.node, name="negative")
        return Value(call.made("add", less, None, value=number), value.moved)
    inverse = call.made("reciprocal", value.node, name="reciprocal")
    return Value(call.made("mul", inverse, None, value=number), value.moved)


def _unary(op: str, call: Call) -> Value:
    return Value(call.made(op, call.value.node), call.value.moved)


def _reduced(op: str, call: Call) -> Value:
    value, axis, keep = call.value, call.setting("axis", None), bool(call.setting("keepdims", False))
    if axis is None:
        raise UnsupportedError("no rule for it over all axes")
    axes: Sequence[Any] = [axis] if isinstance(axis, int) else list(axis)
    whole = keep or not value.moved or {value.axis(a) for a in axes} >= set(range(2, value.rank))
    if not whole:
        value = call.orders.plain(value, call.name)
    made: Node = call.made(op, value.node, dim=tuple(value.axis(a) for a in axes), keepdim=keep)
    return Value(made, value.moved and keep)


HANDLERS: Mapping[str, Callable[[Call], Value]] = {
    "Add": partial(_in_turn, "add"),
    "Multiply": partial(_in_turn, "mul"),
    "Subtract": partial(_in_turn, "sub"),
    "Maximum": partial(_in_turn, "maximum"),
    "Minimum": partial(_in_turn, "minimum"),
    "Average": _average,
    "Concatenate": _concatenate,
}
OPERATIONS: Mapping[str, Callable[[Call], Value]] = {
    "Add": partial(_arithmetic, "add"),
    "Subtract": partial(_arithmetic, "sub"),
    "Multiply": partial(_arithmetic, "mul"),
    "Divide": partial(_arithmetic, "div"),
    "TrueDivide": partial(_arithmetic, "div"),
    "Maximum": partial(_arithmetic, "maximum"),
    "Minimum": partial(_arithmetic, "minimum"),
    "Concatenate": _concatenate,
    **{name: partial(_unary, op) for name, op in {"Exp": "exp", "Sqrt": "sqrt", "Square": "square", "Tanh": "tanh", "Absolute": "abs",
        "Abs": "abs", "Negative": "neg", "Relu": "relu", "Relu6": "relu6", "Sigmoid": "sigmoid", "Silu": "silu", "Gelu": "gelu",
        "Softplus": "softplus", "HardSigmoid": "hardsigmoid", "HardSilu": "hardswish", "HardSwish": "hardswish"}.items()},
    **{name: partial(_reduced, op) for name, op in {"Mean": "mean", "Sum": "sum", "Max": "amax", "Min": "amin"}.items()},
}  # fmt: skip
