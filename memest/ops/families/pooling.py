"""Pooling. Max pooling keeps its input and int64 indices (twice the output in float32); average pooling keeps its input, of which
backward reads the sizes alone. Adaptive average pooling to one element a channel is a mean, and keeps nothing.

1-dim pooling is 2-dim pooling of a view with a height of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.network.dtypes import HALVES
from memest.network.tensor import Shape, channels_last_strides
from memest.ops.aten.copies import contiguous, suggests_channels_last
from memest.ops.aten.iterator import incoming, refuse_dtypes
from memest.ops.composite import Caller
from memest.ops.facts import (
    EVERYWHERE_CALLS,
    EVERYWHERE_FACTS,
    FALLS_THROUGH,
    FLOAT32,
    Attributes,
    Dispatched,
    Facts,
    Windows,
    slid,
    window_by,
)
from memest.ops.operator import REQUIRED, Attribute, Example, expand, flag, integer, integers, number, optional, per_dim
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import FUNCTIONAL, NATIVE, composite, row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def windows(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    """How many windows fit (pooling_output_shape): in ceil mode one more may start, inside the input or its left padding."""
    if kernel <= 0 or stride <= 0 or dilation <= 0:
        raise ShapeError(f"pooling with kernel {kernel}, stride {stride}, dilation {dilation}: all must be positive")
    if padding < 0 or 2 * padding > dilation * (kernel - 1) + 1:
        raise ShapeError(f"padding {padding} must be at least 0 and at most half of the kernel {kernel}")
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    out = (room + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (out - 1) * stride >= size + padding:
        out = out - 1
    if out <= 0:
        raise ShapeError(
            f"pooling with kernel {kernel} of a dimension of {size} (padding {padding}, dilation {dilation}) leaves nothing;"
            " give larger inputs"
        )
    return out


def pooled_shape(input: Tensor, spatial: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Shape:
    """The output's shape; ``input`` has ``spatial`` dims after the channels, and may lack the batch."""
    _check_ndim(input, spatial)
    kernel = expand(kernel_size, spatial)
    step = kernel if stride is None or stride == () else expand(stride, spatial)
    pad, dilate = expand(padding, spatial), expand(dilation, spatial)
    lead = input.ndim - spatial
    sizes = [windows(n, k, s, p, d, ceil_mode) for n, k, s, p, d in zip(input.shape[lead:], kernel, step, pad, dilate, strict=True)]
    return (*input.shape[:lead], *sizes)


def _check_ndim(input: Tensor, spatial: int) -> None:
    if input.ndim not in (spatial + 1, spatial + 2) or 0 in input.shape[1:]:
        raise ShapeError(
            f"pooling over {spatial} dimensions needs {spatial + 1} or {spatial + 2} dimensions, got shape {list(input.shape)}"
        )


def _like(k: Tape, model: Tensor, shape: Shape, dtype: str) -> Tensor:
    """A new tensor in the memory format ``model`` suggests."""
    last = len(shape) == model.ndim and suggests_channels_last(model)
    return k.empty(shape, dtype, channels_last_strides(shape) if last else None)


def _max_pool(k: Tape, input: Tensor, shape: Shape, return_indices: bool) -> Any:
    k.save(input=input)
    last = suggests_channels_last(input)
    out, indices = _like(k, input, shape, input.dtype), _like(k, input, shape, "int64")
    k.free(contiguous(k, input, last))
    k.save(indices=indices)
    return (out, indices) if return_indices else out


def _max_pool_backward(k: Tape, saved: Saved, grads: Grads, **attributes: Any) -> list[Tensor | None]:
    grad = grads[0]
    assert grad is not None
    input: Tensor = saved["input"]
    out = _like(k, input, input.shape, grad.dtype)
    _run_backward(k, grad, *((out, saved["indices"]) if suggests_channels_last(grad) else (saved["indices"], out)))
    return [out]


def _run_backward(k: Tape, grad: Tensor, *others: Tensor) -> None:
    """The kernel works in the format the gradient suggests, on copies of what lies otherwise."""
    last = suggests_channels_last(grad)
    for t in (grad, *others):
        contiguous(k, t, last)


def _adaptive_max_pool2d_backward(k: Tape, saved: Saved, grads: Grads, **attributes: Any) -> list[Tensor | None]:
    grad = grads[0]
    assert grad is not None
    input: Tensor = saved["input"]
    out = _like(k, input, input.shape, grad.dtype)
    contiguous(k, grad, suggests_channels_last(input))
    return [out]


def _max_pool2d(
    k: Tape, input: Tensor, *, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, return_indices: bool
) -> Any:
    return _max_pool(k, input, pooled_shape(input, 2, kernel_size, stride, padding, dilation, ceil_mode), return_indices)


def _max_pool3d(
    k: Tape, input: Tensor, *, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, return_indices: bool
) -> Any:
    if input.ndim == 4 and suggests_channels_last(input):
        raise UnsupportedError("max_pool3d without a batch of a tensor that lies channels_last: torch does not take it")
    return _max_pool(k, input, pooled_shape(input, 3, kernel_size, stride, padding, dilation, ceil_mode), return_indices)


def _plain_max_pool1d(k: Tape, input: Tensor, *, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Tensor:
    out = k.empty(pooled_shape(input, 1, kernel_size, stride, padding, dilation, ceil_mode), input.dtype)
    contiguous(k, input)
    return out


def _max_pool1d(
    c: Caller, input: Any, *, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, return_indices: bool
) -> Any:
    if not return_indices and not (c.grad_mode and input.requires_grad):
        return c.call("_max_pool1d", input, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode)
    numbers = {
        "kernel_size": _tall(kernel_size, 1),
        "stride": _tall_stride(stride),
        "padding": _tall(padding, 0),
        "dilation": _tall(dilation, 1),
    }
    flat = c.call("unsqueeze", input, dim=-2)
    pooled = c.call("max_pool2d", flat, **numbers, ceil_mode=ceil_mode, return_indices=return_indices)
    if return_indices:
        return tuple(c.call("squeeze", t, dim=-2) for t in pooled)
    return c.call("squeeze", pooled, dim=-2)


def _tall_stride(stride: Any) -> Any:
    """Left out, it is as wide as the window."""
    return None if stride is None or stride == () else _tall(stride, 1)


def _tall(value: Any, height: int) -> tuple[int, int]:
    return (height, *expand(value, 1))  # type: ignore[return-value]


def _avg_pool(k: Tape, input: Tensor, shape: Shape, dense: bool) -> Tensor:
    """``dense``: the kernel knows the contiguous format only."""
    k.save(input=input)
    last = not dense and suggests_channels_last(input)
    out = k.empty(shape, input.dtype) if dense else _like(k, input, shape, input.dtype)
    k.free(contiguous(k, input, last))
    return out


def _avg_pool_backward(k: Tape, saved: Saved, grads: Grads, dense: bool) -> list[Tensor | None]:
    grad, input = incoming(grads), saved["input"]
    if dense:
        out = k.empty(input.shape, grad.dtype)
        contiguous(k, grad)
    else:
        out = _like(k, input, input.shape, grad.dtype)
        _run_backward(k, grad, out)
    return [out]


def _avg_pool2d(k: Tape, input: Tensor, *, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, **rest: Any) -> Tensor:
    return _avg_pool(k, input, pooled_shape(input, 2, kernel_size, stride, padding, 1, ceil_mode), False)


def _avg_pool2d_backward(k: Tape, saved: Saved, grads: Grads, **attributes: Any) -> list[Tensor | None]:
    return _avg_pool_backward(k, saved, grads, False)


def check_avg_pool3d(input: Tensor, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool) -> Shape:
    """The output's shape; refuse what torch refuses."""
    shape = pooled_shape(input, 3, kernel_size, stride, padding, 1, ceil_mode)
    if any(n < window for n, window in zip(input.shape[-3:], expand(kernel_size, 3), strict=True)):
        raise ShapeError(f"volume {list(input.shape[-3:])} is smaller than the kernel {list(expand(kernel_size, 3))}")
    return shape


def _avg_pool3d(k: Tape, input: Tensor, *, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, **rest: Any) -> Tensor:
    refuse_dtypes("avg_pool3d", input, HALVES)
    shape = check_avg_pool3d(input, kernel_size, stride, padding, ceil_mode)
    return _avg_pool(k, input, shape, True)


def _avg_pool3d_backward(k: Tape, saved: Saved, grads: Grads, **attributes: Any) -> list[Tensor | None]:
    return _avg_pool_backward(k, saved, grads, True)


def _avg_pool1d(c: Caller, input: Any, *, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool) -> Any:
    pooled = c.call(
        "avg_pool2d",
        c.call("unsqueeze", input, dim=-2),
        kernel_size=_tall(kernel_size, 1),
        stride=_tall_stride(stride),
        padding=_tall(padding, 0),
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
    )
    return c.call("squeeze", pooled, dim=-2)


# adaptive --------------------------------------------------------------------------------------------------------------


def adaptive_sizes(shape: Shape, spatial: int, output_size: Any) -> Shape:
    """The wanted output sizes; None keeps a dim's own."""
    wanted = (output_size,) * spatial if output_size is None or isinstance(output_size, int) else tuple(output_size)
    if len(wanted) != spatial:
        raise ShapeError(f"expected {spatial} output sizes, got {len(wanted)}")
    sizes = tuple(own if n is None else n for n, own in zip(wanted, shape[len(shape) - spatial :], strict=True))
    if any(n <= 0 for n in sizes):
        raise ShapeError(f"output sizes must be positive, got {list(sizes)}")
    return sizes


def adaptive_shape(input: Tensor, output_size: Shape) -> Shape:
    """The output's shape; ``input`` may lack the batch."""
    _check_ndim(input, len(output_size))
    return (*input.shape[: input.ndim - len(output_size)], *output_size)


def _adaptive_avg_pool(k: Tape, input: Tensor, *, output_size: Shape) -> Tensor:
    return _avg_pool_any(k, input, adaptive_shape(input, output_size), len(output_size) == 3)


def _avg_pool_any(k: Tape, input: Tensor, shape: Shape, strided: bool) -> Tensor:
    k.save(input=input)
    if strided:
        return k.empty(shape, input.dtype)
    out = _like(k, input, shape, input.dtype)
    k.free(contiguous(k, input, suggests_channels_last(input)))
    return out


def _adaptive_avg_pool_backward(k: Tape, saved: Saved, grads: Grads, *, output_size: Shape) -> list[Tensor | None]:
    return _avg_pool_backward(k, saved, grads, len(output_size) == 3)


def _adaptive_avg_poolnd(spatial: int) -> Any:
    def compose(c: Caller, input: Any, *, output_size: Any) -> Any:
        shape = input.shape
        if len(shape) not in (spatial + 1, spatial + 2):
            raise ShapeError(
                f"adaptive pooling over {spatial} dimensions needs {spatial + 1} or {spatial + 2} dimensions, got {list(shape)}"
            )
        sizes = adaptive_sizes(shape, spatial, output_size)
        if spatial == 1:
            pooled = c.call("adaptive_avg_pool2d", c.call("unsqueeze", input, dim=-2), output_size=(1, *sizes))
            return c.call("squeeze", pooled, dim=-2)
        if sizes != (1,) * spatial:
            return c.call("_adaptive_avg_pool", input, output_size=sizes)
        mean = c.call("mean", input, dim=tuple(range(-spatial, 0)), keepdim=True)
        if not suggests_channels_last(Tensor(input.spec.shape, input.spec.strides, input.spec.dtype, 0)) or len(shape) != spatial + 2:
            return mean
        n, channels = shape[:2]
        return c.call("as_strided_", mean, size=(n, channels, *(1,) * spatial), stride=(channels, 1, *(channels,) * spatial))

    return compose


def _adaptive_max_pool(k: Tape, input: Tensor, *, output_size: Any, return_indices: bool, spatial: int) -> Any:
    _check_ndim(input, spatial)
    shape = adaptive_shape(input, adaptive_sizes(input.shape, spatial, output_size))
    if spatial == 2:
        return _max_pool(k, input, shape, return_indices)
    k.save(input=input)
    out, indices = k.empty(shape, input.dtype), k.empty(shape, "int64")
    k.save(indices=indices)
    return (out, indices) if return_indices else out


def _adaptive_max_pool2d(k: Tape, input: Tensor, *, output_size: Any, return_indices: bool) -> Any:
    return _adaptive_max_pool(k, input, output_size=output_size, return_indices=return_indices, spatial=2)


def _adaptive_max_pool3d(k: Tape, input: Tensor, *, output_size: Any, return_indices: bool) -> Any:
    return _adaptive_max_pool(k, input, output_size=output_size, return_indices=return_indices, spatial=3)


def _adaptive_max_pool3d_backward(k: Tape, saved: Saved, grads: Grads, **attributes: Any) -> list[Tensor | None]:
    grad = grads[0]
    assert grad is not None
    out = k.empty(saved["input"].shape, grad.dtype)
    contiguous(k, grad)
    return [out]


def _adaptive_max_pool1d(c: Caller, input: Any, *, output_size: Any, return_indices: bool) -> Any:
    flat = c.call("unsqueeze", input, dim=-2)
    sizes = (1, *adaptive_sizes(input.shape, 1, output_size))
    pooled = c.call("adaptive_max_pool2d", flat, output_size=sizes, return_indices=return_indices)
    if return_indices:
        return tuple(c.call("squeeze", t, dim=-2) for t in pooled)
    return c.call("squeeze", pooled, dim=-2)


# others ----------------------------------------------------------------------------------------------------------------


def _lp_pool(spatial: int) -> Any:
    def compose(c: Caller, input: Any, *, norm_type: float, kernel_size: Any, stride: Any, ceil_mode: bool) -> Any:
        """(sign(y) * relu(abs(y)) * n) ** (1 / p) with y the average of x ** p."""
        powers = c.call("pow", input, None, exponent=norm_type)
        means = c.call(f"avg_pool{spatial}d", powers, kernel_size=kernel_size, stride=stride, ceil_mode=ceil_mode)
        c.drop(powers)
        signs, sizes = c.call("sign", means), c.call("abs", means)
        positive = c.call("relu", sizes)
        c.drop(sizes)
        signed = c.call("mul", signs, positive)
        c.drop(signs, positive)
        volume = 1
        for n in expand(kernel_size, spatial):
            volume = volume * n
        total = c.call("mul", signed, None, value=volume)
        c.drop(signed)
        return c.call("pow", total, None, exponent=1.0 / norm_type)

    return compose


def sizes_or_none(value: Any) -> Any:
    """A size, or one a dim with None for "as it is"."""
    return tuple(optional(integer)(v) for v in value) if isinstance(value, list | tuple) else optional(integer)(value)


KERNEL = Attribute(name="kernel_size", default=REQUIRED, check=per_dim)
STRIDE = Attribute(name="stride", default=None, check=optional(per_dim))
PADDING = Attribute(name="padding", default=0, check=per_dim)
CEIL = Attribute(name="ceil_mode", default=False, check=flag)
INDICES = Attribute(name="return_indices", default=False, check=flag)
MAX = (KERNEL, STRIDE, PADDING, Attribute(name="dilation", default=1, check=per_dim), CEIL, INDICES)
AVG = (KERNEL, STRIDE, PADDING, CEIL, Attribute(name="count_include_pad", default=True, check=flag))
OVERRIDE = Attribute(name="divisor_override", default=None, check=optional(integer))
OUTPUT = Attribute(name="output_size", default=REQUIRED, check=sizes_or_none)
SHAPES: dict[int, Shape] = {1: (2, 3, 9), 2: (2, 3, 7, 8), 3: (2, 3, 5, 6, 7)}


def _pool_examples(spatial: int, *calls: dict[str, Any]) -> tuple[Example, ...]:
    shape = SHAPES[spatial]
    first = (*(Example(shapes=(shape,), attributes=a) for a in calls), Example(shapes=(shape[1:],), attributes=calls[0]))
    return first if spatial == 1 else (*first, *(Example(shapes=(shape,), attributes=a, layout="channels_last") for a in calls[:2]))


MAX_CALLS: tuple[dict[str, Any], ...] = (
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 2, "dilation": 2, "stride": 1, "return_indices": True},
)
AVG_CALLS: tuple[dict[str, Any], ...] = (
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 3, "stride": 1, "padding": 1, "count_include_pad": False},
)
ADAPTIVE_CALLS: tuple[dict[str, Any], ...] = ({"output_size": 1}, {"output_size": 2}, {"output_size": 11})


def _pooled(spatial: int) -> Facts:
    """Of a window in that many dims."""

    def geometry(given: Attributes, shapes: Sequence[Shape | None], dims: int) -> Windows:
        if dims != spatial:
            return (None,) * dims
        kernel = expand(given["kernel_size"], dims)
        stride = kernel if given["stride"] is None else expand(given["stride"], dims)
        padding, dilation = expand(given.get("padding", 0), dims), expand(given.get("dilation", 1), dims)
        return [slid(s, p, d * (k - 1)) for s, p, d, k in zip(stride, padding, dilation, kernel, strict=True)]

    return EVERYWHERE_FACTS.but(reach=window_by(geometry))


MAXIMA_OF_VOLUMES = Dispatched(
    {"max_pool3d": FLOAT32, "max_pool3d_with_indices": FALLS_THROUGH},
    lambda given: "max_pool3d_with_indices" if given["return_indices"] else "max_pool3d",
)
_row = partial(row, torch=FUNCTIONAL)
_composite = partial(composite, torch=FUNCTIONAL)
MAXIMA = ("input", "indices")
ROWS = (
    _row(
        "max_pool2d",
        _max_pool2d,
        _max_pool_backward,
        MAX,
        _pool_examples(2, *MAX_CALLS),
        f"derivatives.yaml: max_pool2d_with_indices; {NATIVE}/DilatedMaxPool2d.cpp",
        facts=_pooled(2),
        saves=MAXIMA,
    ),
    _row(
        "max_pool3d",
        _max_pool3d,
        _max_pool_backward,
        MAX,
        _pool_examples(3, *MAX_CALLS),
        f"derivatives.yaml: max_pool3d_with_indices; {NATIVE}/DilatedMaxPool3d.cpp",
        facts=_pooled(3).but(autocast=MAXIMA_OF_VOLUMES),
        saves=MAXIMA,
    ),
    _row(
        "_max_pool1d",
        _plain_max_pool1d,
        None,
        MAX[:-1],
        (Example(shapes=(SHAPES[1],), attributes={"kernel_size": 2}, frozen=(0,)),),
        f"{NATIVE}/MaxPooling.cpp (max_pool1d without gradient)",
        facts=_pooled(1),
        torch="torch.max_pool1d",
    ),
    _row(
        "avg_pool2d",
        _avg_pool2d,
        _avg_pool2d_backward,
        (*AVG, OVERRIDE),
        _pool_examples(2, *AVG_CALLS),
        f"derivatives.yaml: avg_pool2d; {NATIVE}/AveragePool2d.cpp",
        facts=_pooled(2),
        saves=("input",),
    ),
    _row(
        "avg_pool3d",
        _avg_pool3d,
        _avg_pool3d_backward,
        (*AVG, OVERRIDE),
        _pool_examples(3, *AVG_CALLS),
        f"derivatives.yaml: avg_pool3d; {NATIVE}/AveragePool3d.cpp",
        facts=_pooled(3).but(autocast=FLOAT32),
        saves=("input",),
    ),
    _row(
        "_adaptive_avg_pool",
        _adaptive_avg_pool,
        _adaptive_avg_pool_backward,
        (Attribute(name="output_size", default=REQUIRED, check=integers),),
        tuple(
            Example(shapes=(SHAPES[2],), attributes={"output_size": (3, 4)}, layout=layout) for layout in ("contiguous", "channels_last")
        ),
        f"derivatives.yaml: _adaptive_avg_pool2d, _adaptive_avg_pool3d; {NATIVE}/AdaptiveAveragePooling.cpp",
        facts=EVERYWHERE_FACTS,
        saves=("input",),
        torch="torch.ops.aten._adaptive_avg_pool2d",
    ),
    _row(
        "adaptive_max_pool2d",
        _adaptive_max_pool2d,
        _adaptive_max_pool2d_backward,
        (OUTPUT, INDICES),
        _pool_examples(2, *ADAPTIVE_CALLS),
        f"derivatives.yaml: adaptive_max_pool2d; {NATIVE}/AdaptiveMaxPooling2d.cpp",
        facts=EVERYWHERE_FACTS,
        saves=MAXIMA,
    ),
    _row(
        "adaptive_max_pool3d",
        _adaptive_max_pool3d,
        _adaptive_max_pool3d_backward,
        (OUTPUT, INDICES),
        _pool_examples(3, *ADAPTIVE_CALLS),
        f"derivatives.yaml: adaptive_max_pool3d; {NATIVE}/AdaptiveMaxPooling3d.cpp",
        facts=EVERYWHERE_FACTS.but(autocast=FLOAT32),
        saves=MAXIMA,
    ),
)
COMPOSITE_ROWS = (
    _composite(
        "max_pool1d",
        _max_pool1d,
        MAX,
        _pool_examples(1, *MAX_CALLS),
        f"{NATIVE}/MaxPooling.cpp, Pooling.cpp",
        facts=_pooled(1).but(flops=None),
    ),
    _composite("avg_pool1d", _avg_pool1d, AVG, _pool_examples(1, *AVG_CALLS), f"{NATIVE}/Pooling.cpp", facts=_pooled(1).but(flops=None)),
    *(
        _composite(
            f"adaptive_avg_pool{n}d",
            _adaptive_avg_poolnd(n),
            (OUTPUT,),
            _pool_examples(n, *ADAPTIVE_CALLS),
            f"{NATIVE}/AdaptiveAveragePooling.cpp, Pooling.cpp",
            facts=EVERYWHERE_CALLS.but(autocast=FLOAT32 if n == 3 else FALLS_THROUGH),
        )
        for n in (1, 2, 3)
    ),
    _composite(
        "adaptive_max_pool1d",
        _adaptive_max_pool1d,
        (OUTPUT, INDICES),
        _pool_examples(1, *ADAPTIVE_CALLS),
        f"{NATIVE}/Pooling.cpp",
        facts=EVERYWHERE_CALLS,
    ),
    *(
        _composite(
            f"lp_pool{n}d",
            _lp_pool(n),
            (Attribute(name="norm_type", default=REQUIRED, check=number), KERNEL, STRIDE, CEIL),
            _pool_examples(n, {"norm_type": 2, "kernel_size": 2}, {"norm_type": 3.0, "kernel_size": 3, "stride": 2})[:2],
            f"torch/nn/functional.py (lp_pool{n}d)",
            facts=_pooled(n).but(flops=None),
        )
        for n in (1, 2, 3)
    ),
)
