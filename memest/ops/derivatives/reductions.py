"""Sums, means, deviations and norms. Source: derivatives.yaml, FunctionsManual.cpp (sum_backward, var_backward, norm_backward)."""

from __future__ import annotations

from math import prod
from typing import Any

from memest.network.tensor import Shape
from memest.ops.aten.views import reduced_dims
from memest.ops.derivatives.formula import Derived, Formula, Grads, Saved, only
from memest.ops.derivatives.shapes import restored


def _sum(f: Formula, saved: Saved, grads: Grads, *, dim: Any, keepdim: bool, dtype: str | None) -> Derived:
    sizes: Shape = saved["sizes"]
    return [f.expand(restored(f, only(grads), dim, keepdim, len(sizes)), sizes)]


def _mean(f: Formula, saved: Saved, grads: Grads, *, dim: Any, keepdim: bool, dtype: str | None) -> Derived:
    sizes: Shape = saved["sizes"]
    spread = f.expand(restored(f, only(grads), dim, keepdim, len(sizes)), sizes)
    return [f.over(spread, prod(sizes[d] for d in reduced_dims(dim, len(sizes))))]


def _var_of(f: Formula, grad: Any, input: Any, dim: Any, keepdim: bool) -> Any:
    """2 / (n - correction) * grad * (self - self.mean(dim, keepdim=True))."""
    if dim is None or not input.shape:
        centred = f.sub(input, f.call("mean", input))
    else:
        grad = restored(f, grad, dim, keepdim or len(input.shape) == 1, len(input.shape))
        centred = f.sub(input, f.call("mean", input, dim=dim, keepdim=True))
    return f.mul(f.times(grad, 2.0), centred)


def _var(f: Formula, saved: Saved, grads: Grads, *, dim: Any, correction: float | None, keepdim: bool) -> Derived:
    return [_var_of(f, only(grads), saved["input"], dim, keepdim)]


def _std(f: Formula, saved: Saved, grads: Grads, *, dim: Any, correction: float | None, keepdim: bool) -> Derived:
    """(grad / (result * 2)).masked_fill_(result == 0, 0), then as for the variance."""
    result = saved["result"]
    quotient = f.div(only(grads), f.times(result, 2))
    of_variance = f.call("masked_fill", quotient, f.call("eq", result, None, value=0), value=0, inplace=True)
    return [_var_of(f, of_variance, saved["input"], dim, keepdim)]


def _vector_norm(f: Formula, saved: Saved, grads: Grads, *, ord: float, dim: Any, keepdim: bool, dtype: str | None) -> Derived:
    """Order 2: grad * (self / norm).masked_fill_(norm == 0, 0)."""
    if ord != 2:
        raise f.unknown(f"a norm of order {ord}")
    input, ndim = saved["input"], len(saved["input"].shape)
    grad = restored(f, only(grads), dim, keepdim, ndim)
    norm = restored(f, saved["result"], dim, keepdim, ndim)
    unit = f.div(input, norm)
    return [f.mul(grad, f.call("masked_fill", unit, f.call("eq", norm, None, value=0), value=0, inplace=True))]


def _logsumexp(f: Formula, saved: Saved, grads: Grads, *, dim: Any, keepdim: bool) -> Derived:
    """grad * (self - result).exp()."""
    input, ndim = saved["input"], len(saved["input"].shape)
    grad = restored(f, only(grads), dim, keepdim, ndim)
    result = restored(f, saved["result"], dim, keepdim, ndim)
    return [f.mul(grad, f.call("exp", f.sub(input, result)))]


def _cumsum(f: Formula, saved: Saved, grads: Grads, *, dim: int, dtype: str | None) -> Derived:
    """grad.flip(dim).cumsum(dim).flip(dim)."""
    grad = only(grads)
    if grad.spec.dtype != saved["dtype"]:
        grad = f.call("_to_copy", grad, dtype=saved["dtype"])
    if prod(grad.shape) <= 1 or grad.shape[dim] == 1:
        return [grad]
    return [f.call("flip", f.call("cumsum", f.call("flip", grad, dims=(dim,)), dim=dim), dims=(dim,))]


FORMULAS: dict[str, Any] = {
    "sum": _sum,
    "mean": _mean,
    "var": _var,
    "std": _std,
    "vector_norm": _vector_norm,
    "logsumexp": _logsumexp,
    "cumsum": _cumsum,
}
