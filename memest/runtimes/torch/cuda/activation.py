"""Activations on CUDA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from memest.ops.aten.copies import contiguous
from memest.ops.families.activation import converted_back
from memest.ops.operator import Operator
from memest.ops.table import OPERATORS
from memest.ops.tape import Tape, Tensor

Grads = Sequence[Tensor | None]


def _softmax(k: Tape, input: Tensor, *, dim: int, dtype: str | None) -> Tensor:
    """A float32 result of float16 is written by the kernel itself (``half_to_float``)."""
    if input.dtype == "float16" and dtype == "float32":
        k.note(dtype=input.dtype)
        out = k.empty(input.shape, dtype)
        dense = contiguous(k, input)
        k.free(None if dense is input else dense)
        k.save(result=out)
        return out
    plain: Tensor = OPERATORS["softmax"].forward(k, input, dim=dim, dtype=dtype)  # type: ignore[assignment]
    return plain


def _softmax_backward(k: Tape, saved: dict[str, Any], grads: Grads, *, dim: int, dtype: str | None) -> list[Tensor | None]:
    """``grad * output`` is made beside the gradient (softmax_backward_cuda_out)."""
    (grad,) = grads
    assert grad is not None
    fused = (saved["dtype"], dtype) == ("float16", "float32")
    out = k.empty(grad.shape, saved["dtype"] if fused else grad.dtype)
    k.free(k.empty(grad.shape, grad.dtype))
    return [converted_back(k, out, saved["dtype"])]


def _log_softmax_backward(k: Tape, saved: dict[str, Any], grads: Grads, *, dim: int, dtype: str | None) -> list[Tensor | None]:
    (grad,) = grads
    assert grad is not None
    fused = (saved["dtype"], dtype) == ("float16", "float32")
    out = k.empty(grad.shape, saved["dtype"] if fused else grad.dtype)
    return [converted_back(k, out, saved["dtype"])]


def _row(name: str, backward: Any) -> Operator:
    source = "aten/src/ATen/native/SoftMax.cpp (half_to_float), cuda/SoftMax.cu"
    return replace(OPERATORS[name], forward=_softmax, backward=backward, source=source)


ROWS: tuple[Operator, ...] = (_row("softmax", _softmax_backward), _row("log_softmax", _log_softmax_backward))
SAME = (
    "relu",
    "relu6",
    "hardtanh",
    "leaky_relu",
    "elu",
    "selu",
    "celu",
    "gelu",
    "silu",
    "mish",
    "hardswish",
    "hardsigmoid",
    "sigmoid",
    "tanh",
    "softplus",
    "threshold",
    "hardshrink",
    "softshrink",
    "logsigmoid",
    "prelu",
    "rrelu",
    "glu",
)
