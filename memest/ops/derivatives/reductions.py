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


def _var_mean(f: Formula, saved: Saved, grads: Grads, *, dim: Any, correction: float | None, keepdim: bool) -> Derived:
    """var_mean_backward: both gradients, added."""
    of_var, of_mean = grads
    input = saved["input"]
    first = None if of_var is None else f.statement(lambda: _var_of(f, of_var, input, dim, keepdim))
    if of_mean is None:
        return [first]

    def spread() -> Any:
        wide = f.expand(restored(f, of_mean, dim, keepdim, len(input.shape)), input.shape)
        return f.over(wide, prod(input.shape[d] for d in reduced_dims(dim, len(input.shape))))

    second = f.statement(spread)
    return [second if first is None else f.add(first, second)]


def _extremum(f: Formula, saved: Saved, grads: Grads, *, dim: Any, keepdim: bool) -> Derived:
    """scale_grad_by_count: (grad / mask.sum(dim, True)) * mask, of the elements that equal the result."""
    input, ndim = saved["input"], len(saved["input"].shape)
    mask = f.call("eq", restored(f, saved["result"], dim, keepdim, ndim), input)
    share = f.div(restored(f, only(grads), dim, keepdim, ndim), f.sum(mask, reduced_dims(dim, ndim), True))
    return [f.mul(share, mask)]


def _prod(f: Formula, saved: Saved, grads: Grads, *, dim: int | None, keepdim: bool, dtype: str | None) -> Derived:
    """prod_backward where no element is zero: grad * (result / input), after counting zeros."""
    grad, input, result = only(grads), saved["input"], saved["result"]
    ndim = len(input.shape)
    if not ndim:
        return [grad]
    if dtype is not None and dtype != input.spec.dtype:
        raise f.unknown("a product with a dtype of its own")
    if dim is None:
        f.statement(lambda: f.call("nonzero", f.call("eq", input, None, value=0), count=0))
    else:
        grad, result = restored(f, grad, dim, keepdim, ndim), restored(f, result, dim, keepdim, ndim)
        counts = f.sum(f.call("eq", input, None, value=0), (dim,), True)
        f.drop(f.sum(counts))
    return [f.mul(grad, f.div(result, input))]


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
    "var_mean": _var_mean,
    **dict.fromkeys(("amax", "amin"), _extremum),
    "prod": _prod,
    "vector_norm": _vector_norm,
    "logsumexp": _logsumexp,
    "cumsum": _cumsum,
}
