"""Pooling in windows and over all of an image; resizing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from memest.errors import UnsupportedError
from memest.sources.importers.keras.layer import Call
from memest.sources.importers.keras.padding import same, symmetric, written
from memest.sources.importers.keras.values import Value

RESIZED = {1: "linear", 2: "bilinear", 3: "trilinear"}


def _pooling(op: str, dims: int, call: Call) -> Value:
    node = call.images().node
    kernel = call.spatial("pool_size", dims, 2)
    stride = kernel if call.setting("strides", None) is None else call.spatial("strides", dims)
    how = call.setting("padding", "valid")
    pads = (0,) * dims
    if how == "same":
        wanted = same(node.shape[2:], kernel, stride, (1,) * dims)
        alike = symmetric(wanted)
        if alike is None or any(2 * p > k for p, k in zip(alike, kernel, strict=True)):
            node = call.made("pad", node, name="pad", pad=written(wanted))
        else:
            pads = alike
    elif how != "valid":
        raise UnsupportedError(f"no rule for padding={how!r:.40}")
    own: dict[str, Any] = {"count_include_pad": False} if op == "avg_pool" else {}
    return Value(call.made(f"{op}{dims}d", node, kernel_size=kernel, stride=stride, padding=pads, **own), True)


def _globally(op: str, dims: int, call: Call) -> Value:
    node = call.images().node
    keep = bool(call.setting("keepdims", False))
    return Value(call.made(op, node, dim=tuple(range(2, 2 + dims)), keepdim=keep), keep)


def _resized(dims: int, call: Call) -> Value:
    node = call.images().node
    how = call.setting("interpolation", "nearest") if dims == 2 else "nearest"
    if how not in ("nearest", "bilinear", "bicubic"):
        raise UnsupportedError(f"no rule for interpolation={how!r:.40}")
    size = tuple(e * n for e, n in zip(node.shape[2:], call.spatial("size", dims, 2), strict=True))
    own: dict[str, Any] = {} if how == "nearest" else {"align_corners": False}
    return Value(call.made("interpolate", node, size=size, mode=how, **own), True)


HANDLERS: Mapping[str, Callable[[Call], Value]] = {
    **{f"MaxPooling{n}D": partial(_pooling, "max_pool", n) for n in (1, 2, 3)},
    **{f"AveragePooling{n}D": partial(_pooling, "avg_pool", n) for n in (1, 2, 3)},
    **{f"GlobalAveragePooling{n}D": partial(_globally, "mean", n) for n in (1, 2, 3)},
    **{f"GlobalMaxPooling{n}D": partial(_globally, "amax", n) for n in (1, 2, 3)},
    **{f"UpSampling{n}D": partial(_resized, n) for n in (1, 2, 3)},
}
