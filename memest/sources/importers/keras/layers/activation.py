"""Activations: layers of their own, and the ``activation`` of other layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from memest.errors import UnsupportedError, did_you_mean
from memest.sources.builder import Node
from memest.sources.importers.keras.layer import Call
from memest.sources.importers.keras.values import Value

SAME = {  # Keras's name, and the operator
    "relu": "relu",
    "relu6": "relu6",
    "elu": "elu",
    "selu": "selu",
    "celu": "celu",
    "softplus": "softplus",
    "softsign": "softsign",
    "silu": "silu",
    "swish": "silu",
    "mish": "mish",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "hard_sigmoid": "hardsigmoid",
    "hard_silu": "hardswish",
    "hard_swish": "hardswish",
    "hard_tanh": "hardtanh",
    "gelu": "gelu",
    "exponential": "exp",
    "log_sigmoid": "logsigmoid",
    "leaky_relu": "leaky_relu",
}
OVER_CHANNELS = ("softmax", "log_softmax")


def activated(call: Call, value: Value) -> Value:
    """``value`` after the activation that a layer names; itself where it names none."""
    return _applied(call, value, as_part=True)


def _applied(call: Call, value: Value, *, as_part: bool) -> Value:
    name = _name(call.setting("activation", None))
    if name in (None, "linear"):
        return value
    part = name if as_part else ""
    if name in OVER_CHANNELS:
        return Value(call.made(name, value.node, name=part, dim=value.axis(-1)), value.moved)
    if name not in SAME:
        raise UnsupportedError(f"no rule for activation {name!r}{did_you_mean(name, (*SAME, *OVER_CHANNELS))}")
    return Value(call.made(SAME[name], value.node, name=part), value.moved)


def _name(given: Any) -> str | None:
    """An activation's name; that of a function that Keras wrote down as an object."""
    if isinstance(given, dict):
        inner = given.get("config")
        given = inner if isinstance(inner, str) else given.get("class_name")
    if given is not None and not isinstance(given, str):
        raise UnsupportedError(f"no rule for activation {given!r:.60}")
    return given


def _activation(call: Call) -> Value:
    return _applied(call, call.value, as_part=False)


def _relu(call: Call) -> Value:
    call.refuse(threshold=(0, 0.0, None))
    most, slope = call.setting("max_value", None), call.setting("negative_slope", 0.0) or 0.0
    value = call.value
    if most is not None and slope:
        raise UnsupportedError("no rule for ReLU with both max_value and negative_slope")
    if slope:
        return Value(call.made("leaky_relu", value.node, negative_slope=float(slope)), value.moved)
    if most is None:
        return Value(call.made("relu", value.node), value.moved)
    made = call.made("relu6", value.node) if most == 6 else call.made("clamp", value.node, min=0.0, max=float(most))
    return Value(made, value.moved)


def _leaky(call: Call) -> Value:
    slope = call.setting("negative_slope", call.setting("alpha", 0.3))
    return Value(call.made("leaky_relu", call.value.node, negative_slope=float(slope)), call.value.moved)


def _elu(call: Call) -> Value:
    return Value(call.made("elu", call.value.node, alpha=float(call.setting("alpha", 1.0))), call.value.moved)


def _softmax(call: Call) -> Value:
    axis = call.setting("axis", -1)
    if not isinstance(axis, int):
        raise UnsupportedError(f"no rule for axis={axis!r:.60}")
    return Value(call.made("softmax", call.value.node, dim=call.value.axis(axis)), call.value.moved)


def _prelu(call: Call) -> Value:
    value = call.orders.moved(call.value, call.name)
    shared = call.setting("shared_axes", None) or []
    channels = call.width(value)
    if sorted(shared) == list(range(1, value.rank)):
        width = 1
    elif sorted(shared) == list(range(1, value.rank - 1)):
        width = channels
    else:
        raise UnsupportedError("no rule for PReLU with a slope for each position; share the spatial axes (shared_axes=[1, 2])")
    weight: Node = call.parameter("weight", (width,))
    return Value(call.made("prelu", value.node, weight), value.moved)


HANDLERS: Mapping[str, Callable[[Call], Value]] = {
    "Activation": _activation,
    "ReLU": _relu,
    "LeakyReLU": _leaky,
    "ELU": _elu,
    "Softmax": _softmax,
    "PReLU": _prelu,
}
