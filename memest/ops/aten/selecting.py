"""Gradients of what picks elements: into the places they came from, or shared among those that equal the result.

Source: torch/csrc/autograd/FunctionsManual.cpp (``value_selecting_reduction_backward``, ``evenly_distribute_backward``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.ops.aten.copies import scatter_into
from memest.ops.aten.iterator import elementwise, incoming
from memest.ops.aten.reductions import sum_into
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
