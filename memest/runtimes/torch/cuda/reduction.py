"""Reductions on CUDA (:mod:`memest.ops.aten.cuda_reduce` has their buffers)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from memest.ops.aten.copies import contiguous
from memest.ops.aten.iterator import elementwise, elementwise_, empty_like, incoming, with_number
from memest.ops.aten.masks import nonzero, scanned
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


def _scanned(k: Tape, input: Tensor, dim: int, dtype: str) -> Tensor:
    """``cumsum``: the kernel reads a contiguous tensor of the result's dtype; CUB's where all elements lie along the dim."""
    out = k.empty(input.shape, dtype)
    cast = input if input.dtype == dtype else empty_like(k, input, dtype)
    dense = contiguous(k, cast)
    if 0 < input.numel == (input.shape[dim] if input.ndim else 0):
        scanned(k, input.numel, dtype)
    k.free(None if dense is cast else dense, None if cast is input else cast)
    return out


def _cumsum(k: Tape, input: Tensor, *, dim: int, dtype: str | None) -> Tensor:
    k.note(dtype=input.dtype)
    return _scanned(k, input, wrapped(dim, input.ndim), reduction.accumulated(input.dtype, dtype))


def _cumsum_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int, dtype: str | None) -> list[Tensor | None]:
    """cumsum_backward(grad.to(self.scalar_type()), dim): grad.flip(dim).cumsum(dim).flip(dim)."""
    grad = incoming(grads)
    if grad.dtype != saved["dtype"]:
        grad = empty_like(k, grad, saved["dtype"])
    if grad.numel <= 1 or grad.shape[wrapped(dim, grad.ndim)] == 1:
        return [grad]
    flipped = empty_like(k, grad)
    summed = _scanned(k, flipped, wrapped(dim, grad.ndim), grad.dtype)
    return [empty_like(k, summed)]


def _prod_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int | None, **attributes: Any) -> list[Tensor | None]:
    """prod_backward of all elements looks for zeros first: grad * (result / self) where there are none."""
    input: Tensor = saved["input"]
    if dim is None and input.ndim:
        grad = incoming(grads)
        if input.dtype != grad.dtype:
            input = empty_like(k, input, grad.dtype)
        mask = with_number(k, input, 0, "bool")
        k.free(nonzero(k, mask, 0), mask)
        return [elementwise(k, elementwise(k, saved["result"], input), grad)]
    return reduction.prod_backward(k, saved, grads, dim=dim, **attributes)


SCAN = "aten/src/ATen/native/cuda/ScanKernels.cpp, ScanUtils.cuh (scan_dim)"
EVENLY = "torch/csrc/autograd/FunctionsManual.cpp (evenly_distribute_backward)"
ROWS: tuple[Operator, ...] = (
    *(replace(FAMILY[name], backward=_extremum_backward, source=EVENLY) for name in ("_max", "_min")),
    replace(FAMILY["prod"], backward=_prod_backward, source="torch/csrc/autograd/FunctionsManual.cpp (prod_backward)"),
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
)
