"""Copies: clones, contiguous forms, concatenation, and the blocks that a transposing copy goes through.

Sources: aten/src/ATen/native/Copy.cpp, TensorConversions.cpp, TensorShape.cpp, cpu/ScatterGatherKernel.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from memest.errors import ShapeError
from memest.network.dtypes import HALVES, promote
from memest.network.tensor import Spec, channels_last_strides, is_channels_last, is_channels_last_strides, is_contiguous
from memest.ops.aten.iterator import empty_like
from memest.ops.tape import Tape, Tensor


def clone(k: Tape, t: Tensor) -> Tensor:
    """``clone`` with preserve_format."""
    return empty_like(k, t)


def original(k: Tape, input: Tensor, inplace: bool) -> Tensor:
    """What is kept of an input: itself, or a clone made before the call overwrites it."""
    return clone(k, input) if inplace and k.grad_enabled else input


def contiguous(k: Tape, t: Tensor, channels_last: bool = False) -> Tensor:
    """``t`` itself when it already lies so, else a copy (``t.contiguous(memory_format)``)."""
    if channels_last:
        if is_channels_last(t.shape, t.strides):
            return t
        return k.empty(t.shape, t.dtype, channels_last_strides(t.shape))
    if is_contiguous(t.shape, t.strides):
        return t
    out = k.empty(t.shape, t.dtype)
    copy_into(k, t, out)
    return out


def copy_into(k: Tape, source: Tensor, out: Tensor) -> None:
    """``copy_``: nothing, but for the block that a large matrix is transposed through."""
    if not k.target.on_cuda and source.dtype == out.dtype and transposes(source.spec, out.spec):
        side = transposed_block(out.dtype)
        k.free(k.empty((side, side), out.dtype))


def transposes(source: Spec, out: Spec) -> bool:
    """True when a copy is a plain transposition of a matrix of 3600 elements or more (Copy.cpp, copy_transpose_valid)."""
    shape = source.shape
    if len(shape) != 2 or source.strides != (1, shape[0]) or out.shape != shape:
        return False
    return shape[0] * shape[1] >= 60 * 60 and is_contiguous(shape, out.strides)


def transposed_block(dtype: str) -> int:
    """The side of the block."""
    return 120 if dtype == "uint8" else 60


def cat(k: Tape, tensors: Sequence[Tensor], dim: int) -> Tensor:
    """``at::cat``: channels_last when every operand suggests it, else contiguous; empty 1-dim operands are skipped (legacy)."""
    counted = [t for t in tensors if t.shape != (0,)] or list(tensors[:1])
    first = counted[0]
    total = 0
    for t in counted:
        if t.ndim != first.ndim or any(a != b for d, (a, b) in enumerate(zip(t.shape, first.shape, strict=True)) if d != dim):
            raise ShapeError(f"tensors of shapes {list(first.shape)} and {list(t.shape)} do not concatenate along dimension {dim}")
        total = total + t.shape[dim]
    shape = (*first.shape[:dim], total, *first.shape[dim + 1 :])
    last = all(suggests_channels_last(t) for t in tensors)
    out = k.empty(shape, reduce(promote, [t.dtype for t in tensors]), channels_last_strides(shape) if last else None)
    for t in counted:
        if t.dtype != out.dtype and not k.target.on_cuda:  # its part of the output is written in the operand's dtype first, then cast
            k.free(k.empty(t.shape, t.dtype))
    return out


def suggests_channels_last(t: Tensor) -> bool:
    """``t.suggest_memory_format() != contiguous``."""
    return is_channels_last_strides(t.shape, t.strides)


def scatter_into(k: Tape, out: Tensor) -> None:
    """``gather``, ``scatter_`` and ``scatter_add_`` write half types through a float32 copy (ScatterGatherKernel.cpp,
    ``create_acc_buffer``)."""
    if out.dtype in HALVES and not k.target.on_cuda:
        k.free(k.empty(out.shape, "float32"))
