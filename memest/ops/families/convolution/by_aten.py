"""Convolutions by ATen's own kernels: columns of the input (im2col), then a matrix product.

They take what oneDNN leaves: single small images, other dtypes, unusual output paddings. None knows groups but the volumetric one,
so the others run once a group on copies, and their results are put together.

Sources: aten/src/ATen/native/ConvolutionMM2d.cpp, ConvolutionMM3d.cpp, NaiveDilatedConvolution.cpp, NaiveConvolutionTranspose2d.cpp,
NaiveConvolutionTranspose3d.cpp; Convolution.cpp (the loop over groups).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from memest.machines.cpu import Cpu
from memest.network.tensor import Shape, channels_last_strides
from memest.ops.aten.copies import cat, contiguous, suggests_channels_last
from memest.ops.aten.reductions import sum_into
from memest.ops.families.convolution.geometry import Backend, Geometry, runs_channels_last, select_backend
from memest.ops.tape import Tape, Tensor

Mask = tuple[bool, bool, bool]
Gradients = list[Tensor | None]


def forward(k: Tape, backend: Backend, input: Tensor, weight: Tensor, bias: Tensor | None, g: Geometry, last: bool) -> Tensor:
    """The result; operands lie in the format that ``last`` says."""
    kernel = FORWARD[backend]
    if g.groups == 1 or backend == "slow3d":
        return kernel(k, input, weight, bias, g, last)
    alone = g._replace(groups=1)
    results: list[Tensor | None] = []
    for _ in range(g.groups):
        images, filters = _part(k, input, 1, g.groups), _part(k, weight, 0, g.groups)
        results.append(kernel(k, images, filters, bias, alone, runs_channels_last(backend, images, filters)))
        _release(k, (filters, weight), (images, input))
    out = _cat(k, results, 1)
    k.free(*reversed(results))
    return out


def backward(k: Tape, backend: Backend, grad: Tensor, input: Tensor, weight: Tensor, g: Geometry, last: bool, mask: Mask) -> Gradients:
    """Gradients of input, weight and bias, as ``mask`` wants them."""
    kernel = BACKWARD[backend]
    if g.groups == 1 or backend == "slow3d":
        return kernel(k, grad, input, weight, g, last, mask)
    alone = g._replace(groups=1)
    results: list[Gradients] = []
    for _ in range(g.groups):
        above, images, filters = _part(k, grad, 1, g.groups), _part(k, input, 1, g.groups), _part(k, weight, 0, g.groups)
        results.append(kernel(k, above, images, filters, alone, runs_channels_last(backend, images, filters), mask))
        _release(k, (filters, weight), (images, input), (above, grad))
    inputs, weights, biases = zip(*results, strict=True)
    joined = [
        _cat(k, parts, dim) if wanted else None for parts, dim, wanted in zip((inputs, weights, biases), (1, 0, 0), mask, strict=True)
    ]
    k.free(*biases, *weights, *inputs)
    return joined


def _part(k: Tape, t: Tensor, dim: int, groups: int) -> Tensor:
    """``subtensor``: a group's share of ``t``, dense in its format."""
    shape = list(t.shape)
    shape[dim] = shape[dim] // groups
    return contiguous(k, k.alias(t, shape, t.strides), suggests_channels_last(t))


def _cat(k: Tape, parts: Sequence[Tensor | None], dim: int) -> Tensor:
    return cat(k, [t for t in parts if t is not None], dim)


def _release(k: Tape, *pairs: tuple[Tensor, Tensor]) -> None:
    """Drop each (copy, original) whose copy really is one."""
    k.free(*(copy for copy, original in pairs if copy.slot != original.slot))


def _empty(k: Tape, shape: Shape, dtype: str, last: bool) -> Tensor:
    return k.empty(shape, dtype, channels_last_strides(shape) if last else None)


def _is_pointwise(weight: Tensor, g: Geometry) -> bool:
    """True when the columns would be the data itself."""
    return all(n == 1 for n in (*weight.shape[2:], *g.stride, *g.dilation)) and not any(g.padding)


def _columns(k: Tape, images: int, channels: int, kernel: Shape, positions: Shape, dtype: str) -> Tensor:
    return k.empty((images, channels * prod(kernel), prod(positions)), dtype)


def _forward_mm(k: Tape, input: Tensor, weight: Tensor, bias: Tensor | None, g: Geometry, last: bool) -> Tensor:
    """ConvolutionMM2d and 3d: the columns of all images at once."""
    shape = g.output_shape(input, weight)
    columns = None if _is_view(weight, g) else _columns(k, input.shape[0], input.shape[1], weight.shape[2:], shape[2:], input.dtype)
    out = _empty(k, shape, input.dtype, last)
    k.free(columns)
    return out


def _is_view(weight: Tensor, g: Geometry) -> bool:
    return g.groups == 1 and _is_pointwise(weight, g)


def _backward_mm(k: Tape, grad: Tensor, input: Tensor, weight: Tensor, g: Geometry, last: bool, mask: Mask) -> Gradients:
    grad_input = _input_gradient_mm(k, grad, input, weight, g, last) if mask[0] else None
    grad_bias = _bias_gradient(k, grad) if mask[2] else None
    grad_weight = _weight_gradient_mm(k, grad, input, weight, g, last) if mask[1] else None
    return [grad_input, grad_weight, grad_bias]


def _input_gradient_mm(k: Tape, grad: Tensor, input: Tensor, weight: Tensor, g: Geometry, last: bool) -> Tensor:
    """Only the volumetric kernel takes its columns from torch's allocator; the flat one has them on the heap, one image a thread."""
    filters = contiguous(k, weight, last)
    above = contiguous(k, grad, last)
    grad_input = _empty(k, input.shape, input.dtype, last)
    if input.ndim == 5:
        k.free(_columns(k, input.shape[0], input.shape[1], weight.shape[2:], grad.shape[2:], input.dtype))
    _release(k, (above, grad), (filters, weight))
    return grad_input


def _weight_gradient_mm(k: Tape, grad: Tensor, input: Tensor, weight: Tensor, g: Geometry, last: bool) -> Tensor:
    grad_weight = _empty(k, weight.shape, weight.dtype, input.ndim == 4 and suggests_channels_last(weight))
    above = contiguous(k, grad, last)
    images = contiguous(k, input, last)
    if not _is_view(weight, g):
        columns = _columns(k, input.shape[0], input.shape[1], weight.shape[2:], grad.shape[2:], input.dtype)
        _release(k, (images, input))
        k.free(columns)
    _release(k, (images, input), (above, grad))
    return grad_weight


def _forward_dilated(k: Tape, input: Tensor, weight: Tensor, bias: Tensor | None, g: Geometry, last: bool) -> Tensor:
    """NaiveDilatedConvolution: the columns of one image."""
    shape = g.output_shape(input, weight)
    out = _empty(k, shape, input.dtype, last)
    k.free(_columns(k, 1, input.shape[1], weight.shape[2:], shape[2:], input.dtype))
    return out


def _backward_dilated(k: Tape, grad: Tensor, input: Tensor, weight: Tensor, g: Geometry, last: bool, mask: Mask) -> Gradients:
    above = contiguous(k, grad, last)
    grad_input = _empty(k, input.shape, input.dtype, last) if mask[0] else None
    grad_weight = _empty(k, weight.shape, weight.dtype, last) if mask[1] else None
    grad_bias = k.empty((grad.shape[1],), grad.dtype) if mask[2] else None
    columns = _columns(k, 1, input.shape[1], weight.shape[2:], grad.shape[2:], input.dtype) if mask[0] or mask[1] else None
    if mask[2]:
        for _ in range(grad.shape[0]):
            k.free(_bias_gradient(k, grad))
    k.free(columns)
    _release(k, (above, grad))
    return [grad_input, grad_weight, grad_bias]


def _forward_transpose_2d(k: Tape, input: Tensor, weight: Tensor, bias: Tensor | None, g: Geometry, last: bool) -> Tensor:
    """NaiveConvolutionTranspose2d: the columns of all images, even where they would be the data itself."""
    out = _empty(k, g.output_shape(input, weight), input.dtype, last)
    k.free(_columns(k, input.shape[0], weight.shape[1], weight.shape[2:], input.shape[2:], input.dtype))
    return out


def _forward_transpose_3d(k: Tape, input: Tensor, weight: Tensor, bias: Tensor | None, g: Geometry, last: bool) -> Tensor:
    """NaiveConvolutionTranspose3d: the output begins as large as the input and only ever grows; ones spread the bias."""
    shape = g.output_shape(input, weight)
    out = k.empty(input.shape, input.dtype)
    if prod(shape) > input.numel:
        grown = k.empty(shape, input.dtype)
        k.free(out)
        out = grown
    columns = _columns(k, 1, weight.shape[1], weight.shape[2:], input.shape[2:], input.dtype)
    ones = k.empty(shape[2:], input.dtype) if bias is not None else None
    k.free(ones, columns)
    return k.alias(out, shape)


def keeps_more(input: Tensor, weight: Tensor, g: Geometry, cpu: Cpu) -> bool:
    """Whether the result lies in a storage as large as the input, though it is smaller; what that depends on is recorded."""
    return shrinks(input, weight, g) and select_backend(input, weight, g, cpu) == "slow_transpose3d"


def shrinks(input: Tensor, weight: Tensor, g: Geometry) -> bool:
    """Whether a transposed convolution of volumes, of one group, makes something smaller than its input."""
    if not g.transposed or input.ndim != 5 or g.groups > 1:
        return False
    axes = zip(weight.shape[2:], g.stride, g.padding, g.output_padding, g.dilation, strict=True)
    spreads = all(d * (m - 1) + o + 1 - 2 * p >= s for m, s, p, o, d in axes)
    if spreads and weight.shape[1] * prod(g.stride) >= input.shape[1]:
        return False
    return prod(g.output_shape(input, weight)) < input.numel


def _backward_transpose(k: Tape, grad: Tensor, input: Tensor, weight: Tensor, g: Geometry, last: bool, mask: Mask) -> Gradients:
    """Flat and volumetric alike, but for the moment the bias gets its gradient."""
    volumetric = input.ndim == 5
    grad_input = grad_weight = grad_bias = None
    if mask[0]:
        above = contiguous(k, grad, last)
        grad_input = _empty(k, input.shape, input.dtype, last)
        _use_columns_of_one(k, input, weight, g)
        _release(k, (above, grad))
    if mask[2] and not volumetric:
        grad_bias = _bias_gradient(k, grad)
    if mask[1]:
        grad_weight = _empty(k, weight.shape, weight.dtype, not volumetric and suggests_channels_last(weight))
    if mask[2] and volumetric:
        grad_bias = k.empty((grad.shape[1],), grad.dtype)
    if mask[1] or (mask[2] and volumetric):
        images = contiguous(k, input, last)
        above = contiguous(k, grad, last)
        columns = None if _is_pointwise(weight, g) else _columns_of_one(k, input, weight)
        if grad_bias is not None and volumetric:
            sum_into(k, above, grad_bias, _all_but_channels(grad))
        k.free(columns)
        _release(k, (above, grad), (images, input))
    return [grad_input, grad_weight, grad_bias]


def _use_columns_of_one(k: Tape, input: Tensor, weight: Tensor, g: Geometry) -> None:
    if not _is_pointwise(weight, g):
        k.free(_columns_of_one(k, input, weight))


def _columns_of_one(k: Tape, input: Tensor, weight: Tensor) -> Tensor:
    return _columns(k, 1, weight.shape[1], weight.shape[2:], input.shape[2:], input.dtype)


def _all_but_channels(t: Tensor) -> list[int]:
    return [d for d in range(t.ndim) if d != 1]


def _bias_gradient(k: Tape, grad: Tensor) -> Tensor:
    """The sum over images and positions."""
    out = k.empty((grad.shape[1],), grad.dtype)
    sum_into(k, grad, out, _all_but_channels(grad))
    return out


FORWARD = {
    "slow2d": _forward_mm,
    "slow3d": _forward_mm,
    "slow_dilated": _forward_dilated,
    "slow_transpose2d": _forward_transpose_2d,
    "slow_transpose3d": _forward_transpose_3d,
}
BACKWARD = {
    "slow2d": _backward_mm,
    "slow3d": _backward_mm,
    "slow_dilated": _backward_dilated,
    "slow_transpose2d": _backward_transpose,
    "slow_transpose3d": _backward_transpose,
}
