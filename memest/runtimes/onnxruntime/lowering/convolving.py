"""Convolutions, pooling and resampling."""

from __future__ import annotations

from typing import Any

from memest.runtimes.onnxruntime.lowering.exporting import Call, Handler
from memest.runtimes.onnxruntime.lowering.nodes import Value


def each(value: Any, dims: int) -> tuple[int, ...]:
    """One number a dim."""
    return tuple(value) if isinstance(value, tuple | list) else (value,) * dims


def _conv(c: Call) -> Value:
    weight, bias = c["weight"], c["bias"]
    dims = len(weight.shape) - 2
    padding = c["padding"]
    geometry = {"strides": each(c["stride"], dims), "dilations": each(c["dilation"], dims), "kernel": tuple(weight.shape[2:])}
    geometry["pads"] = (0,) * dims if padding == "valid" else (-1,) * dims if padding == "same" else each(padding, dims)
    if all(k == 1 for k in geometry["kernel"]) and padding == "same":
        geometry["pads"] = (0,) * dims
    op = "ConvTranspose" if c.attributes.get("transposed") or "transpose" in c.op else "Conv"
    source = c.input
    if len(source.shape) == dims + 1:
        raise c.refuse("a convolution without a batch")
    return c.put(op, [source, weight, bias], None, None, group=c["groups"], **geometry)


def _pool(op: str) -> Handler:
    def handler(c: Call) -> Value:
        if c.attributes.get("return_indices"):
            raise c.refuse("max pooling that returns indices")
        dims = len(c.shape) - 2
        kernel = each(c["kernel_size"], dims)
        return c.put(op, [c.input], kernel=kernel, strides=each(c["stride"] or kernel, dims), pads=each(c["padding"], dims))

    return handler


def _adaptive(op: str, whole: str, dims: int) -> Handler:
    """To one: a reduction in a file of torch's exporter, a global pool in others; to a divisor: a pool."""

    def handler(c: Call) -> Value:
        sizes, wanted = c.input.shape[-dims:], c.shape[-dims:]
        if all(n == 1 for n in wanted):
            if c.from_file or op == "MaxPool":
                return c.put(whole, [c.input])
            return c.put("ReduceMean", [c.input, c.constant((dims,), "int64")], axes=tuple(range(2, 2 + dims)), keepdims=True)
        if any(n % w for n, w in zip(sizes, wanted, strict=True)):
            raise c.refuse("adaptive pooling to a size that does not divide its input")
        kernel = tuple(n // w for n, w in zip(sizes, wanted, strict=True))
        if all(k == 1 for k in kernel):
            return c.input
        return c.put(op, [c.input], kernel=kernel, strides=kernel, pads=(0,) * dims)

    return handler


MODES = {"nearest": "nearest", "bilinear": "linear", "trilinear": "linear", "linear": "linear", "bicubic": "cubic"}


def _interpolate(c: Call) -> Value:
    mode = MODES.get(c["mode"])
    if mode is None or c["antialias"]:
        raise c.refuse(f"interpolation with mode={c['mode']!r}, antialias={c['antialias']}")
    return c.put("Resize", [c.input], mode=mode, scales=tuple(zip(c.input.shape[2:], c.shape[2:], strict=True)))


def _grid_sample(c: Call) -> Value:
    return c.put("GridSample", [c.input, c["grid"]])


def _local_response_norm(c: Call) -> Value:
    return c.put("LRN", [c.input], size=c["size"])


def _pixel_shuffle(c: Call) -> Value:
    return c.put("DepthToSpace", [c.input])


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("convolution", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d"), _pool("MaxPool")),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), _pool("AveragePool")),
    **{f"adaptive_avg_pool{d}d": _adaptive("AveragePool", "GlobalAveragePool", d) for d in (1, 2, 3)},
    **{f"adaptive_max_pool{d}d": _adaptive("MaxPool", "GlobalMaxPool", d) for d in (1, 2, 3)},
    "interpolate": _interpolate,
    "grid_sample": _grid_sample,
    "local_response_norm": _local_response_norm,
    "pixel_shuffle": _pixel_shuffle,
}
