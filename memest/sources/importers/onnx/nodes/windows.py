"""Convolutions and pools: what a window is moved over. ONNX pads each end of each dim for itself, torch both ends alike; where they differ
the padding is a call of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.errors import GraphError
from memest.network.layers import ENDS
from memest.sources.builder import Node
from memest.sources.importers.onnx.call import Call, Handler, Result

Pads = tuple[tuple[Any, ...], tuple[Any, ...]]


def _spatial(c: Call, name: str, dims: int, default: int) -> tuple[int, ...]:
    """An attribute with one number a spatial dim."""
    found = tuple(c.attribute(name) or (default,) * dims)
    if len(found) != dims or any(n < 0 or n >= 1 << 31 for n in found):
        raise GraphError(f"{name} {list(found)} for {dims} spatial dims")
    return found


def _pads(c: Call, sizes: Sequence[Any], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Pads:
    """What is added before and after each spatial dim: as written, or so that the result is the size over the stride."""
    auto, dims = c.attribute("auto_pad", "NOTSET"), len(sizes)
    if auto == "VALID":
        return (0,) * dims, (0,) * dims
    if auto in ("NOTSET", ""):
        given = tuple(c.attribute("pads") or (0,) * (2 * dims))
        if len(given) != 2 * dims:
            raise GraphError(f"pads {list(given)} for {dims} spatial dims")
        return given[:dims], given[dims:]
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise GraphError(f"has auto_pad {auto!r}")
    less, more = [], []
    for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        over = (k - 1) * d + 1 - s
        total: Any = over if n % s == 0 else over + s - n % s
        total = total if total > 0 else 0
        less.append(total // 2)
        more.append(total - total // 2)
    return (tuple(less), tuple(more)) if auto == "SAME_UPPER" else (tuple(more), tuple(less))


def _padded(c: Call, x: Node, pads: Pads, value: float | None = None) -> Node:
    """The tensor with something around it."""
    both = [n for pair in zip(reversed(pads[0]), reversed(pads[1]), strict=True) for n in pair]
    made: Node = c.layer("pad", x, called=ENDS, pad=tuple(both), value=value)
    return made


def _positive(c: Call, **given: Sequence[int]) -> None:
    for name, values in given.items():
        if any(n < 1 for n in values):
            raise GraphError(f"{name} {list(values)}: at least 1 each")


def _dims(x: Node, what: str) -> int:
    dims = len(x.shape) - 2
    if not 1 <= dims <= 3:
        raise GraphError(f"{what} over {dims} spatial dims; torch has 1 to 3")
    return dims


def conv(c: Call) -> Result:
    """``Conv``."""
    x, w, bias = c.tensor(0), c.tensor(1), c.optional(2)
    dims = _dims(x, "a convolution")
    strides, dilations = _spatial(c, "strides", dims, 1), _spatial(c, "dilations", dims, 1)
    _positive(c, strides=strides, dilations=dilations)
    pads = _pads(c, x.shape[2:], w.shape[2:], strides, dilations)
    if pads[0] != pads[1]:
        x, pads = _padded(c, x, pads), ((0,) * dims, (0,) * dims)
    how = {"stride": strides, "padding": pads[0], "dilation": dilations, "groups": c.attribute("group", 1)}
    return _convolved(c, f"conv{dims}d", x, w, bias, how)


def _convolved(c: Call, op: str, x: Node, w: Node, bias: Node | None, how: dict[str, Any]) -> Node:
    made: Node = c.layer(op, x, w, bias, **how)
    return made


def conv_transpose(c: Call) -> Result:
    """``ConvTranspose``; what it takes off one end more than torch can is cut off."""
    x, w, bias = c.tensor(0), c.tensor(1), c.optional(2)
    dims = _dims(x, "a transposed convolution")
    strides, dilations = _spatial(c, "strides", dims, 1), _spatial(c, "dilations", dims, 1)
    _positive(c, strides=strides, dilations=dilations)
    extra = list(_spatial(c, "output_padding", dims, 0))
    full = [s * (n - 1) + (k - 1) * d + 1 for n, k, s, d in zip(x.shape[2:], w.shape[2:], strides, dilations, strict=True)]
    before, after = _taken_off(c, x, full, extra, strides)
    cut: list[Any] = [0] * dims
    for i in range(dims):
        extra[i] += before[i] - after[i]
        if extra[i] < 0:
            cut[i], extra[i] = -extra[i], 0
    groups = c.attribute("group", 1)
    how = {"stride": strides, "padding": tuple(before), "output_padding": tuple(extra), "dilation": dilations, "groups": groups}
    made = _convolved(c, f"conv_transpose{dims}d", x, w, bias, how)
    for i, n in enumerate(cut):
        if n != 0:
            made = c.layer("slice", made, dim=i + 2, start=0, end=made.shape[i + 2] - n)
    return made


def _taken_off(c: Call, x: Node, full: Sequence[Any], extra: Sequence[int], strides: Sequence[int]) -> tuple[list[Any], list[Any]]:
    """What is taken off both ends of each dim of the whole result."""
    auto, dims = c.attribute("auto_pad", "NOTSET"), len(full)
    wanted = c.attribute("output_shape")
    if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(n * s for n, s in zip(x.shape[2:], strides, strict=True))
    if wanted is None:
        before, after = _pads(c, x.shape[2:], (1,) * dims, strides, (1,) * dims)
        return list(before), list(after)
    totals: list[Any] = [f + e - w for f, e, w in zip(full, extra, wanted[-dims:], strict=True)]
    totals = [t if t > 0 else 0 for t in totals]
    low, high = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return (low, high) if auto == "SAME_UPPER" else (high, low)


def max_pool(c: Call) -> Result:
    """``MaxPool``, with the places of the maxima where they are asked for."""
    x = c.tensor(0)
    dims = _dims(x, "a pool")
    kernel, strides, dilations = (_spatial(c, name, dims, 1) for name in ("kernel_shape", "strides", "dilations"))
    _positive(c, kernel_shape=kernel, strides=strides, dilations=dilations)
    pads = _pads(c, x.shape[2:], kernel, strides, dilations)
    if pads[0] != pads[1] or any(2 * p > k for p, k in zip(pads[0], kernel, strict=True)):
        x, pads = _padded(c, x, pads, float("-inf")), ((0,) * dims, (0,) * dims)
    places = c.wanted > 1
    how = {"stride": strides, "padding": pads[0], "dilation": dilations, "ceil_mode": bool(c.attribute("ceil_mode", 0))}
    made: Result = c.layer(f"max_pool{dims}d", x, kernel_size=kernel, return_indices=places, **how)
    return made if places or not isinstance(made, tuple) else made[0]


def average_pool(c: Call) -> Result:
    """``AveragePool``."""
    x = c.tensor(0)
    dims = _dims(x, "a pool")
    kernel, strides, dilations = (_spatial(c, name, dims, 1) for name in ("kernel_shape", "strides", "dilations"))
    _positive(c, kernel_shape=kernel, strides=strides)
    if any(d != 1 for d in dilations):
        raise c.refuse(f"an average pool with dilations {list(dilations)}")
    pads, counts = _pads(c, x.shape[2:], kernel, strides, dilations), bool(c.attribute("count_include_pad", 0))
    if pads[0] != pads[1] or any(2 * p > k for p, k in zip(pads[0], kernel, strict=True)):
        if not counts:
            raise c.refuse(f"an average pool with pads {[*pads[0], *pads[1]]} that do not count: torch pads both ends alike")
        x, pads = _padded(c, x, pads), ((0,) * dims, (0,) * dims)
    how = {"stride": strides, "padding": pads[0], "ceil_mode": bool(c.attribute("ceil_mode", 0)), "count_include_pad": counts}
    made: Node = c.layer(f"avg_pool{dims}d", x, kernel_size=kernel, **how)
    return made


def _global(op: str) -> Handler:
    def handler(c: Call) -> Result:
        x = c.tensor(0)
        dims = _dims(x, "a pool")
        made: Node = c.layer(f"adaptive_{op}_pool{dims}d", x, output_size=(1,) * dims)
        return made

    return handler


HANDLERS: dict[str, Handler] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": _global("avg"),
    "GlobalMaxPool": _global("max"),
}
