"""Copies that kernels make of operands which lie otherwise than they want."""

from __future__ import annotations

from memest.network.tensor import Shape, channels_last_strides
from memest.ops.aten.copies import contiguous
from memest.ops.tape import Tape, Tensor


def formatted(k: Tape, shape: Shape, dtype: str, last: bool) -> Tensor:
    """A new tensor, contiguous or channels_last."""
    return k.empty(shape, dtype, channels_last_strides(shape) if last else None)


def passing(k: Tape, t: Tensor, last: bool = False) -> None:
    """A copy of ``t`` for a moment, where it does not lie so."""
    release(k, (contiguous(k, t, last), t))


def release(k: Tape, *pairs: tuple[Tensor, Tensor]) -> None:
    """Drop each (copy, original) whose copy really is one."""
    k.free(*(copy for copy, original in pairs if copy.slot != original.slot))
