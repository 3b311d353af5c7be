"""Functions of single elements: one node each, which others take in where they can (:mod:`memest.runtimes.openvino.lowering.fusing`).

Source: openvino/src/plugins/intel_cpu/src/nodes/eltwise.cpp (what is an Eltwise), math.cpp (what is computed by the reference).
"""

from __future__ import annotations

from typing import Any

from memest.network.graph import Layer
from memest.runtimes.openvino.lowering.translation import Translate, Translation

UNARY = {
    "abs": "abs",
    "clamp": "clamp",
    "clamp_max": "clamp",
    "clamp_min": "clamp",
    "elu": "elu",
    "erf": "erf",
    "exp": "exp",
    "gelu": "gelu",
    "hardswish": "hswish",
    "hardtanh": "clamp",
    "leaky_relu": "relu",
    "mish": "mish",
    "neg": "multiply",
    "reciprocal": "power",
    "relu": "relu",
    "relu6": "clamp",
    "rsqrt": "power",
    "sigmoid": "sigmoid",
    "silu": "swish",
    "softsign": "softsign",
    "sqrt": "sqrt",
    "square": "power",
    "tanh": "tanh",
}
MATH = frozenset({"hardsigmoid", "selu", "sin", "cos", "tan", "asin", "acos", "atan", "sign"})
COMPARED = {"eq": "equal", "ne": "not_equal", "gt": "greater", "ge": "greater_equal", "lt": "less", "le": "less_equal"}
LOGICAL = {f"logical_{name}": f"logical_{name}" for name in ("and", "or", "xor")}
BINARY = {"add": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "maximum": "maximum", "minimum": "minimum", "pow": "power"}


def _unary(what: str) -> Translate:
    def translate(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
        t.give(layer, t.eltwise(what, b["input"]))

    return translate


def _math(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    t.give(layer, t.add("Math", (b["input"],), t.made(layer), layer.op))


def _binary(what: str) -> Translate:
    def translate(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
        values = [b["input"], *([b["other"]] if b.get("other") is not None else [])]
        if a.get("alpha", 1) != 1 and len(values) > 1:
            values[1] = t.eltwise("multiply", values[1])
        t.give(layer, t.eltwise(what, *values, shape=t.made(layer)))

    return translate


def _select(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    """What a condition chooses; of a number there is nothing to read."""
    values = [b[role] for role in ("condition", "mask", "input", "other") if b.get(role) is not None]
    t.give(layer, t.eltwise("select", *values, shape=t.made(layer)))


def _told(what: str) -> Translate:
    """Whether something holds of each element, in a byte each."""

    def translate(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
        values = [value for role in ("input", "other") if (value := b.get(role)) is not None]
        t.give(layer, t.add("Eltwise", values, t.made(layer), what, dtype="bool"))

    return translate


def _prelu(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    t.give(layer, t.eltwise("prelu", b["input"], b["weight"]))


TABLE: dict[str, Translate] = {
    **{op: _unary(what) for op, what in UNARY.items()},
    **dict.fromkeys(MATH, _math),
    **{op: _binary(what) for op, what in BINARY.items()},
    **{op: _told(what) for op, what in {**COMPARED, **LOGICAL, "logical_not": "not", "isnan": "isnan", "isinf": "isinf"}.items()},
    **dict.fromkeys(("where", "masked_fill"), _select),
    **{op: _unary(op) for op in ("softplus", "log", "floor", "ceil", "round")},
    **{"rsub": _binary("subtract"), "rdiv": _binary("divide")},
    "prelu": _prelu,
    "_prelu_kernel": _prelu,
}
