"""Sums that look at their elements first: those of what is no NaN, and running sums of exponentials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.network.dtypes import FLOATING, check_dtype
from memest.ops.aten.cuda_reduce import summing
from memest.ops.aten.iterator import elementwise, empty_like, incoming, where, with_number
from memest.ops.aten.places import refuse_on_cuda
from memest.ops.aten.reductions import reduce_into
from memest.ops.aten.views import dim_or_dims, expanded, reduced_dims, reduction_shape, restored
from memest.ops.facts import ALONG_DIM_FACTS
from memest.ops.operator import Example, flag, optional
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, attribute, calls, row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def _nansum(k: Tape, input: Tensor, *, dim: Any, keepdim: bool, dtype: str | None) -> Tensor:
    """One loop, whatever it sums; whole numbers are never NaN, and summed as ever."""
    refuse_on_cuda(k)
    k.save(input=input)
    kind = dtype or (input.dtype if input.dtype in FLOATING else "int64")
    out = k.empty(reduction_shape(input, dim, keepdim), kind)
    cast = None if input.dtype == kind else empty_like(k, input, kind)
    reduce_into(k, input if cast is None else cast, out, reduced_dims(dim, input.ndim), summing)
    k.free(cast)
    return out


def _nansum_backward(k: Tape, saved: Saved, grads: Grads, *, dim: Any, keepdim: bool, dtype: str | None) -> list[Tensor | None]:
    """sum_backward(grad.to(self.scalar_type())) * self.isnan().logical_not()."""
    input: Tensor = saved["input"]
    grad = incoming(grads)
    if grad.dtype != input.dtype:
        grad = empty_like(k, grad, input.dtype)
    missing = elementwise(k, input, input, dtype="bool")
    there = elementwise(k, missing)
    whole = dim is None or dim == ()
    spread = expanded(k, grad if whole else restored(k, grad, dim, keepdim, input.ndim), input.shape)
    out = elementwise(k, spread, there)
    k.free(there, missing)
    return [out]


def _logcumsumexp(k: Tape, input: Tensor, *, dim: int) -> Tensor:
    refuse_on_cuda(k)
    k.save(input=input)
    out = k.empty(input.shape, input.dtype)
    k.save(result=out)
    return out


def _logcumsumexp_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int) -> list[Tensor | None]:
    """For the positive and the negative part of the gradient: (reverse_logcumsumexp(log(part) - result) + self).exp(); their difference."""
    input, grad = saved["input"], incoming(grads)
    if not grad.ndim:
        return [grad]
    least = k.empty((), grad.dtype)
    size = elementwise(k, grad)
    logarithm = elementwise(k, size)
    k.free(size)
    parts = []
    for _ in ("positive", "negative"):
        mask = with_number(k, grad, 0, "bool")
        parts.append(where(k, mask, logarithm, least))
        k.free(mask)
    powers = []
    for part in parts:
        shifted = elementwise(k, part, saved["result"])
        turned = empty_like(k, shifted)
        summed = k.empty(turned.shape, turned.dtype)
        back = empty_like(k, summed)
        k.free(summed, turned)
        raised = elementwise(k, back, input)
        powers.append(elementwise(k, raised))
        k.free(raised, back, shifted)
    return [elementwise(k, *powers)]


BCHW = (2, 3, 4, 5)
DIM = attribute("dim", None, dim_or_dims)
KEEP, DTYPE = attribute("keepdim", False, flag), attribute("dtype", None, optional(check_dtype))
ROWS = (
    row(
        "nansum",
        _nansum,
        _nansum_backward,
        (DIM, KEEP, DTYPE),
        (
            *calls((BCHW, {}), (BCHW, {"dim": 1}), (BCHW, {"dim": (2, 3), "keepdim": True}), ((8, 16, 16, 17), {})),
            *calls((BCHW, {"dim": 1}), layout="channels_last"),
            Example(shapes=(BCHW,), attributes={"dim": 1}, dtypes=("int32",)),
        ),
        f"{DERIVED}/ReduceOps.cpp",
        facts=ALONG_DIM_FACTS,
        saves=("input",),
    ),
    row(
        "logcumsumexp",
        _logcumsumexp,
        _logcumsumexp_backward,
        (attribute("dim"),),
        (*calls((BCHW, {"dim": 1}), (BCHW, {"dim": -1})), *calls((BCHW, {"dim": 2}), layout="channels_last")),
        f"{DERIVED}/ReduceOps.cpp",
        facts=ALONG_DIM_FACTS,
        saves=("input", "result"),
    ),
)
COMPOSITE_ROWS = ()
