"""Gradients of what picks elements: into the places they came from, or shared among those that equal the result.

Source: torch/csrc/autograd/FunctionsManual.cpp (``value_selecting_reduction_backward``, ``evenly_distribute_backward``,
``scale_grad_by_count``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.ops.aten.copies import scatter_into
from memest.ops.aten.iterator import elementwise, incoming
from memest.ops.aten.reductions import sum_into
from memest.ops.aten.views import reduced_dims, reduction_shape, restored
from memest.ops.tape import Tape, Tensor


def scattered_back(k: Tape, saved: dict[str, Any], grads: Sequence[Tensor | None], /, **attributes: Any) -> list[Tensor | None]:
    """value_selecting_reduction_backward: contiguous zeros, the gradient scattered into them."""
    grad = grads[0]
    assert grad is not None
    out = k.empty(saved["sizes"], grad.dtype)
    scatter_into(k, out)
    return [out]


def shared_out(k: Tape, saved: dict[str, Any], grads: Sequence[Tensor | None], **attributes: Any) -> list[Tensor | None]:
    """evenly_distribute_backward: zeros, with grad / count filled in where the input equals the result (which is no NaN)."""
    input: Tensor = saved["input"]
    nan = elementwise(k, saved["result"], dtype="bool")
    mask = elementwise(k, input, saved["result"], dtype="bool")
    k.free(nan)
    out = k.empty(input.shape, input.dtype)
    count = k.empty((), "int64")
    sum_into(k, mask, count)
    elementwise(k, incoming(grads), count)
    return [out]


def shared_by_count(k: Tape, grad: Tensor, result: Tensor, input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """scale_grad_by_count: ties share the gradient, mask * (grad / mask.sum(dim)); ``grad`` and ``result`` are of the reduced shape."""
    grad, result = (restored(k, t, dim, keepdim, input.ndim) for t in (grad, result))
    mask = elementwise(k, result, input, dtype="bool")
    count = k.empty(reduction_shape(mask, dim, True), "int64")
    sum_into(k, mask, count, reduced_dims(dim, mask.ndim))
    share = elementwise(k, grad, count)
    out = elementwise(k, share, mask)
    k.free(share, count, mask)
    return out
