"""Activations and arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from memest.errors import UnsupportedError
from memest.runtimes.tensorflow.building.place import Here
from memest.runtimes.tensorflow.nodes import Value

UNARY = {
    "relu": "Relu", "relu6": "Relu6", "sigmoid": "Sigmoid", "tanh": "Tanh", "elu": "Elu", "selu": "Selu", "softplus": "Softplus",
    "softsign": "Softsign", "sqrt": "Sqrt", "leaky_relu": "LeakyRelu",
}  # fmt: skip
IN_PLACE_NAMED = ("Relu",)  # called without a name of its own
BINARY = {"add": ("AddV2", "Add"), "sub": ("Sub", "Sub"), "mul": ("Mul", "Mul")}


def _unary(op: str, here: Here) -> None:
    value = here.value()
    make = here.part if op in IN_PLACE_NAMED else here.op
    here.done(make(op, op, [value], value.shape))


def clipped(here: Here) -> None:
    """From 0 to 6, which is ReLU6."""
    if (here.given["min_val"], here.given["max_val"]) != (0, 6):
        raise UnsupportedError("no rule for hardtanh on tensorflow-cpu but from 0 to 6, as ReLU6")
    _unary("Relu6", here)


def silu(here: Here) -> None:
    """``x * sigmoid(x)``, whose gradient computes the sigmoid again."""
    value = here.value()
    here.net.unique(f"{here.scope}/mul")  # by one, which is left out
    gate = here.part("Sigmoid", "Sigmoid", [value], value.shape)
    here.done(here.part("Mul", "mul", [value, gate], value.shape, silu=True))


def _gate(here: Here, value: Value) -> Value:
    """``relu6(x + 3) / 6``."""
    moved = here.part("AddV2", "add", [value], value.shape)
    return here.op("RealDiv", "truediv", [here.op("Relu6", "Relu6", [moved], value.shape)], value.shape)


def hard_sigmoid(here: Here) -> None:
    """Of lines."""
    here.done(_gate(here, here.value()))


def hard_silu(here: Here) -> None:
    """``x`` times its hard sigmoid."""
    value = here.value()
    here.done(here.op("Mul", "mul", [value, _gate(here, value)], value.shape))


def gelu(here: Here) -> None:
    """``0.5 x erfc(-x / sqrt 2)``."""
    if here.given.get("approximate", "none") != "none":
        raise UnsupportedError("no rule for gelu with approximate=True on tensorflow-cpu; leave it out, as Keras does")
    value = here.value()
    half = here.op("Mul", "Gelu/mul", [value], value.shape)
    negative = here.part("Neg", "Gelu/Neg", [value], value.shape)
    argument = here.op("Mul", "Gelu/mul", [negative], value.shape, gelu="argument")
    complement = here.part("Erfc", "Gelu/Erfc", [argument], value.shape, half=half.name)
    here.done(here.op("Mul", "Gelu/mul", [half, complement], value.shape, gelu="whole"))


def prelu(here: Here) -> None:
    """relu(x) - slope * relu(-x)."""
    value = here.value()
    weight_name = here.roles["weight"]
    assert isinstance(weight_name, str)
    shape = (*(1,) * (len(value.shape) - 2), *here.shape(weight_name))
    above = here.part("Relu", "Relu", [value], value.shape)
    here.place.variable(weight_name, shape)
    slope = here.op("ReadVariableOp", "ReadVariableOp", [], shape, variable=weight_name)
    slope = here.part("Neg", "Neg", [slope], shape)
    below = here.part("Relu", "Relu", [here.part("Neg", "Neg", [value], value.shape)], value.shape)
    scaled = here.op("Mul", "mul", [slope, below], value.shape)
    here.done(here.part("AddV2", "add", [above, scaled], value.shape))


def softmax(here: Here) -> None:
    """Over the last dim."""
    value = here.value()
    if here.axis(here.given["dim"]) != len(value.shape) - 1:
        raise UnsupportedError("no rule for softmax over another dim than the channels on tensorflow-cpu")
    here.done(here.part("Softmax", "Softmax", [value], value.shape))


def _binary(op: str, name: str, here: Here) -> None:
    """Of two tensors, or of one and a number."""
    names = here.layer.reads
    values = [here.of(n) for n in names]
    turned = any(n in here.place.turned for n in names)
    mixed = turned and not all(n in here.place.turned or len(v.shape) < 3 for n, v in zip(names, values, strict=True))
    if mixed or len({len(v.shape) for v in values}) > 1:
        raise UnsupportedError("no rule for tensors of different orders of dims on tensorflow-cpu")
    if len(values) == 1:
        name = name.lower()
        if op == "AddV2" and not here.given.get("value"):
            here.done(values[0], turned)
            return
    shape = values[0].shape if len(values) == 1 else tuple([max(a, b) for a, b in zip(values[0].shape, values[1].shape, strict=True)])
    here.done(here.part(op, name, values, shape), turned)


def divided(here: Here) -> None:
    """By a number, which becomes a product with its inverse, or by another tensor."""
    if len(here.layer.reads) == 1:
        value = here.value()
        here.done(here.op("Mul", "truediv", [value], value.shape))
    else:
        _binary("RealDiv", "truediv", here)


def at_least(here: Here) -> None:
    """No less than a number."""
    value = here.value()
    here.done(here.op("Maximum", "Maximum", [value], value.shape))


TABLE: dict[str, Callable[[Here], None]] = {
    **{name: partial(_unary, op) for name, op in UNARY.items()},
    **{name: partial(_binary, *op) for name, op in BINARY.items()},
    "hardtanh": clipped,
    "silu": silu,
    "softmax": softmax,
    "prelu": prelu,
    "gelu": gelu,
    "hardsigmoid": hard_sigmoid,
    "hardswish": hard_silu,
    "div": divided,
    "clamp_min": at_least,
}
