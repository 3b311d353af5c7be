"""Reductions on CUDA (:mod:`memest.ops.aten.cuda_reduce` has their buffers)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from memest.ops.aten.copies import contiguous
from memest.ops.aten.iterator import elementwise, elementwise_, empty_like, incoming
from memest.ops.aten.reductions import sum_into
from memest.ops.aten.views import wrapped
from memest.ops.families import reduction
from memest.ops.operator import Operator
from memest.ops.tape import Tape, Tensor

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]
FAMILY = {row.name: row for row in reduction.ROWS}


def _extremum_backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
    """evenly_distribute_backward: mask * (grad / mask.sum()), where the mask tells the elements that are the extremum or, like it, NaN."""
    input: Tensor = saved["input"]
    both_nan = elementwise(k, input, dtype="bool")
    value_nan = elementwise(k, saved["result"], dtype="bool")
    mask = elementwise_(k, elementwise(k, input, saved["result"], dtype="bool"), both_nan)
    count = k.empty((), "int64")
    sum_into(k, mask, count)
    share = elementwise(k, incoming(grads), count)
    out = elementwise(k, mask, share)
    k.free(share, count, mask, value_nan, both_nan)
    return [out]


def _scanned(k: Tape, input: Tensor, dtype: str) -> Tensor:
    """``cumsum``: the kernel reads a contiguous tensor of the result's dtype (ScanKernels.cpp)."""
    out = k.empty(input.shape, dtype)
    cast = input if input.dtype == dtype else empty_like(k, input, dtype)
    dense = contiguous(k, cast)
    k.free(None if dense is cast else dense, None if cast is input else cast)
    return out


def _cumsum(k: Tape, input: Tensor, *, dim: int, dtype: str | None) -> Tensor:
    wrapped(dim, input.ndim)
    k.note(dtype=input.dtype)
    return _scanned(k, input, reduction.accumulated(input.dtype, dtype))


def _cumsum_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int, dtype: str | None) -> list[Tensor | None]:
    """cumsum_backward(grad.to(self.scalar_type()), dim): grad.flip(dim).cumsum(dim).flip(dim)."""
    grad = incoming(grads)
    if grad.dtype != saved["dtype"]:
        grad = empty_like(k, grad, saved["dtype"])
    if grad.numel <= 1 or grad.shape[wrapped(dim, grad.ndim)] == 1:
        return [grad]
    flipped = empty_like(k, grad)
    summed = _scanned(k, flipped, grad.dtype)
    return [empty_like(k, summed)]


SCAN = "aten/src/ATen/native/cuda/ScanKernels.cpp, ScanUtils.cuh (scan_dim)"
EVENLY = "torch/csrc/autograd/FunctionsManual.cpp (evenly_distribute_backward)"
ROWS: tuple[Operator, ...] = (
    *(replace(FAMILY[name], backward=_extremum_backward, source=EVENLY) for name in ("_max", "_min")),
    replace(FAMILY["cumsum"], forward=_cumsum, backward=_cumsum_backward, source=SCAN),
)
SAME = (
    "sum",
    "mean",
    "var",
    "std",
    "var_mean",
    "amax",
    "amin",
    "_max_dim",
    "_min_dim",
    "argmax",
    "argmin",
    "any",
    "all",
    "prod",
)
