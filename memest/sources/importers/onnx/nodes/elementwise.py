"""Element by element: arithmetic with broadcasting, functions, activations, comparisons. A number of the code is the row's attribute, as
it is where a module's code says ``x * 0.5``."""

from __future__ import annotations

from math import isclose
from typing import Any

from memest.network.dtypes import FLOATING
from memest.network.layers import PART
from memest.sources.importers.onnx.call import Call, Handler, Result
from memest.sources.importers.onnx.values import dtype_name
from memest.sources.importers.onnx.writing import dtype_of, shape_of

_NAMED = {
    **{"Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "HardSwish": "hardswish", "Mish": "mish", "Softplus": "softplus"},
    **{"Softsign": "softsign", "Swish": "silu", "Erf": "erf", "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Abs": "abs", "Neg": "neg"},
    **{"Reciprocal": "reciprocal", "Floor": "floor", "Ceil": "ceil", "Round": "round", "Sign": "sign", "Sin": "sin", "Cos": "cos"},
    **{"Tan": "tan", "Asin": "asin", "Acos": "acos", "Atan": "atan", "Sinh": "sinh", "Cosh": "cosh", "Asinh": "asinh", "Acosh": "acosh"},
    **{"Atanh": "atanh", "IsNaN": "isnan", "IsInf": "isinf", "Not": "logical_not", "BitwiseNot": "bitwise_not"},
}


def _unary(op: str) -> Handler:
    def handler(c: Call) -> Result:
        made: Result = c.layer(op, c.tensor(0))
        return made

    return handler


def _with(op: str, **names: tuple[str, float]) -> Handler:
    """A row with attributes: our names, each with ONNX's and its default."""

    def handler(c: Call) -> Result:
        made: Result = c.layer(op, c.tensor(0), **{ours: c.attribute(theirs, default) for ours, (theirs, default) in names.items()})
        return made

    return handler


def _binary(op: str, swapped: str | None) -> Handler:
    """A row of two tensors, the second of which may be a number; ``swapped`` is the row whose first one is."""

    def handler(c: Call) -> Result:
        key = "exponent" if op == "pow" else "value"
        first, second = c.scalar(0), c.scalar(1)
        how: dict[str, Any] = {}
        if op == "div" and dtype_of(c.input(0)) not in FLOATING:
            how["rounding_mode"] = "trunc"
        made: Result
        if second is not None and first is None:
            made = c.layer(op, c.tensor(0), None, **{key: second}, **how)
        elif first is not None and second is None and swapped is not None and not how:
            roles = (c.tensor(1),) if swapped in ("rdiv", "rpow") else (c.tensor(1), None)
            made = c.layer(swapped, *roles, value=first)
        else:
            made = c.layer(op, c.tensor(0), c.tensor(1), **how)
        return made

    return handler


def _plain_binary(op: str) -> Handler:
    def handler(c: Call) -> Result:
        made: Result = c.layer(op, c.tensor(0), c.tensor(1))
        return made

    return handler


def _several(op: str) -> Handler:
    """Min, Max, Sum, Mean of any number of tensors: one after the other."""

    def handler(c: Call) -> Result:
        made: Any = c.tensor(0)
        for i in range(1, len(c.inputs)):
            number = c.scalar(i)
            if number is not None and op in ("minimum", "maximum"):
                made = c.layer("clamp", made, **{"max" if op == "minimum" else "min": number})
            else:
                made = c.layer(op, made, c.tensor(i))
        mean = c.op == "Mean" and len(c.inputs) > 1
        result: Result = c.layer("div", made, None, value=len(c.inputs)) if mean else made
        return result

    return handler


def _mod(c: Call) -> Result:
    return _binary("fmod" if c.attribute("fmod", 0) else "remainder", None)(c)


def _clip(c: Call) -> Result:
    """Bounds are inputs; up to opset 10 they were attributes. They may be tensors that are numbers when the network runs."""
    low, high = (
        c.attribute(name) if c.version < 11 else c.number(i) if c.given(i) and c.known(i) is not None else None
        for i, name in ((1, "min"), (2, "max"))
    )
    made: Result = c.tensor(0)
    if low is not None or high is not None:
        made = c.layer("clamp", made, min=low, max=high)
    for i, op in ((1, "maximum"), (2, "minimum")):
        if c.version >= 11 and c.given(i) and c.known(i) is None:
            made = c.layer(op, made, c.tensor(i))
    return made


def _prelu(c: Call) -> Result:
    """ONNX's slope has the dims of the input behind it; torch's has one number a channel."""
    x, slope = c.tensor(0), shape_of(c.input(1))
    count = max(slope, default=1)
    channels = 1 if len(x.shape) < 2 else x.shape[1]
    if sum(1 for n in slope if n != 1) > 1 or (count != 1 and count != channels):
        raise c.refuse(f"a slope of the shape {list(slope)}: torch's has one number a channel")
    made: Result = c.layer("prelu", x, c.shaped(1, (count,)))
    return made


def _gelu(c: Call) -> Result:
    made: Result = c.layer("gelu", c.tensor(0), approximate=c.attribute("approximate", "none"))
    return made


def _hard_sigmoid(c: Call) -> Result:
    """Torch's has a slope of a sixth; another is the sum that it is short for."""
    alpha, beta = c.attribute("alpha", 0.2), c.attribute("beta", 0.5)
    made: Any
    if isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        made = c.layer("hardsigmoid", c.tensor(0))
    else:
        part = f"{PART}{c.op}"
        scaled = c.layer("mul", c.tensor(0), None, called=part, value=alpha)
        made = c.layer("clamp", c.layer("add", scaled, None, called=part, value=beta), called=f":{c.op}", min=0, max=1)
    result: Result = made
    return result


def _thresholded(c: Call) -> Result:
    made: Result = c.layer("threshold", c.tensor(0), threshold=c.attribute("alpha", 1.0), value=0)
    return made


def _shrink(c: Call) -> Result:
    bias, lambd = c.attribute("bias", 0.0), c.attribute("lambd", 0.5)
    if bias not in (0.0, lambd):
        raise c.refuse(f"Shrink with a bias of {bias}")
    made: Result = c.layer("softshrink" if bias else "hardshrink", c.tensor(0), lambd=lambd)
    return made


def _selu(c: Call) -> Result:
    made: Result = c.layer("selu", c.tensor(0))
    return made


def _softmax(op: str) -> Handler:
    def handler(c: Call) -> Result:
        x = c.tensor(0)
        ndim = len(x.shape)
        at = c.axis(-1 if c.version >= 13 else 1, ndim)
        if c.version < 13 and at != ndim - 1:
            raise c.refuse(f"{c.op} over several dims, as opset {c.version} has it: export with opset 13 or later")
        made: Result = c.layer(op, x, dim=at)
        return made

    return handler


def _cast(c: Call) -> Result:
    made: Result
    if c.op == "CastLike":
        made = c.layer("to", c.tensor(0), c.tensor(1))
    else:
        made = c.layer("to", c.tensor(0), None, dtype=dtype_name(c.attribute("to", 1), "the result"))
    return made


def _where(c: Call) -> Result:
    numbers = {key: c.scalar(i) for i, key in ((1, "input_value"), (2, "other_value"))}
    tensors = [None if numbers[key] is not None else c.tensor(i) for i, key in ((1, "input_value"), (2, "other_value"))]
    made: Result = c.layer("where", c.tensor(0), *tensors, **{k: v for k, v in numbers.items() if v is not None})
    return made


def _dropout(c: Call) -> Result:
    """Follows the mode, as the module does; the mask is for nobody else."""
    ratio = c.number(1) if c.version >= 12 and c.given(1) else c.attribute("ratio", 0.5)
    if c.wanted > 1:
        raise c.refuse("the mask of Dropout")
    made: Result = c.layer("dropout", c.tensor(0), p=float(ratio))
    return made


HANDLERS: dict[str, Handler] = {
    **{name: _unary(op) for name, op in _NAMED.items()},
    **{name: _binary(op, swapped) for name, op, swapped in (("Add", "add", "add"), ("Sub", "sub", "rsub"), ("Mul", "mul", "mul"))},
    **{name: _binary(op, swapped) for name, op, swapped in (("Div", "div", "rdiv"), ("Pow", "pow", "rpow"))},
    **{name: _binary(op, swapped) for name, op, swapped in (("Equal", "eq", "eq"), ("Greater", "gt", "lt"), ("Less", "lt", "gt"))},
    **{name: _binary(op, swapped) for name, op, swapped in (("GreaterOrEqual", "ge", "le"), ("LessOrEqual", "le", "ge"))},
    **{name: _plain_binary(f"logical_{name.lower()}") for name in ("And", "Or", "Xor")},
    **{f"Bitwise{name}": _plain_binary(f"bitwise_{name.lower()}") for name in ("And", "Or", "Xor")},
    **{"Min": _several("minimum"), "Max": _several("maximum"), "Sum": _several("add"), "Mean": _several("add")},
    "Mod": _mod,
    "LeakyRelu": _with("leaky_relu", negative_slope=("alpha", 0.01)),
    "Elu": _with("elu", alpha=("alpha", 1.0)),
    "Celu": _with("celu", alpha=("alpha", 1.0)),
    "Selu": _selu,
    "ThresholdedRelu": _thresholded,
    "Shrink": _shrink,
    "HardSigmoid": _hard_sigmoid,
    "PRelu": _prelu,
    "Clip": _clip,
    "Gelu": _gelu,
    "Softmax": _softmax("softmax"),
    "LogSoftmax": _softmax("log_softmax"),
    **dict.fromkeys(("Cast", "CastLike"), _cast),
    "Where": _where,
    "Dropout": _dropout,
}
