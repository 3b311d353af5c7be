"""What kernels share that pick elements along a dim and say where they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.ops.aten.copies import scatter_into
from memest.ops.tape import Tape, Tensor


def scattered_back(k: Tape, saved: dict[str, Any], grads: Sequence[Tensor | None], /, **attributes: Any) -> list[Tensor | None]:
    """value_selecting_reduction_backward: contiguous zeros of the input's ``sizes``, the values' gradient scattered into them."""
    grad = grads[0]
    assert grad is not None
    out = k.empty(saved["sizes"], grad.dtype)
    scatter_into(k, out)
    return [out]
