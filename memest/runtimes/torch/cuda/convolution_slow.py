"""Convolutions without cuDNN: columns of one image after the other (im2col), each multiplied by cuBLAS.

They run where ``torch.backends.cudnn.enabled`` is off, where cuDNN has no bfloat16 for the card, and where an output_padding is not below
the stride. None knows groups: they run once a group on copies, and their results are put together.

Sources: aten/src/ATen/native/cuda/ConvolutionMM2d.cu, NaiveDilatedConvolution.cu, NaiveConvolutionTranspose2d.cu,
NaiveConvolutionTranspose3d.cu; Convolution.cpp (``_select_conv_backend``, the loops over groups).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Literal

from memest.ops.aten.copies import cat, contiguous, suggests_channels_last
from memest.ops.aten.cublas import cublas
from memest.ops.aten.reductions import sum_into
from memest.ops.families.convolution.geometry import Geometry
from memest.ops.tape import Tape, Tensor
from memest.runtimes.torch.cuda.copies import release

Backend = Literal["slow2d", "slow_dilated", "slow_transpose2d", "slow_transpose3d"]
Mask = tuple[bool, bool, bool]
Gradients = list[Tensor | None]


def select_slow(input: Tensor, g: Geometry) -> Backend:
    """What is left once cuDNN and the depthwise kernels are out; volumes count as dilated."""
    volumetric = input.ndim == 5
    if g.transposed:
        return "slow_transpose3d" if volumetric else "slow_transpose2d"
    return "slow_dilated" if volumetric or g.is_dilated else "slow2d"


def forward(k: Tape, backend: Backend, input: Tensor, weight: Tensor, biased: bool, g: Geometry) -> Tensor:
    """The result, which is contiguous."""
    kernel = FORWARD[backend]
    x, w = contiguous(k, input), contiguous(k, weight)
    if g.groups == 1:
        out = kernel(k, x, w, biased, g)
    else:
        results: list[Tensor | None] = []
        for _ in range(g.groups):
            images, filters = _part(k, x, 1, g.groups), _part(k, w, 0, g.groups)
            dense = contiguous(k, images), contiguous(k, filters)
            results.append(kernel(k, *dense, biased, g._replace(groups=1)))
            release(k, (dense[1], filters), (dense[0], images), (filters, w), (images, x))
        out = _cat(k, results, 1)
        k.free(*reversed(results))
    release(k, (w, weight), (x, input))
    return out


def backward(k: Tape, backend: Backend, grad: Tensor, input: Tensor, weight: Tensor, g: Geometry, mask: Mask) -> Gradients:
    """Gradients of input, weight and bias, as ``mask`` wants them."""
    kernel = BACKWARD[backend]
    x, w = contiguous(k, input), contiguous(k, weight)
    if g.groups == 1:
        found = kernel(k, grad, x, w, g, mask)
    else:
        results: list[Gradients] = []
        for _ in range(g.groups):
            above, images, filters = _part(k, grad, 1, g.groups), _part(k, x, 1, g.groups), _part(k, w, 0, g.groups)
            results.append(kernel(k, above, images, filters, g._replace(groups=1), mask))
            release(k, (filters, w), (images, x), (above, grad))
        inputs, weights, biases = zip(*results, strict=True)
        found = [_cat(k, parts, dim) if part else None for parts, dim, part in zip((inputs, weights, biases), (1, 0, 0), mask, strict=True)]
        k.free(*biases, *weights, *inputs)
    release(k, (w, weight), (x, input))
    return found


def _part(k: Tape, t: Tensor, dim: int, groups: int) -> Tensor:
    """``subtensor``: a group's share of ``t``, dense in its format."""
    shape = list(t.shape)
    shape[dim] = shape[dim] // groups
    return contiguous(k, k.alias(t, shape, t.strides), suggests_channels_last(t))


def _cat(k: Tape, parts: Sequence[Tensor | None], dim: int) -> Tensor:
    return cat(k, [t for t in parts if t is not None], dim)


def _columns(k: Tape, channels: int, weight: Tensor, positions: Sequence[int], dtype: str) -> Tensor:
    return k.empty((channels * prod(weight.shape[2:]), prod(positions)), dtype)


def _is_pointwise(weight: Tensor, g: Geometry) -> bool:
    """Whether the columns would be the data itself."""
    return all(n == 1 for n in (*weight.shape[2:], *g.stride, *g.dilation)) and not any(g.padding)


def _bias_gradient(k: Tape, grad: Tensor) -> Tensor:
    out = k.empty((grad.shape[1],), grad.dtype)
    sum_into(k, grad, out, [d for d in range(grad.ndim) if d != 1])
    return out


# flat ones ---------------------------------------------------------------------------------------------------------------


def _forward_mm(k: Tape, input: Tensor, weight: Tensor, biased: bool, g: Geometry) -> Tensor:
    shape = g.output_shape(input, weight)
    out = k.empty(shape, input.dtype)
    columns = None if _is_pointwise(weight, g) else _columns(k, input.shape[1], weight, shape[2:], input.dtype)
    cublas(k)
    k.free(columns)
    return out


def _backward_mm(k: Tape, grad: Tensor, input: Tensor, weight: Tensor, g: Geometry, mask: Mask) -> Gradients:
    """One buffer of columns serves both gradients."""
    above = contiguous(k, grad)
    columns = for_input = for_weight = for_bias = None
    if mask[0]:
        for_input = k.empty(input.shape, input.dtype)
        columns = _columns(k, input.shape[1], weight, grad.shape[2:], input.dtype)
        cublas(k)
    if mask[2]:
        for_bias = _bias_gradient(k, above)
    if mask[1]:
        for_weight = k.empty(weight.shape, weight.dtype)
        if columns is None:
            columns = _columns(k, input.shape[1], weight, grad.shape[2:], input.dtype)
        cublas(k)
    k.free(columns)
    release(k, (above, grad))
    return [for_input, for_weight, for_bias]


def _forward_dilated(k: Tape, input: Tensor, weight: Tensor, biased: bool, g: Geometry) -> Tensor:
    shape = g.output_shape(input, weight)
    out = k.empty(shape, input.dtype)
    columns = _columns(k, input.shape[1], weight, shape[2:], input.dtype)
    cublas(k)
    k.free(columns)
    return out


def _backward_dilated(k: Tape, grad: Tensor, input: Tensor, weight: Tensor, g: Geometry, mask: Mask) -> Gradients:
    """The bias's gradient is summed up image by image."""
    above = contiguous(k, grad)
    for_input = k.empty(input.shape, input.dtype) if mask[0] else None
    for_weight = k.empty(weight.shape, weight.dtype) if mask[1] else None
    for_bias = k.empty((grad.shape[1],), grad.dtype) if mask[2] else None
    columns = _columns(k, input.shape[1], weight, grad.shape[2:], input.dtype) if mask[0] or mask[1] else None
    if columns is not None:
        cublas(k)
    if mask[2]:
        for _ in range(grad.shape[0]):
            k.free(_sum_of_one(k, above))
    k.free(columns)
    release(k, (above, grad))
    return [for_input, for_weight, for_bias]


def _sum_of_one(k: Tape, grad: Tensor) -> Tensor:
    one = k.alias(grad, grad.shape[1:], grad.strides[1:])
    out = k.empty((grad.shape[1],), grad.dtype)
    sum_into(k, one, out, list(range(1, one.ndim)))
    return out


# transposed ones ---------------------------------------------------------------------------------------------------------


def _forward_transpose(k: Tape, input: Tensor, weight: Tensor, biased: bool, g: Geometry) -> Tensor:
    """Ones spread the bias. A volume's result begins as large as the input and only ever grows."""
    shape = g.output_shape(input, weight)
    volumetric = input.ndim == 5
    out = k.empty(input.shape if volumetric else shape, input.dtype)
    if volumetric and prod(shape) > input.numel:
        grown = k.empty(shape, input.dtype)
        k.free(out)
        out = grown
    columns = _columns(k, weight.shape[1], weight, input.shape[2:], input.dtype)
    ones = k.empty(shape[2:], input.dtype) if biased else None
    cublas(k)
    k.free(ones, columns)
    return k.alias(out, shape)


def _backward_transpose(k: Tape, grad: Tensor, input: Tensor, weight: Tensor, g: Geometry, mask: Mask) -> Gradients:
    for_input = for_weight = for_bias = None
    if mask[0]:
        above = contiguous(k, grad)
        for_input = k.empty(input.shape, input.dtype)
        columns = None if _is_pointwise(weight, g) else _columns(k, weight.shape[1], weight, input.shape[2:], input.dtype)
        cublas(k)
        k.free(columns)
        release(k, (above, grad))
    if mask[1]:
        for_weight = k.empty(weight.shape, weight.dtype)
    if mask[2]:
        for_bias = k.empty((grad.shape[1],), grad.dtype)
    if mask[1] or mask[2]:
        above = contiguous(k, grad)
        columns = None if _is_pointwise(weight, g) else _columns(k, weight.shape[1], weight, input.shape[2:], input.dtype)
        if for_bias is not None:
            sum_into(k, above, for_bias, [d for d in range(grad.ndim) if d != 1])
        k.free(columns)
        release(k, (above, grad))
    return [for_input, for_weight, for_bias]


FORWARD = {
    "slow2d": _forward_mm,
    "slow_dilated": _forward_dilated,
    "slow_transpose2d": _forward_transpose,
    "slow_transpose3d": _forward_transpose,
}
BACKWARD = {
    "slow2d": _backward_mm,
    "slow_dilated": _backward_dilated,
    "slow_transpose2d": _backward_transpose,
    "slow_transpose3d": _backward_transpose,
}
