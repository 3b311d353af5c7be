"""Norms and what divides by them; log-sum-exp. Input and result are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.network.dtypes import HALVES, check_dtype
from memest.ops.aten.cuda_reduce import unchanged
from memest.ops.aten.iterator import elementwise, incoming, with_number
from memest.ops.aten.reductions import norm_into, reduce_into, sum_into
from memest.ops.aten.views import (
    dim_or_dims,
    reduced_dims,
    reduction_shape,
    restored,
)
from memest.ops.composite import Caller, Composite
from memest.ops.facts import ALONG_DIM_CALLS, ALONG_DIM_FACTS
from memest.ops.operator import REQUIRED, Attribute, Example, flag, integer, number, optional
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def _vector_norm(k: Tape, input: Tensor, *, ord: float, dim: Any, keepdim: bool, dtype: str | None) -> Tensor:
    """CUDA's kernel reads halves and writes float32."""
    if ord not in (1, 2) and k.target.on_cuda:
        raise UnsupportedError(f"vector_norm of order {ord} is not modelled on torch-cuda yet: orders 1 and 2 are; ask for torch-cpu")
    if dtype not in (None, input.dtype) and not (k.target.on_cuda and input.dtype in HALVES and dtype == "float32"):
        raise UnsupportedError(f"vector_norm of {input.dtype} in {dtype} is not modelled; convert the input first")
    k.save(input=input)
    out = k.empty(reduction_shape(input, dim, keepdim), dtype or input.dtype)
    norm_into(k, input, out, reduced_dims(dim, input.ndim))
    k.save(result=out)
    return out


def _vector_norm_backward(
    k: Tape, saved: Saved, grads: Grads, *, ord: float, dim: Any, keepdim: bool, dtype: str | None
) -> list[Tensor | None]:
    """Order 2: grad * (self / norm).masked_fill_(norm == 0, 0); order 1: grad * self.sgn(); order 0 has none."""
    if ord == 0:
        return [None]
    input: Tensor = saved["input"]
    grad = restored(k, incoming(grads), dim, keepdim, input.ndim)
    norm = restored(k, saved["result"], dim, keepdim, input.ndim)
    if ord == 1:
        return [elementwise(k, elementwise(k, input), grad)]
    if abs(ord) == math.inf:
        return [_of_extremum(k, input, norm, grad, dim)]
    if ord != 2:
        return [_of_power(k, input, norm, grad, ord)]
    unit = elementwise(k, input, norm)
    with_number(k, norm, 0, "bool")
    return [elementwise(k, grad, unit)]


def _of_extremum(k: Tape, input: Tensor, norm: Tensor, grad: Tensor, dim: Any) -> Tensor:
    """self.sgn() * ((grad / mask.sum(dim, true)) * mask), where the mask is self.abs().eq(norm).logical_or(self.abs().isnan())."""
    size = elementwise(k, input)
    missing = elementwise(k, size, size, dtype="bool")
    equal = elementwise(k, size, norm, dtype="bool")
    mask = elementwise(k, equal, missing)
    k.free(equal, missing)
    count = k.empty(reduction_shape(mask, dim, True), "int64")
    sum_into(k, mask, count, reduced_dims(dim, mask.ndim))
    share = elementwise(k, grad, count)
    spread = elementwise(k, share, mask)
    return elementwise(k, elementwise(k, input), spread)


def _of_power(k: Tape, input: Tensor, norm: Tensor, grad: Tensor, ord: float) -> Tensor:
    """Below 1: self.sgn() * self.abs().pow_(p - 1).masked_fill_(self == 0, 0) * grad * norm.pow(1 - p); else self.sgn() *
    self.abs().pow_(p - 1), from 2 on self * self.abs().pow_(p - 2), times (grad / norm.pow(p - 1)).masked_fill_(norm == 0, 0)."""
    if ord < 1:
        size = elementwise(k, input)
        zero = with_number(k, input, 0, "bool")
        sign = elementwise(k, input)
        scaled = elementwise(k, sign, size)
        k.free(sign, size, zero)
        power = elementwise(k, norm)
        return elementwise(k, elementwise(k, scaled, grad), power)
    size = elementwise(k, input)
    factor = elementwise(k, input) if ord < 2 else input
    scaled = elementwise(k, factor, size)
    k.free(factor, size)
    power = elementwise(k, norm)
    share = elementwise(k, grad, power)
    k.free(power)
    k.free(with_number(k, norm, 0, "bool"))
    return elementwise(k, scaled, share)


def _logsumexp(k: Tape, input: Tensor, *, dim: Any, keepdim: bool) -> Tensor:
    k.save(input=input)
    most = k.empty(reduction_shape(input, dim, True), input.dtype)
    reduce_into(k, input, most, reduced_dims(dim, input.ndim), unchanged)
    magnitude = elementwise(k, most)
    k.free(with_number(k, magnitude, 1.0, "bool"), magnitude)
    shifted = elementwise(k, input, most)
    out = k.empty(reduction_shape(input, dim, keepdim), input.dtype)
    sum_into(k, shifted, out, reduced_dims(dim, shifted.ndim))
    k.save(result=out)
    return out


def _logsumexp_backward(k: Tape, saved: Saved, grads: Grads, *, dim: Any, keepdim: bool) -> list[Tensor | None]:
    """grad * (self - result).exp()."""
    input: Tensor = saved["input"]
    grad = restored(k, incoming(grads), dim, keepdim, input.ndim)
    result = restored(k, saved["result"], dim, keepdim, input.ndim)
    return [elementwise(k, grad, elementwise(k, elementwise(k, input, result)))]


def _norm(c: Caller, input: Any, *, p: float, dim: Any, keepdim: bool) -> Any:
    if isinstance(dim, tuple) and len(dim) > 2:
        raise ShapeError(f"norm over {len(dim)} dims: use vector_norm")
    return c.call("vector_norm", input, ord=p, dim=dim, keepdim=keepdim)


def _normalize(c: Caller, input: Any, *, p: float, dim: int, eps: float) -> Any:
    """``input / input.norm(p, dim, keepdim=True).clamp_min(eps).expand_as(input)``."""
    norm = c.call("vector_norm", input, ord=p, dim=(dim,), keepdim=True)
    floored = c.call("clamp_min", norm, min=eps)
    c.drop(norm)
    denominator = c.call("expand", floored, size=input.shape)
    c.drop(floored)
    return c.call("div", input, denominator)


DIMS = Attribute(name="dim", default=None, check=dim_or_dims)


KEEP = Attribute(name="keepdim", default=False, check=flag)


BCHW = (2, 3, 4, 5)


SOURCE = "aten/src/ATen/native/ReduceOps.cpp"


def _examples(*calls: dict[str, Any]) -> tuple[Example, ...]:
    return (
        *(Example(shapes=(BCHW,), attributes=a) for a in calls),
        Example(shapes=(BCHW,), attributes=calls[-1], layout="channels_last"),
    )


_row = partial(row, source=f"{DERIVED}/ReduceOps.cpp")


ROWS = (
    _row(
        "vector_norm",
        _vector_norm,
        _vector_norm_backward,
        (Attribute(name="ord", default=2, check=number), DIMS, KEEP, Attribute(name="dtype", default=None, check=optional(check_dtype))),
        (
            *_examples({}, {"ord": 1, "dim": 1}, {"dim": (2, 3), "keepdim": True}),
            *_examples({"ord": math.inf}, {"ord": -math.inf, "dim": (2, 3), "keepdim": True}, {"ord": math.inf, "dim": 1}),
            *_examples({"ord": 0, "dim": 1}, {"ord": 3}, {"ord": 3.5, "dim": (2, 3), "keepdim": True}),
            *_examples({"ord": 0.5, "dim": 1}, {"ord": 1.5, "dim": 1}, {"ord": -1.0, "dim": 3}),
        ),
        source=f"{DERIVED}/LinearAlgebra.cpp",
        saves=("input", "result"),
        torch="torch.linalg.vector_norm",
        facts=ALONG_DIM_FACTS,
    ),
    _row(
        "logsumexp",
        _logsumexp,
        _logsumexp_backward,
        (Attribute(name="dim", default=REQUIRED, check=dim_or_dims), KEEP),
        _examples({"dim": 1}, {"dim": (2, 3), "keepdim": True}),
        facts=ALONG_DIM_FACTS,
        saves=("input", "result"),
    ),
)
COMPOSITE_ROWS = (
    Composite(
        name="norm",
        torch="torch.norm",
        roles=("input",),
        attributes=(Attribute(name="p", default=2, check=number), DIMS, KEEP),
        compose=_norm,
        examples=_examples({}, {"dim": 1, "keepdim": True}),
        facts=ALONG_DIM_CALLS,
        source="torch/functional.py (norm: linalg.vector_norm)",
    ),
    Composite(
        name="normalize",
        torch="torch.nn.functional.normalize",
        roles=("input",),
        attributes=(
            Attribute(name="p", default=2.0, check=number),
            Attribute(name="dim", default=1, check=integer),
            Attribute(name="eps", default=1e-12, check=number),
        ),
        compose=_normalize,
        examples=_examples({}, {"dim": -1}),
        facts=ALONG_DIM_CALLS,
        source="torch/nn/functional.py (normalize)",
    ),
)
