"""Group norm and weight norm: under ``create_graph`` their backward is written with operators that autograd knows.

What forward gives beside its result (group norm's statistics) is kept, and has a gradient of its own, though no row hands it out:
``BESIDE`` names those outputs. Source: FunctionsManual.cpp (infinitely_differentiable_native_group_norm_backward),
aten/src/ATen/native/WeightNorm.cpp (_weight_norm_differentiable_backward).
"""

from __future__ import annotations

from math import prod
from typing import Any

from memest.ops.derivatives.formula import Derived, Formula, Grads, Kernel, Saved, by_derivative, only

STATISTICS_APART_SINCE = (2, 14)


class _Groups:
    """The input, its gradient and the statistics of one call, seen by groups."""

    def __init__(self, f: Formula, saved: Saved, grad: Any, groups: int) -> None:
        shape = saved["input"].shape
        n, channels, space = shape[0], shape[1], prod(shape[2:])
        self.shape, self.inner, self.scalars = shape, (n, groups, channels // groups, space), (n, groups, 1, 1)
        self.x = f.reshape(saved["input"], self.inner)
        self.mean, self.rstd = f.reshape(saved["mean"], self.scalars), f.reshape(saved["rstd"], self.scalars)
        self.weight = saved.get("weight")
        self.dy = self.ds = self.db = None
        if grad is not None:
            self.dy = f.reshape(grad, self.inner)
            self.ds = f.statement(lambda: f.unsqueeze(f.sum(f.mul(self.dy, self.x), 3), -1))
            self.db = f.statement(lambda: f.unsqueeze(f.sum(self.dy, 3), -1))


def _group_norm(f: Formula, saved: Saved, grads: Grads, *, num_groups: int, eps: float) -> Derived:
    """From 2.14 on the gradients of the statistics are added by a call of their own, and without a graph the kernel gives the others."""
    grad, of_mean, of_rstd = (*grads, None, None)[:3]
    needs, channels = dict(zip(saved["given"], f.needs, strict=True)), saved["input"].shape[1]
    apart, beside = f.version >= STATISTICS_APART_SINCE, of_mean is not None and of_rstd is not None
    if (of_mean is None) != (of_rstd is None) or (grad is None and not beside):
        raise f.unknown("group_norm, of whose statistics one alone gets a gradient")
    found: dict[str, Any] = {}
    if apart and grad is None:
        dtype = saved["mean"].spec.dtype
        found = {role: f.zeros((channels,), dtype) for role in ("weight", "bias") if needs.get(role)}
    elif apart and not f.creates:
        parts = f.kernel("group_norm", [grad], saved, f.needs, num_groups=num_groups, eps=eps)
        found = dict(zip(saved["given"], parts, strict=True))
    else:
        t = _Groups(f, saved, grad, num_groups)
        if needs.get("input"):
            given = None if apart or not beside else (of_mean, of_rstd)
            found["input"] = f.statement(lambda: _group_input(f, t, given, None if apart else eps))
        if needs.get("weight") and grad is not None:
            found["weight"] = f.statement(lambda: f.reshape(f.sum(f.mul(f.sub(t.ds, f.mul(t.db, t.mean)), t.rstd), 0), (channels,)))
        if needs.get("bias") and grad is not None:
            found["bias"] = f.statement(lambda: f.reshape(f.sum(t.db, 0), (channels,)))
    if apart and beside and needs.get("input"):
        found["input"] = f.statement(lambda: _with_statistics(f, saved, found.get("input"), (of_mean, of_rstd), num_groups))
    return [found.get(role) for role in saved["given"]]


def _group_input(f: Formula, t: _Groups, statistics: tuple[Any, Any] | None, eps: float | None) -> Any:
    """a * dY + b * X + c, and what the gradients of mean and deviation add."""
    scale = None if t.weight is None else f.reshape(t.weight, (1, *t.inner[1:3], 1))
    if eps is not None:  # the variance, which nothing reads

        def variance() -> Any:
            inverse = f.call("reciprocal", f.mul(t.rstd, t.rstd), inplace=True)
            return f.call("clamp_min", f.plus(inverse, -eps), min=0)

        f.statement(variance)
    cube = f.statement(lambda: f.mul(f.mul(t.rstd, t.rstd), t.rstd))
    of_variance = None
    if statistics is not None:
        of_variance = f.statement(lambda: f.mul(f.times(cube, -0.5), f.view(statistics[1], t.scalars)))
        if t.dy is None:
            found = f.statement(lambda: _of_statistics(f, of_variance, f.view(statistics[0], t.scalars), t.x))
            return f.reshape(found, t.shape)
    a = t.rstd if scale is None else f.mul(t.rstd, scale)

    def summed(of: Any) -> Any:
        return f.statement(lambda: f.unsqueeze(f.sum(of if scale is None else f.mul(of, scale), 2), -2))

    b, c = summed(t.ds), summed(t.db)
    b, before = f.statement(lambda: f.times(f.mul(f.sub(f.mul(c, t.mean), b), cube), 1.0)), b
    f.drop(before)

    def shift() -> Any:
        right = f.times(f.mul(c, t.rstd), 1.0)
        return f.sub(f.mul(f.neg(b), t.mean), right)

    c, before = f.statement(shift), c
    f.drop(before)

    def total() -> Any:
        right = f.mul(b, t.x)
        return f.add(f.add(f.mul(a, t.dy), right), c)

    dx = f.statement(total)
    if statistics is not None:
        f.statement(lambda: f.iadd(dx, _of_statistics(f, of_variance, f.view(statistics[0], t.scalars), t.x)))
    return f.reshape(dx, t.shape)


def _of_statistics(f: Formula, of_variance: Any, of_mean: Any, x: Any) -> Any:
    """var_mean_backward over the dims of a group."""
    dims = tuple(range(2, len(x.shape)))

    def of_var() -> Any:
        centred = f.sub(x, f.call("mean", x, dim=dims, keepdim=True))
        return f.mul(f.times(of_variance, 2.0), centred)

    first = f.statement(of_var)
    second = f.statement(lambda: f.over(f.expand(of_mean, x.shape), prod(x.shape[2:])))
    return f.add(first, second)


def _with_statistics(f: Formula, saved: Saved, found: Any, given: tuple[Any, Any], groups: int) -> Any:
    """The same added, each group flat: -0.5 * rstd * rstd * rstd * drstd is the variance's gradient."""
    shape = saved["input"].shape
    scalars = (shape[0], groups, 1)
    rstd = f.reshape(saved["rstd"], scalars)
    of_rstd = f.view(given[1], scalars)
    of_variance = f.statement(lambda: f.mul(f.mul(f.mul(f.times(rstd, -0.5), rstd), rstd), of_rstd))
    x = f.reshape(saved["input"], (shape[0], groups, prod(shape[1:]) // groups))

    def of_input() -> Any:
        made = f.statement(lambda: f.reshape(_of_statistics(f, of_variance, f.reshape(given[0], scalars), x), shape))
        return made if found is None else f.add(found, made)

    total = f.statement(of_input)
    if found is not None:
        f.drop(found)
    return total


def _weight_norm(f: Formula, saved: Saved, grads: Grads, *, dim: int) -> Derived:
    v, g, norms = saved["v"], saved["g"], saved["norms"]
    grad = f.contiguous(only(grads))
    sizes = tuple(v.shape[d] if d == dim else 1 for d in range(len(v.shape)))
    norms = norms if norms.spec.dtype == g.spec.dtype else f.call("_to_copy", norms, dtype=g.spec.dtype)
    flat, along = ((v.shape[0], -1), 1) if dim == 0 else ((-1, v.shape[dim]), 0)
    sums = f.statement(lambda: f.view(f.sum(f.view(f.mul(grad, v), flat), along), sizes))

    def of_v() -> Any:
        ratio = f.div(sums, f.mul(norms, norms))
        right = f.sub(grad, f.mul(v, ratio))
        return f.mul(f.div(g, norms), right)

    first = f.statement(of_v)
    second = f.div(sums, norms)
    return [first if f.wants(0) else None, second if f.wants(1) else None]


BESIDE: dict[str, tuple[str, ...]] = {"group_norm": ("mean", "rstd")}
FORMULAS: dict[str, Any] = {
    "group_norm": Kernel((), by_derivative, _group_norm),
    "_weight_norm_interface": _weight_norm,
}
