"""Activations of which other operators are composed.

Source: aten/src/ATen/native/Activation.cpp, cuda/ActivationLogSigmoidKernel.cu.
"""

from __future__ import annotations

from memest.ops.aten.copies import contiguous
from memest.ops.aten.iterator import empty_like
from memest.ops.tape import Tape, Tensor


def log_sigmoid_forward(k: Tape, t: Tensor) -> tuple[Tensor, Tensor | None]:
    """``log_sigmoid_forward``: the result and, on CPU, whose kernel reads contiguous tensors, a buffer for backward."""
    if k.target.on_cuda:
        return empty_like(k, t), None
    out, buffer = k.empty(t.shape, t.dtype), k.empty(t.shape, t.dtype)
    dense = contiguous(k, t)
    k.free(None if dense is t else dense)
    return out, buffer
