"""Resizing on CUDA: kernels need no tables. Some work on dense tensors alone, and make copies of what lies otherwise.

Sources: aten/src/ATen/native/cuda/UpSampleNearest1d.cu, UpSampleLinear1d.cu, UpSampleNearest2d.cu, UpSampleBilinear2d.cu (with antialias,
too), UpSampleBicubic2d.cu, UpSampleNearest3d.cu, UpSampleTrilinear3d.cu.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.network.dtypes import FLOATING
from memest.network.tensor import Shape, is_channels_last, same_shape
from memest.ops.aten.copies import contiguous, suggests_channels_last
from memest.ops.aten.iterator import incoming
from memest.ops.families.resampling import ROWS as ON_CPU
from memest.ops.operator import Operator
from memest.ops.tape import Tape, Tensor
from memest.runtimes.torch.cuda.copies import formatted, passing, release

NEAREST = ("nearest", "nearest-exact")
IMAGES = (*NEAREST, "bilinear")
FEWEST_CHANNELS = 4  # that the channels_last kernels of images take


def _upsample(k: Tape, input: Tensor, *, output_size: Shape, mode: str, align_corners: bool, antialias: bool, scales: Any) -> Tensor:
    _check(input, output_size, mode)
    shape = (*input.shape[:2], *output_size)
    k.note(sizes=input.shape)
    last = input.ndim > 3 and suggests_channels_last(input)
    out = formatted(k, shape, input.dtype, last)
    if antialias or (mode in NEAREST and input.ndim != 4):
        _contiguous_result(k, out, input)
    elif mode in NEAREST and not same_shape(shape, input.shape):  # an image of the same size is copied
        if _runs_channels_last(out):
            passing(k, input, True)
        else:
            _contiguous_result(k, out, input)
    elif mode == "bilinear" and _runs_channels_last(out):
        passing(k, input, True)
    return out


def _check(input: Tensor, output_size: Shape, mode: str) -> None:
    if mode == "lanczos":
        raise UnsupportedError("torch has no resizing by mode 'lanczos' on CUDA")
    if input.dtype not in FLOATING and not (input.dtype == "uint8" and mode in NEAREST):
        raise UnsupportedError(f"torch has no resizing of {input.dtype} by mode {mode!r} on CUDA")
    if any(n <= 0 for n in (*output_size, *input.shape[1:])):
        raise ShapeError(f"resizing of shape {list(input.shape)} to {list(output_size)}")


def _runs_channels_last(out: Tensor) -> bool:
    return out.ndim == 4 and out.shape[1] >= FEWEST_CHANNELS and is_channels_last(out.shape, out.strides) and suggests_channels_last(out)


def _contiguous_result(k: Tape, out: Tensor, read: Tensor) -> None:
    """A contiguous ``out`` to write, where it is none, and a contiguous copy of what is ``read``."""
    made = None if out.is_contiguous else k.empty(out.shape, out.dtype)
    passing(k, read)
    k.free(made)


def _upsample_backward(
    k: Tape,
    saved: dict[str, Any],
    grads: Sequence[Tensor | None],
    *,
    output_size: Shape,
    mode: str,
    align_corners: bool,
    antialias: bool,
    scales: Any,
) -> list[Tensor | None]:
    grad = incoming(grads)
    sizes: Shape = saved["sizes"]
    last = suggests_channels_last(grad) and not (mode == "bicubic" or (len(sizes) == 5 and mode in NEAREST))
    out = formatted(k, sizes, grad.dtype, last)
    if len(sizes) == 4 and mode in IMAGES and not antialias:
        if same_shape(sizes, grad.shape):
            return [out]
        if _runs_channels_last(out):
            passing(k, grad, True)
        else:
            _contiguous_result(k, out, grad)
        return [out]
    dense = contiguous(k, grad)
    k.free(None if antialias or out.is_contiguous else k.empty(sizes, grad.dtype))
    release(k, (dense, grad))
    return [out]


(UPSAMPLE,) = ON_CPU
ROWS: tuple[Operator, ...] = (
    replace(
        UPSAMPLE,
        forward=_upsample,
        backward=_upsample_backward,
        source="derivatives.yaml: upsample_nearest1d and the like; aten/src/ATen/native/cuda/UpSampleNearest2d.cu and the like",
    ),
)
SAME: tuple[str, ...] = ()
