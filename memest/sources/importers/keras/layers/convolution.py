"""Convolutions, transposed, depthwise and separable ones; dense layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from memest.errors import UnsupportedError
from memest.sources.builder import Node
from memest.sources.importers.keras.layer import Call
from memest.sources.importers.keras.layers.activation import activated
from memest.sources.importers.keras.padding import same, symmetric, written
from memest.sources.importers.keras.values import Value

GROUPED = "grouped"
"""What a convolution in as many groups as channels is called, to tell it from a depthwise one, whose kernel in Keras is another."""


def padded(call: Call, node: Node, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> tuple[Node, tuple[int, ...]]:
    """The tensor, padded where a pad is longer at one end, and the pads that the operator itself makes."""
    how = call.setting("padding", "valid")
    none = (0,) * len(kernel)
    if how == "valid":
        return node, none
    if how == "same":
        pads = same(node.shape[2:], kernel, stride, dilation)
        alike = symmetric(pads)
        return (node, alike) if alike is not None else (call.made("pad", node, name="pad", pad=written(pads)), none)
    if how == "causal" and len(kernel) == 1:
        return call.made("pad", node, name="pad", pad=((kernel[0] - 1) * dilation[0], 0)), none
    raise UnsupportedError(f"no rule for padding={how!r:.40}")


def _convolution(dims: int, call: Call) -> Value:
    value = call.images()
    filters, groups = call.count("filters"), call.count("groups", 1)
    name = GROUPED if 1 < groups == call.width(value) else ""
    return activated(call, _convolved(call, dims, value.node, filters, groups, call.setting("use_bias", True), name=name))


def _convolved(call: Call, dims: int, node: Node, filters: int, groups: int, bias: bool, part: str = "", name: str = "") -> Value:
    """A convolution under the call's own name, or as a ``part`` of it; or with its parameters, under another ``name``."""
    kernel, stride = call.spatial("kernel_size", dims), call.spatial("strides", dims, 1)
    dilation = call.spatial("dilation_rate", dims, 1)
    channels = call.width(Value(node, True))
    node, pads = padded(call, node, kernel, stride, dilation)
    prefix = f"{part}." if part else ""
    weight = call.parameter(f"{prefix}weight", (filters, channels // groups, *kernel))
    offset = call.parameter(f"{prefix}bias", (filters,)) if bias else None
    made = call.made(f"conv{dims}d", node, weight, offset, name=part or name, stride=stride, padding=pads, dilation=dilation, groups=groups)
    return Value(made, True)


def _depthwise(dims: int, call: Call) -> Value:
    value = call.images()
    channels = call.width(value)
    filters = channels * call.count("depth_multiplier", 1)
    return activated(call, _convolved(call, dims, value.node, filters, channels, call.setting("use_bias", True)))


def _separable(dims: int, call: Call) -> Value:
    value = call.images()
    channels = call.width(value)
    inner = channels * call.count("depth_multiplier", 1)
    spread = _convolved(call, dims, value.node, inner, channels, False, "depthwise")
    filters = call.count("filters")
    weight = call.parameter("pointwise.weight", (filters, inner, *(1,) * dims))
    bias = call.parameter("pointwise.bias", (filters,)) if call.setting("use_bias", True) else None
    return activated(call, Value(call.made(f"conv{dims}d", spread.node, weight, bias, name="pointwise"), True))


def _transposed(dims: int, call: Call) -> Value:
    """As torch's backend runs it: the pads of torch's own operator where they give Keras's size."""
    value = call.images()
    filters, channels = call.count("filters"), call.width(value)
    kernel, stride = call.spatial("kernel_size", dims), call.spatial("strides", dims, 1)
    dilation = call.spatial("dilation_rate", dims, 1)
    more = call.setting("output_padding", None)
    how = call.setting("padding", "valid")
    ends = [_ends(how, *along) for along in zip(kernel, stride, dilation, _each(more, dims), strict=True)]
    weight = call.parameter("weight", (channels, filters, *kernel))
    bias = call.parameter("bias", (filters,)) if call.setting("use_bias", True) else None
    made = call.made(
        f"conv_transpose{dims}d",
        value.node,
        weight,
        bias,
        stride=stride,
        padding=tuple(p for p, _ in ends),
        output_padding=tuple(o for _, o in ends),
        dilation=dilation,
    )
    return activated(call, Value(made, True))


def _each(given: Any, dims: int) -> Sequence[Any]:
    return (given,) * dims if given is None or isinstance(given, int) else tuple(given)


def _ends(how: str, kernel: int, stride: int, dilation: int, more: int | None) -> tuple[int, int]:
    """torch's padding and output padding for Keras's: the output is as long as the input times the stride where it is the ``same``, and no
    shorter than that where not (keras 3.15, src/backend/common/backend_utils.py)."""
    reach = dilation * (kernel - 1) + 1
    odd = reach % 2
    if how == "valid":
        padding, output = 0, max(reach, stride) - reach if more is None else more
    elif how == "same":
        longer = stride - odd if more is None else more
        padding = max(-((odd - reach + longer) // 2), 0)
        output = 2 * padding + odd - reach + longer
    else:
        raise UnsupportedError(f"no rule for padding={how!r:.40}")
    if not 0 <= output < max(stride, dilation):
        raise UnsupportedError(f"no rule for padding={how!r} of a transposed convolution with kernel {kernel} and stride {stride}")
    return padding, output


def _dense(call: Call) -> Value:
    value = call.orders.plain(call.value, call.name)
    weight = call.parameter("weight", (call.count("units"), call.width(value)))
    bias = call.parameter("bias", (call.count("units"),)) if call.setting("use_bias", True) else None
    return activated(call, Value(call.made("linear", value.node, weight, bias)))


HANDLERS: Mapping[str, Callable[[Call], Value]] = {
    **{f"Conv{n}D": partial(_convolution, n) for n in (1, 2, 3)},
    **{f"Conv{n}DTranspose": partial(_transposed, n) for n in (1, 2, 3)},
    **{f"DepthwiseConv{n}D": partial(_depthwise, n) for n in (1, 2)},
    **{f"SeparableConv{n}D": partial(_separable, n) for n in (1, 2)},
    "Dense": _dense,
}
