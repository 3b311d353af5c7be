"""Pooling on CUDA. Backward works in the format of the input; maxima are always taken with their indices, also without gradients.

Adaptive kernels read contiguous copies but where an image has no batch (strides do) or lies channels_last (averages of images).

Sources: aten/src/ATen/native/Pooling.cpp, cuda/DilatedMaxPool2d.cu, DilatedMaxPool3d.cu, AveragePool2d.cu, AveragePool3d.cu,
AdaptiveAveragePooling.cu, AdaptiveAveragePooling3d.cu, AdaptiveMaxPooling2d.cu, AdaptiveMaxPooling3d.cu.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from memest.network.tensor import Shape
from memest.ops.aten.copies import contiguous, suggests_channels_last
from memest.ops.aten.iterator import incoming
from memest.ops.families.pooling import ROWS as ON_CPU
from memest.ops.families.pooling import adaptive_shape, adaptive_sizes, check_avg_pool3d, pooled_shape
from memest.ops.operator import Operator
from memest.ops.tape import Tape, Tensor
from memest.runtimes.torch.cuda.copies import formatted, passing, release

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def _max_pool2d_backward(k: Tape, saved: Saved, grads: Grads, **attributes: Any) -> list[Tensor | None]:
    """The input is made dense as well, though its values are not read."""
    return _in_format_of_input(k, saved, grads, ("input", None, "indices"))


def _max_pool3d_backward(k: Tape, saved: Saved, grads: Grads, **attributes: Any) -> list[Tensor | None]:
    return _in_format_of_input(k, saved, grads, (None, "indices"))


def _avg_pool2d_backward(k: Tape, saved: Saved, grads: Grads, **attributes: Any) -> list[Tensor | None]:
    return _in_format_of_input(k, saved, grads, ("input", None))


def _in_format_of_input(k: Tape, saved: Saved, grads: Grads, read: tuple[str | None, ...]) -> list[Tensor | None]:
    """A gradient that lies as the input suggests, and dense copies of what is ``read`` (None: the incoming gradient)."""
    grad, input = grads[0], saved["input"]
    assert grad is not None
    last = suggests_channels_last(input)
    out = formatted(k, input.shape, grad.dtype, last)
    pairs = [(contiguous(k, t, last), t) for t in (grad if role is None else saved[role] for role in read)]
    release(k, *reversed(pairs))
    return [out]


def _one_dimensional_max(k: Tape, input: Tensor, *, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Tensor:
    """``max_pool1d_with_indices``, whose indices nobody keeps."""
    shape = pooled_shape(input, 1, kernel_size, stride, padding, dilation, ceil_mode)
    out, indices = k.empty(shape, input.dtype), k.empty(shape, "int64")
    passing(k, input)
    k.free(indices)
    return out


def _avg_pool3d(k: Tape, input: Tensor, *, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, **rest: Any) -> Tensor:
    shape = check_avg_pool3d(input, kernel_size, stride, padding, ceil_mode)
    k.save(input=input)
    out = k.empty(shape, input.dtype)
    passing(k, input)
    return out


def _adaptive_avg_pool(k: Tape, input: Tensor, *, output_size: Shape) -> Tensor:
    shape = adaptive_shape(input, output_size)
    k.save(input=input)
    last = len(output_size) == 2 and suggests_channels_last(input)
    if last:
        return formatted(k, shape, input.dtype, True)
    dense = contiguous(k, input) if input.ndim == len(output_size) + 2 else input
    out = k.empty(shape, input.dtype)
    release(k, (dense, input))
    return out


def _adaptive_avg_pool_backward(k: Tape, saved: Saved, grads: Grads, *, output_size: Shape) -> list[Tensor | None]:
    grad, input = incoming(grads), saved["input"]
    last = len(output_size) == 2 and suggests_channels_last(input)
    out = formatted(k, input.shape, grad.dtype, last)
    if not last:
        passing(k, grad)
    return [out]


def _adaptive_max_pool2d(k: Tape, input: Tensor, *, output_size: Any, return_indices: bool) -> Any:
    """Results that shall lie channels_last are made contiguous first."""
    shape = adaptive_shape(input, adaptive_sizes(input.shape, 2, output_size))
    k.save(input=input)
    last = suggests_channels_last(input)
    out, indices = formatted(k, shape, input.dtype, last), formatted(k, shape, "int64", last)
    made = [t for t in (out, indices) if not t.is_contiguous]
    copies = [k.empty(shape, t.dtype) for t in made]
    if input.ndim == 4:
        passing(k, input)
    k.free(*reversed(copies))
    k.save(indices=indices)
    return (out, indices) if return_indices else out


def _adaptive_max_pool2d_backward(k: Tape, saved: Saved, grads: Grads, **attributes: Any) -> list[Tensor | None]:
    grad, input = grads[0], saved["input"]
    assert grad is not None
    out = formatted(k, input.shape, grad.dtype, suggests_channels_last(input))
    pairs = [(contiguous(k, t), t) for t in (grad, saved["indices"])]
    made = None if out.is_contiguous else k.empty(input.shape, grad.dtype)
    k.free(made)
    release(k, *reversed(pairs))
    return [out]


def _adaptive_max_pool3d(k: Tape, input: Tensor, *, output_size: Any, return_indices: bool) -> Any:
    shape = adaptive_shape(input, adaptive_sizes(input.shape, 3, output_size))
    k.save(input=input)
    out, indices = k.empty(shape, input.dtype), k.empty(shape, "int64")
    if input.ndim == 5:
        passing(k, input)
    k.save(indices=indices)
    return (out, indices) if return_indices else out


BY_NAME = {row.name: row for row in ON_CPU}
CUDA = "aten/src/ATen/native/cuda"
ROWS: tuple[Operator, ...] = (
    replace(
        BY_NAME["max_pool2d"],
        backward=_max_pool2d_backward,
        source=f"derivatives.yaml: max_pool2d_with_indices; {CUDA}/DilatedMaxPool2d.cu",
    ),
    replace(
        BY_NAME["max_pool3d"],
        backward=_max_pool3d_backward,
        source=f"derivatives.yaml: max_pool3d_with_indices; {CUDA}/DilatedMaxPool3d.cu",
    ),
    replace(BY_NAME["_max_pool1d"], forward=_one_dimensional_max, source=f"aten/src/ATen/native/Pooling.cpp; {CUDA}/DilatedMaxPool2d.cu"),
    replace(
        BY_NAME["avg_pool2d"],
        backward=_avg_pool2d_backward,
        source=f"derivatives.yaml: avg_pool2d; {CUDA}/AveragePool2d.cu",
    ),
    replace(BY_NAME["avg_pool3d"], forward=_avg_pool3d, source=f"derivatives.yaml: avg_pool3d; {CUDA}/AveragePool3d.cu"),
    replace(
        BY_NAME["_adaptive_avg_pool"],
        forward=_adaptive_avg_pool,
        backward=_adaptive_avg_pool_backward,
        source=f"derivatives.yaml: _adaptive_avg_pool2d, _adaptive_avg_pool3d; {CUDA}/AdaptiveAveragePooling.cu, …3d.cu",
    ),
    replace(
        BY_NAME["adaptive_max_pool2d"],
        forward=_adaptive_max_pool2d,
        backward=_adaptive_max_pool2d_backward,
        source=f"derivatives.yaml: adaptive_max_pool2d; {CUDA}/AdaptiveMaxPooling2d.cu",
    ),
    replace(
        BY_NAME["adaptive_max_pool3d"],
        forward=_adaptive_max_pool3d,
        source=f"derivatives.yaml: adaptive_max_pool3d; {CUDA}/AdaptiveMaxPooling3d.cu",
    ),
)
SAME: tuple[str, ...] = ()
