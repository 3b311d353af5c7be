"""Convolutions on CUDA: cuDNN's, and ATen's own depthwise kernels.

What cuDNN chooses, and so the workspace it asks for, is asked of :mod:`memest.libraries.cudnn`; torch takes it from its caching allocator
for the time of the call. With ``benchmark`` the range spans the plans that are tried, which the first call of a thread does in one buffer,
the largest of all plans' workspaces; then it gives back what is cached, and takes the workspace of the plan that won.

Sources: aten/src/ATen/native/Convolution.cpp (``_select_conv_backend``, ``use_cudnn_depthwise``, ``convolution_backward``),
cudnn/ConvShared.cpp, cudnn/Conv_v8.cpp, cuda/DepthwiseConv2d.cu, cuda/DepthwiseConv3d.cu.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

from memest.errors import UnsupportedError
from memest.libraries.cudnn import BFLOAT16_SINCE, Convolution, Workspace, passed_over, torch_calls, workspace
from memest.machines.gpu import Gpu
from memest.machines.target import Target
from memest.network.dtypes import ITEMSIZE
from memest.network.tensor import Shape, Spec
from memest.ops.aten.copies import contiguous, suggests_channels_last
from memest.ops.aten.reductions import sum_into
from memest.ops.families.convolution.by_aten import shrinks
from memest.ops.families.convolution.geometry import Geometry, PerDim, check_shapes, geometry, squeezed, unsqueezed
from memest.ops.families.convolution.rows import ROWS as ON_CPU
from memest.ops.operator import Operator
from memest.ops.searched import emptied, filler, sealed
from memest.ops.tape import Tape, Tensor
from memest.runtimes.torch.cuda import convolution_slow
from memest.runtimes.torch.cuda.copies import formatted, release
from memest.sizes.dims import Dim, Expr, Opaque, contains_dim

Backend = Literal["cudnn", "depthwise2d", "depthwise3d"] | convolution_slow.Backend
Mask = tuple[bool, bool, bool]
LARGEST_INDEX = (1 << 31) - 1
FEWEST_CHANNELS = 32
MOST_WORKSPACES = 32
MOST_FIXED_BYTES = 64 << 20


def _convolution(
    k: Tape,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: PerDim,
    padding: PerDim,
    dilation: PerDim,
    transposed: bool,
    output_padding: PerDim,
    groups: int,
) -> Tensor:
    g = geometry(weight, stride, padding, dilation, output_padding, groups, transposed)
    check_shapes(input, weight, bias, g)
    _refuse_depthwise(k.target, input, weight, g)
    if not _uses_cudnn(k.target, input, g):
        shrinks(input, weight, g)
    k.save(input=input, weight=weight)
    out: Tensor = sealed(k, "convolution", _run, _most_forward, (input, weight), g=g, biased=bias is not None)
    return out


def _refuse_depthwise(target: Target, input: Tensor, weight: Tensor, g: Geometry) -> None:
    """torch asks cuDNN for depthwise convolutions in channels_last without asking whether it has them."""
    known = input.dtype != "bfloat16" or target.device.capability >= BFLOAT16_SINCE
    if not known and input.ndim > 3 and select_backend(target, input, weight, g) == "cudnn":
        raise UnsupportedError(
            "cuDNN has no depthwise convolution of bfloat16 in channels_last below compute capability 8.0:"
            " take contiguous tensors or float16"
        )


def _run(k: Tape, input: Tensor, weight: Tensor, *, g: Geometry, biased: bool) -> Tensor:
    """The bias is added in place, or by the kernel itself."""
    g = Geometry(*g)
    flat = input.ndim == 3
    given = input
    if flat:
        input, weight, g = unsqueezed(k, contiguous(k, input)), unsqueezed(k, weight), g.as_2d()
    backend = select_backend(k.target, input, weight, g)
    if backend == "cudnn":
        out = _by_cudnn(k, input, weight, g)
    elif backend == "depthwise2d" or backend == "depthwise3d":
        x, w = contiguous(k, input), contiguous(k, weight)
        out = k.empty(g.output_shape(input, weight), input.dtype)
        release(k, (w, weight), (x, input))
    else:
        out = convolution_slow.forward(k, backend, input, weight, biased, g)
    release(k, (input, given))
    return squeezed(k, out) if flat else out


def _by_cudnn(k: Tape, input: Tensor, weight: Tensor, g: Geometry) -> Tensor:
    """``cudnn_convolution_forward_out`` takes the format that the output suggests: one channel of one pixel suggests none, so weight and
    images are copied back out of channels_last. (A transposed one is a gradient of the input, which goes by its operands.)"""
    last = channels_last(input, weight)
    x = contiguous(k, input, last)
    out = formatted(k, g.output_shape(input, weight), input.dtype, last)
    within = last if g.transposed else suggests_channels_last(out)
    w, images = contiguous(k, weight, within), contiguous(k, x, within)
    _workspace(k, _asked(k, input, weight, g).forward, within)
    release(k, (images, x), (w, weight), (x, input))
    return out


def _convolution_backward(
    k: Tape,
    saved: dict[str, Any],
    grads: list[Tensor | None],
    *,
    stride: PerDim,
    padding: PerDim,
    dilation: PerDim,
    transposed: bool,
    output_padding: PerDim,
    groups: int,
) -> list[Tensor | None]:
    (grad,) = grads
    assert grad is not None
    input, weight = saved["input"], saved["weight"]
    mask = (k.needs[0], k.needs[1], len(k.needs) > 2 and k.needs[2])
    g = geometry(weight, stride, padding, dilation, output_padding, groups, transposed)
    result: list[Tensor | None] = sealed(k, "convolution_backward", _run_backward, _most_backward, (grad, input, weight), g=g, mask=mask)
    return result[: len(k.needs)]


def _run_backward(k: Tape, grad: Tensor, input: Tensor, weight: Tensor, *, g: Geometry, mask: Mask) -> list[Tensor | None]:
    g = Geometry(*g)
    flat = input.ndim == 3
    given = input
    if flat:
        input, weight, g = unsqueezed(k, contiguous(k, input)), unsqueezed(k, weight), g.as_2d()
        grad = unsqueezed(k, grad)
    backend = select_backend(k.target, input, weight, g)
    if backend == "cudnn" or backend == "depthwise2d" or backend == "depthwise3d":
        result = BACKWARD[backend](k, grad, input, weight, g, mask)
    else:
        result = convolution_slow.backward(k, backend, grad, input, weight, g, mask)
    if mask[2] and result[2] is None:
        result[2] = _bias_gradient(k, grad)
    release(k, (input, given))
    return [squeezed(k, t) if flat and t is not None and t.ndim == 4 else t for t in result]


def _backward_by_cudnn(k: Tape, grad: Tensor, input: Tensor, weight: Tensor, g: Geometry, mask: Mask) -> list[Tensor | None]:
    """Each gradient asks its own operands for the memory format; a transposed convolution's for its input is a plain forward."""
    x = contiguous(k, input, channels_last(input, weight)) if mask[1] else input
    last = suggests_channels_last(x)
    above = contiguous(k, grad, last) if g.transposed else _to(k, grad, last)
    asked = _asked(k, input, weight, g)
    for_input = for_weight = None
    if mask[0]:
        last = channels_last(above, weight)
        for_input = formatted(k, input.shape, grad.dtype, last)
        within = suggests_channels_last(for_input) if g.transposed else last
        w, dense = contiguous(k, weight, within), contiguous(k, above, within)
        _workspace(k, asked.grad_input, within)
        release(k, (dense, above), (w, weight))
    if mask[1]:
        last = channels_last(x, above)
        dense, images = contiguous(k, above, last), contiguous(k, x, last)
        for_weight = formatted(k, weight.shape, grad.dtype, last)
        _workspace(k, asked.grad_weight, last)
        release(k, (images, x), (dense, above))
    release(k, (above, grad), (x, input))
    return [for_input, for_weight, None]


def _to(k: Tape, t: Tensor, last: bool) -> Tensor:
    """``to(memory_format)``: copies what suggests the other format, even where strides of single channels make it lie in both."""
    return t if suggests_channels_last(t) == last else formatted(k, t.shape, t.dtype, last)


def _backward_depthwise_2d(k: Tape, grad: Tensor, input: Tensor, weight: Tensor, g: Geometry, mask: Mask) -> list[Tensor | None]:
    above = contiguous(k, grad)
    for_input = for_weight = None
    if mask[1]:
        x = contiguous(k, input)
        for_weight = k.empty(weight.shape, grad.dtype)
        release(k, (x, input))
    if mask[0]:
        w = contiguous(k, weight)
        for_input = k.empty(input.shape, grad.dtype)
        release(k, (w, weight))
    release(k, (above, grad))
    return [for_input, for_weight, None]


def _backward_depthwise_3d(k: Tape, grad: Tensor, input: Tensor, weight: Tensor, g: Geometry, mask: Mask) -> list[Tensor | None]:
    for_input = k.empty(input.shape, grad.dtype) if mask[0] else None
    for_weight = k.empty(weight.shape, grad.dtype) if mask[1] else None
    above = contiguous(k, grad)
    for t in (weight if mask[0] else None, input if mask[1] else None):
        if t is not None:
            release(k, (contiguous(k, t), t))
    for_bias = _bias_gradient(k, grad) if mask[2] else None
    release(k, (above, grad))
    return [for_input, for_weight, for_bias]


def _bias_gradient(k: Tape, grad: Tensor) -> Tensor:
    out = k.empty((grad.shape[1],), grad.dtype)
    sum_into(k, grad, out, [d for d in range(grad.ndim) if d != 1])
    return out


BACKWARD = {"cudnn": _backward_by_cudnn, "depthwise2d": _backward_depthwise_2d, "depthwise3d": _backward_depthwise_3d}


# the choice --------------------------------------------------------------------------------------------------------------


def select_backend(target: Target, input: Tensor, weight: Tensor, g: Geometry) -> Backend:
    """``_select_conv_backend`` of 4 or 5 dims: depthwise ones run by ATen's own kernels unless cuDNN's are taken to be faster, and what
    cuDNN does not take by ATen's slow ones."""
    if not g.transposed and g.groups > 1 and input.shape[1] == g.groups:
        if target.settings.enabled and _uses_cudnn_depthwise(input, weight, g):
            return "cudnn"
        return "depthwise2d" if input.ndim == 4 else "depthwise3d"
    return "cudnn" if _uses_cudnn(target, input, g) else convolution_slow.select_slow(input, g)


def _uses_cudnn(target: Target, input: Tensor, g: Geometry) -> bool:
    """``use_cudnn``."""
    if not target.settings.enabled or (input.dtype == "bfloat16" and target.device.capability < BFLOAT16_SINCE):
        return False
    return not g.transposed or all(o < s for o, s in zip(g.output_padding, g.stride, strict=True))


def _uses_cudnn_depthwise(input: Tensor, weight: Tensor, g: Geometry) -> bool:
    """``use_cudnn_depthwise``: what 32 bits do not index, channels_last, and in float16 what measurements favoured (cuDNN 8.2)."""
    if prod(input.shape) > LARGEST_INDEX or prod(weight.shape) > LARGEST_INDEX or channels_last(input, weight):
        return True
    if input.dtype != "float16" or weight.dtype != "float16" or input.ndim != 4 or g.is_dilated:
        return False
    batch, channels, height, width = input.shape
    if channels < FEWEST_CHANNELS or (g.stride[0] != g.stride[1] and height != 1):
        return False
    return _is_favoured(batch, channels, height, width, weight.shape[2:], g.stride[1])


def _is_favoured(batch: int, channels: int, height: int, width: int, kernel: Shape, stride: int) -> bool:
    """``check_cudnn_depthwise_workload_with_filter``."""
    if height == 1 and stride == 1:
        return True
    if kernel[0] != kernel[1] or kernel[1] not in (1, 3, 5) or width < 7 or stride not in (1, 2):
        return False
    if stride == 1:
        return True
    if kernel[1] == 1:
        return width <= 28 if batch == 1 else batch <= 16 and channels >= 128 and width <= 7
    return batch == 1 or channels >= 512 or (channels >= 256 and width >= 28)


def channels_last(a: Tensor, b: Tensor) -> bool:
    """``cudnn_conv_suggest_memory_format``: one of the two is enough, but never in float64."""
    if "float64" in (a.dtype, b.dtype):
        return False
    return suggests_channels_last(a) or suggests_channels_last(b)


# cuDNN -------------------------------------------------------------------------------------------------------------------


def _asked(k: Tape, input: Tensor, weight: Tensor, g: Geometry) -> Any:
    settings = k.target.settings
    return torch_calls(
        input.shape,
        weight.shape,
        stride=g.stride,
        padding=g.padding,
        dilation=g.dilation,
        transposed=g.transposed,
        output_padding=g.output_padding,
        groups=g.groups,
        dtype=input.dtype,
        tf32=settings.cudnn_tf32,
        deterministic=settings.deterministic,
    )


@dataclass(frozen=True, slots=True)
class _Inquiry:
    """A question to cuDNN whose shapes have a :class:`Size` where a size is symbolic (:class:`memest.ops.kernels.Inquiry`)."""

    target: Target
    question: Convolution
    shapes: tuple[Any, ...]

    def __call__(self, *sizes: int) -> int:
        return self.scratch(*sizes)[0]

    def scratch(self, *sizes: int) -> tuple[int, tuple[int, int] | None]:
        x, w, y = filler(self.shapes)(sizes)
        return _scratch(_answer(self.target, replace(self.question, x=x, w=w, y=y)))


def _answer(target: Target, question: Convolution) -> Workspace:
    settings = target.settings
    assert settings.cudnn is not None
    return workspace(target.device, settings.cudnn, question, benchmark=settings.benchmark)


def _scratch(found: Workspace) -> tuple[int, tuple[int, int] | None]:
    """The bytes of the workspace, and their range; what may be there leaves an event, so it counts one byte where none is expected."""
    return (found.bytes, None) if found.low == found.high else (found.bytes or 1, (found.low, found.high))


def _workspace(k: Tape, question: Convolution, last: bool) -> None:
    settings = k.target.settings
    assert settings.cudnn is not None
    without = passed_over(k.target.version, settings.cudnn, k.target.device, question)
    if (question.channels_last, question.without) != (last, without):
        question = replace(question, channels_last=last, without=without)
    shapes = question.x, question.w, question.y
    if contains_dim(shapes):
        sizes: dict[Expr, int] = {}
        inquiry = _Inquiry(k.target, replace(question, x=(), w=(), y=()), emptied(shapes, sizes))
        k.free(k.scratch(Dim(inquiry(*sizes.values()), Opaque("cudnn", inquiry, tuple(sizes)))))
        return
    found = _answer(k.target, question)
    if settings.benchmark:
        k.attempt(question, found.trial, None if found.source == "cudnn" else (found.bytes, found.trial))
    nbytes, spread = _scratch(found)
    if nbytes:
        k.free(k.scratch(nbytes, spread))


# bounds for compiled steps -----------------------------------------------------------------------------------------------


def _most_forward(machine: Gpu, input: Spec, weight: Spec, *, g: Geometry, biased: bool) -> tuple[Any, ...]:
    """Copies of the operands, the result, and a workspace far above any that was seen (10 times the three) and any image's columns."""
    return (_most(input, weight, g),)


def _most_backward(machine: Gpu, grad: Spec, input: Spec, weight: Spec, *, g: Geometry, mask: Mask) -> tuple[Any, ...]:
    """As in forward; the bias's sum stages no more than the gradient has bytes, four times over."""
    return (_most(input, weight, g),)


def _most(input: Spec, weight: Spec, g: Geometry) -> Any:
    g = Geometry(*g)
    channels = weight.shape[1] * g.groups if g.transposed else weight.shape[0]
    result = input.shape[0] * channels * prod(g.output_size(input.shape[2:], weight.shape[2:]))
    operands = prod(input.shape) + prod(weight.shape) + result
    columns = prod(weight.shape[2:]) * operands
    return ((2 + MOST_WORKSPACES) * operands + columns) * ITEMSIZE[input.dtype] + MOST_FIXED_BYTES


(_on_cpu,) = (row for row in ON_CPU if row.name == "convolution")
ROWS: tuple[Operator, ...] = (
    replace(
        _on_cpu,
        forward=_convolution,
        backward=_convolution_backward,
        source="derivatives.yaml: convolution; aten/src/ATen/native/Convolution.cpp, cudnn/ConvShared.cpp, cudnn/Conv_v8.cpp,"
        " cuda/DepthwiseConv2d.cu, cuda/DepthwiseConv3d.cu",
    ),
)
SAME: tuple[str, ...] = ()
