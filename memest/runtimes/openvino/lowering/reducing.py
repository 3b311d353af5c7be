"""Normalizations, poolings, reductions, resizing.

A norm over the last dims is one node (MVN) where it leaves the first one or two dims; else it is written out: the mean, the difference,
and a norm without a mean (RMS).

Source: openvino/src/plugins/intel_cpu/src/nodes/mvn.cpp (``isSupportedOperation``), common/transformations/op_conversions
(mvn6_decomposition) and common_optimizations (rms_fusion).
"""

from __future__ import annotations

from typing import Any

from memest.errors import UnsupportedError
from memest.network.graph import Layer
from memest.network.tensor import Shape, is_channels_last, is_contiguous
from memest.runtimes.openvino.lowering.translation import Translate, Translation


def _batch_norm(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    """Outside training a factor and a summand a channel."""
    if b["running_mean"] is None:
        raise UnsupportedError("batch norm by the batch's own statistics: no rule for it on openvino")
    ones = [1] * (len(t.shapes[b["input"]]) - 2)
    of = [t.reshape(b[r] or b["running_mean"], (1, t.shapes[b["input"]][1], *ones)) for r in ("weight", "bias")]
    t.give(layer, t.eltwise("add", t.eltwise("multiply", b["input"], of[0]), of[1]))


def _normalized(t: Translation, value: str, dims: int, scale: str | None, shift: str | None) -> str:
    """``value`` normed over its last ``dims`` dims, then scaled and shifted by what is broadcast."""
    shape = t.shapes[value]
    if len(shape) - dims in (1, 2):
        made = t.add("MVN", (value,), shape)
        made = made if scale is None else t.eltwise("multiply", made, scale)
    else:
        reduced = (*shape[:-dims], *[1] * dims)
        made = t.eltwise("subtract", value, t.add("Reduce", (value,), reduced, "mean"))
        made = t.add("RMS", (made, *([scale] if scale else [])), shape)
    return made if shift is None else t.eltwise("add", made, shift)


def _layer_norm(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    t.give(layer, _normalized(t, b["input"], len(a["normalized_shape"]), b["weight"], b["bias"]))


def _rms_norm(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    t.give(layer, t.add("RMS", [b["input"], *([b["weight"]] if b["weight"] else [])], t.made(layer)))


def _by_channel(t: Translation, b: dict[str, Any], role: str) -> str | None:
    ones = [1] * (len(t.shapes[b["input"]]) - 2)
    return None if b[role] is None else t.reshape(b[role], (1, t.shapes[b["input"]][1], *ones))


def _instance_norm(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    if a["use_input_stats"] is False:
        raise UnsupportedError("instance norm by running statistics: no rule for it on openvino")
    dims = len(t.shapes[b["input"]]) - 2
    t.give(layer, _normalized(t, b["input"], dims, _by_channel(t, b, "weight"), _by_channel(t, b, "bias")))


def _group_norm(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    """Groups as rows, an instance norm of those, and back."""
    shape: Shape = t.shapes[b["input"]]
    batch, groups = shape[0], a["num_groups"]
    rows = t.reshape(b["input"], (batch, groups, _rest(shape) // groups))
    made = t.reshape(t.add("MVN", (rows,), t.shapes[rows]), shape)
    for role, what in (("weight", "multiply"), ("bias", "add")):
        of = _by_channel(t, b, role)
        made = made if of is None else t.eltwise(what, made, of)
    t.give(layer, made)


def _rest(shape: Shape) -> int:
    rest = 1
    for n in shape[1:]:
        rest = rest * n
    return rest


def _pool(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    if a.get("return_indices"):
        raise UnsupportedError("pooling that returns indices: no rule for it on openvino")
    dilation = a.get("dilation", 1)
    if any(n != 1 for n in ((dilation,) if isinstance(dilation, int) else dilation)):
        raise UnsupportedError("pooling with a dilation: no rule for it on openvino")
    t.give(layer, t.add("Pooling", (b["input"],), t.made(layer), "max" if "max" in layer.op else "average"))


def _adaptive(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    """To one value a channel a reduction, to a whole fraction a pooling."""
    shape, made = t.shapes[b["input"]], t.made(layer)
    if all(n == 1 for n in made[2:]):
        value = t.add("Reduce", (b["input"],), made, "mean" if "avg" in layer.op else "max")
        spec = t.specs[layer.reads[0]]
        if "avg" in layer.op and is_channels_last(shape, spec.strides) and not is_contiguous(shape, spec.strides):
            value = t.add("Gather", (t.reshape(value, (made[0] * made[1],)),), made)  # as_strided, as the exporter writes it
        t.give(layer, value)
    elif all(n % m == 0 for n, m in zip(shape[2:], made[2:], strict=True)):
        t.give(layer, t.add("Pooling", (b["input"],), made, "average"))
    elif "avg" in layer.op and len(made) == 4:
        t.give(layer, _gathered(t, b["input"], made))
    else:
        raise UnsupportedError(
            f"adaptive pooling from {list(shape[2:])} to {list(made[2:])}, no whole fraction: no rule for it on openvino"
        )


def _gathered(t: Translation, value: str, made: Shape) -> str:
    """Windows of several sizes, as the exporter writes them: gathered at the largest size, masked where they are smaller, summed up one by
    one (torch/_decomp/decompositions.py, ``adaptive_avg_pool2d``)."""
    shape = t.shapes[value]
    outer, windows, masked = shape[:2], [], 0
    for n, m in zip(shape[2:], made[2:], strict=True):
        uneven = n % m != 0 and m % (n % m) != 0
        windows.append(n // m + (2 if uneven else 0 if n % m == 0 else 1))
        masked += uneven
    (rows, columns), (high, wide) = made[2:], windows
    found = t.add("GatherND", (t.transpose(value, (2, 3, 0, 1)),), (rows, high, columns, wide, *outer))
    found = t.transpose(found, (4, 5, 0, 1, 2, 3))
    for n in range(masked):
        mask = t.constant(f"{value}:mask{n}", (columns, wide), "bool")
        found = t.eltwise("select", mask, found, shape=t.shapes[found])
    total = ""
    for _ in range(high):
        line = t.add("Gather", (found,), (*outer, rows, columns, wide), "axis 3")
        for _ in range(wide):
            one = t.add("Gather", (line,), made, "axis 4")
            total = t.eltwise("add", total, one) if total else one
    return t.eltwise("divide", total, t.constant(f"{value}:windows", (1, 1, 1, columns)))


def _reduce(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    t.give(layer, t.add("Reduce", (b["input"],), t.made(layer), layer.op))


def _log_sum_exp(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    """Written out (ReduceLogSumExp of the ONNX front end): less the largest, which is added again behind the logarithm."""
    shape = t.shapes[b["input"]]
    dims = [d % len(shape) for d in ((a["dim"],) if isinstance(a["dim"], int) else a["dim"])]
    reduced = tuple([1 if d in dims else n for d, n in enumerate(shape)])
    largest = t.add("Reduce", (b["input"],), reduced, "amax")
    powers = t.eltwise("exp", t.eltwise("subtract", b["input"], largest))
    total = t.eltwise("log", t.add("Reduce", (powers,), reduced, "sum"))
    t.give(layer, t.reshape(t.eltwise("add", largest, total), t.made(layer)))


def _log_softmax(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    """Written out (LogSoftmaxDecomposition): less the largest, and less the logarithm of the sum of exponentials."""
    shape = t.made(layer)
    reduced = tuple([1 if d == a["dim"] % len(shape) else n for d, n in enumerate(shape)])
    less = t.eltwise("subtract", b["input"], t.add("Reduce", (b["input"],), reduced, "amax"))
    total = t.add("Reduce", (t.eltwise("exp", less),), reduced, "sum")
    t.give(layer, t.eltwise("subtract", less, t.eltwise("log", total)))


def _along(kind: str) -> Translate:
    def translate(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
        shape = t.made(layer)
        t.give(layer, t.add(kind, (b["input"],), shape, f"axis {a['dim'] % len(shape)}"))

    return translate


def _interpolate(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    shape = t.made(layer)
    t.give(layer, b["input"] if t.shapes[b["input"]] == shape else t.add("Interpolate", (b["input"],), shape, a["mode"]))


def _grid_sample(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    t.give(layer, t.add("GridSample", (b["input"], b["grid"]), t.made(layer)))


TABLE: dict[str, Translate] = {
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "instance_norm": _instance_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    **dict.fromkeys([f"{kind}_pool{n}d" for kind in ("max", "avg") for n in (1, 2, 3)], _pool),
    **dict.fromkeys([f"adaptive_{kind}_pool{n}d" for kind in ("max", "avg") for n in (1, 2, 3)], _adaptive),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "prod", "vector_norm"), _reduce),
    "logsumexp": _log_sum_exp,
    "log_softmax": _log_softmax,
    "softmax": _along("Softmax"),
    "interpolate": _interpolate,
    "grid_sample": _grid_sample,
}
