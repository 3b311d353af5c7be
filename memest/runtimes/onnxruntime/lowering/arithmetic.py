"""Elementwise calls, activations, norms and reductions."""

from __future__ import annotations

from collections.abc import Callable

from memest.network.tensor import numel
from memest.runtimes.onnxruntime.lowering.exporting import Call, Handler
from memest.runtimes.onnxruntime.lowering.nodes import Value


def _unary(op: str) -> Handler:
    return lambda c: c.put(op, [c.input])


def _binary(op: str, swapped: bool = False) -> Handler:
    """Two tensors, or one and a number."""

    def handler(c: Call) -> Value:
        other = c["other"] if "other" in c._by_role else None
        operands = [_as(c, c.input), c.constant() if other is None else _as(c, other)]
        if "alpha" in c.attributes and c["alpha"] != 1:
            operands[1] = c.put("Mul", [operands[1], c.constant()], operands[1].shape)
        return c.put(op, operands[::-1] if swapped else operands)

    return handler


def _as(c: Call, value: Value) -> Value:
    """A tensor of the result's dtype."""
    if value.dtype == c.dtype or c.dtype == "bool" or value.is_weight:
        return value
    return c.put("Cast", [value], value.shape)


def _clip(c: Call) -> Value:
    return c.put("Clip", [c.input, c.constant(), c.constant()])


def _clamp(c: Call) -> Value:
    return c.put("Clip", [c.input, *(None if c[k] is None else c.constant() for k in ("min", "max"))])


def _leaky(c: Call) -> Value:
    return c.put("LeakyRelu", [c.input])


def _silu(c: Call) -> Value:
    return c.put("Mul", [c.input, c.put("Sigmoid", [c.input])])


def _mish(c: Call) -> Value:
    return c.put("Mish", [c.input])


def _prelu(c: Call) -> Value:
    return c.put("PRelu", [c.input, c["weight"]])


def _power(c: Call) -> Value:
    return c.put("Pow", [c.input, c["other"] or c.constant()])


def _where(c: Call) -> Value:
    return c.put("Where", [c["condition"], c["input"] or c.constant(), c["other"] or c.constant()])


def _threshold(op: str) -> Handler:
    """Files that others wrote have it as an operator; torch's exporter as a comparison and a choice."""

    def handler(c: Call) -> Value:
        if not c.from_file:
            raise c.refuse(f"{c.op} as torch's exporter writes it")
        return c.put(op, [c.input])

    return handler


def _norm(c: Call) -> Value:
    op = {1: "ReduceL1", 2: "ReduceL2"}.get(c["ord"])
    if op is None:
        raise c.refuse(f"a norm of order {c['ord']}")
    return _reduced(op)(c)


def _extreme(op: str) -> Handler:
    """Of two tensors, of all elements, or the largest of a dim with its place, which is found apart."""

    def handler(c: Call) -> Value | list[Value]:
        if c["other"] is not None:
            return c.put(op, [c.input, c["other"]])
        found = _reduced(f"Reduce{op}")(c)
        if c["dim"] is None:
            return found
        places = c.gives[1]
        assert places is not None
        return [found, c.put(f"Arg{op}", [c.input], places.shape, places.dtype)]

    return handler


def _masked_fill(c: Call) -> Value:
    return c.put("Where", [c["mask"], c.constant(), c.input])


def _softmax(op: str) -> Handler:
    return lambda c: c.put(op, [c.input], axis=c["dim"] % len(c.shape))


def _layer_norm(c: Call) -> Value:
    axis = -len(c["normalized_shape"])
    weight = c["weight"] or c.constant(c["normalized_shape"])
    return c.put("LayerNormalization", [c.input, weight, c["bias"]], axis=axis)


def _batch_norm(c: Call) -> Value:
    channels = (c.shape[1],)
    weights = [c[k] or c.constant(channels) for k in ("weight", "bias", "running_mean", "running_var")]
    return c.put("BatchNormalization", [c.input, *weights])


def _group_norm(c: Call) -> Value:
    """Groups as the channels of an instance norm, then scale and shift a channel: so exporters write it. The operator of that name is a
    function, of which other nodes are made."""
    if c.from_file:
        raise c.refuse("GroupNormalization, an operator of opset 21,")
    n, channels, *sizes = c.shape
    groups = c["num_groups"]
    apart = c.sizes(c.input, (n, groups, channels // groups * numel(sizes)))
    ones = (groups,)
    whole = c.sizes(c.put("InstanceNormalization", [apart, c.constant(ones), c.constant(ones)], apart.shape), c.shape)
    for role, op in (("weight", "Mul"), ("bias", "Add")):
        given = c[role]
        category, name = ("constant", f"{c.layer}.{role}") if given is None else (given.category, given.name)
        whole = c.put(op, [whole, Value(name, (channels, *[1] * len(sizes)), c.dtype, category)])
    return whole


def _instance_norm(c: Call) -> Value:
    if c["running_mean"] is not None and c["use_input_stats"] is False:
        return c.put("BatchNormalization", [c.input, *(c[k] or c.constant(c.shape[1:2]) for k in ("weight", "bias")), c["running_mean"]])
    return c.put("InstanceNormalization", [c.input, *(c[k] or c.constant(c.shape[1:2]) for k in ("weight", "bias"))])


def _reduced(op: str) -> Callable[[Call], Value]:
    """Over some dims, or all."""

    def handler(c: Call) -> Value:
        dims = c["dim"]
        some = () if dims is None else (dims,) if isinstance(dims, int) else tuple(dims)
        rank = len(c.input.shape)
        axes = tuple(sorted(d % rank for d in some)) or tuple(range(rank))
        return c.put(op, [c.input, c.constant((len(axes),), "int64")], axes=axes, keepdims=bool(c["keepdim"]))

    return handler


def _relu6(c: Call) -> Value:
    return _clip(c)


def _normalize(c: Call) -> Value:
    shape = tuple(1 if d == c["dim"] % len(c.shape) else n for d, n in enumerate(c.shape))
    norm = c.put("ReduceL2", [c.input, c.constant((1,), "int64")], shape, axes=(c["dim"] % len(c.shape),))
    return c.put("Div", [c.input, c.put("Expand", [c.put("Clip", [norm, c.constant(), None], shape)], c.shape)])


UNARY = {
    **{
        "relu": "Relu",
        "sigmoid": "Sigmoid",
        "tanh": "Tanh",
        "hardswish": "HardSwish",
        "hardsigmoid": "HardSigmoid",
        "softplus": "Softplus",
    },
    **{"softsign": "Softsign", "erf": "Erf", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "abs": "Abs", "neg": "Neg", "floor": "Floor"},
    **{"reciprocal": "Reciprocal", "ceil": "Ceil", "round": "Round", "sign": "Sign", "sin": "Sin", "cos": "Cos", "elu": "Elu"},
    **{"selu": "Selu", "celu": "Celu", "gelu": "Gelu", "logical_not": "Not", "isnan": "IsNaN", "isinf": "IsInf", "tan": "Tan"},
    **{"asin": "Asin", "acos": "Acos", "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh", "asinh": "Asinh", "acosh": "Acosh"},
    **{"atanh": "Atanh", "cumsum": "CumSum", "triu": "Trilu", "tril": "Trilu", "argmax": "ArgMax", "argmin": "ArgMin"},
}
BINARY = {
    **{"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "maximum": "Max", "minimum": "Min", "fmod": "Mod", "remainder": "Mod"},
    **{f"logical_{name}": name.capitalize() for name in ("and", "or", "xor")},
}
HANDLERS: dict[str, Handler] = {
    **{name: _unary(op) for name, op in UNARY.items()},
    **{name: _binary(op) for name, op in BINARY.items()},
    **{f"{name}.Scalar": _binary(BINARY[name]) for name in ("mul", "div")},
    **{"rsub": _binary("Sub", True), "rdiv": _binary("Div", True)},
    **{
        "eq": _binary("Equal"),
        "gt": _binary("Greater"),
        "lt": _binary("Less"),
        "ge": _binary("GreaterOrEqual"),
        "le": _binary("LessOrEqual"),
    },
    "relu6": _relu6,
    "hardtanh": _clip,
    "clamp": _clamp,
    "leaky_relu": _leaky,
    "silu": _silu,
    "mish": _mish,
    "prelu": _prelu,
    "pow": _power,
    "where": _where,
    "masked_fill": _masked_fill,
    "softmax": _softmax("Softmax"),
    "log_softmax": _softmax("LogSoftmax"),
    "layer_norm": _layer_norm,
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "mean": _reduced("ReduceMean"),
    "sum": _reduced("ReduceSum"),
    "amax": _reduced("ReduceMax"),
    "amin": _reduced("ReduceMin"),
    "prod": _reduced("ReduceProd"),
    "logsumexp": _reduced("ReduceLogSumExp"),
    "vector_norm": _norm,
    "threshold": _threshold("ThresholdedRelu"),
    **dict.fromkeys(("hardshrink", "softshrink"), _threshold("Shrink")),
    **{op.lower(): _extreme(op) for op in ("Max", "Min")},
    "normalize": _normalize,
}
