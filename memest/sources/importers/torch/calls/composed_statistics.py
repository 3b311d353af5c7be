"""Covariances, integrals, slopes and products of what lies beside one another, which ATen makes of other calls: written as :mod:`composed`
says.

Sources: aten/src/ATen/native/Correlation.cpp, Integration.cpp, ReduceOps.cpp (``pre_check_gradient``, ``gradient_helper``).
"""

from __future__ import annotations

from typing import Any

import torch

from memest.errors import UnsupportedError
from memest.sources.importers.torch.calls.composed_losses import Body

# covariances --------------------------------------------------------------------------------------------------------------


def _cov(input: Any, *, correction: int = 1, fweights: Any = None, aweights: Any = None) -> Any:
    """The rows are variables, the columns observations."""
    if fweights is not None or aweights is not None:
        raise UnsupportedError("torch.cov with weights has no rule: weigh the observations before")
    total = torch.empty((), dtype=torch.int64)
    rows = input.view(1, -1) if input.dim() < 2 else input
    sums = rows.sum(1)
    average = sums / total
    del sums
    norm = torch.empty((), dtype=torch.int64)
    mask = norm <= 0
    found = torch.empty((), dtype=torch.bool)
    del mask, found
    rows = rows - average.unsqueeze(1)
    turned = rows.t()
    made = torch.mm(rows, turned)
    del turned
    divided = torch.true_divide(made, norm)
    return divided.squeeze()


def _corrcoef(input: Any) -> Any:
    made = torch.cov(input)
    if made.dim() == 0:
        return made / made
    variances = made.diagonal()
    deviations = torch.sqrt(variances)
    made = made / deviations.view(-1, 1)
    made = made / deviations.view(1, -1)
    return made.clip(-1, 1)


# integrals ----------------------------------------------------------------------------------------------------------------


def _steps_of(y: Any, x: Any, dim: int) -> Any:
    """``x.slice(1) - x.slice(0, -1)``, as many dims as ``y`` has."""
    if x.dim() == 1:
        sizes = [1] * y.dim()
        sizes[dim] = x.shape[0]
        seen = x.view(sizes)
    else:
        seen = x.view([1] * (y.dim() - x.dim()) + list(x.shape)) if x.dim() < y.dim() else x
    length = seen.shape[dim] - 1
    before, after = seen.narrow(dim, 0, length), seen.narrow(dim, 1, length)
    return after - before


def _beside(y: Any, dim: int) -> tuple[Any, Any]:
    """All but the last, and all but the first."""
    length = y.shape[dim] - 1
    return y.narrow(dim, 0, length), y.narrow(dim, 1, length)


def _trapezoid(y: Any, x: Any = None, *, dx: Any = 1, dim: int = -1) -> Any:
    dim = dim % y.dim()
    if x is None:
        if isinstance(dx, torch.Tensor):
            raise UnsupportedError("trapezoid by a tensor as dx has no rule: give a number")
        ends = y.select(dim, 0) + y.select(dim, -1)
        half = torch.ops.aten.mul.Scalar(ends, 0.5)
        total = y.sum(dim)
        inner = total - half
        return torch.ops.aten.mul.Scalar(inner, dx)
    steps = _steps_of(y, x, dim)
    before, after = _beside(y, dim)
    both = before + after
    areas = both * steps
    total = areas.sum(dim)
    return torch.ops.aten.div.Scalar(total, 2.0)


def _cumulative_trapezoid(y: Any, x: Any = None, *, dx: Any = 1, dim: int = -1) -> Any:
    dim = dim % y.dim()
    if x is None:
        before, after = _beside(y, dim)
        both = after + before
        areas = torch.ops.aten.mul.Scalar(both, dx / 2.0)
        return areas.cumsum(dim)
    steps = _steps_of(y, x, dim)
    before, after = _beside(y, dim)
    both = after + before
    areas = steps * both
    sums = areas.cumsum(dim)
    return torch.ops.aten.div.Scalar(sums, 2.0)


# counts and views ---------------------------------------------------------------------------------------------------------


def _count_nonzero(input: Any, dim: Any = None) -> Any:
    if dim is None:
        return torch.empty((), dtype=torch.int64)
    return (input != 0).sum(dim)


def _float_power(input: Any, exponent: Any) -> Any:
    """In float64, the exponent first."""
    power, base = (t.to(torch.float64) if isinstance(t, torch.Tensor) else t for t in (exponent, input))
    return torch.pow(base, power)


def _sum_to_size(input: Any, *size: Any) -> Any:
    """What was broadcast is summed, all dims at once."""
    sizes = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
    if not sizes:
        return input.sum()
    lead = input.dim() - len(sizes)
    dims = [d for d in range(input.dim()) if d < lead or (sizes[d - lead] == 1 and input.shape[d] != 1)]
    if not dims:
        return input if lead == 0 else input.view(sizes)
    found = input.sum(dims, keepdim=True)
    return found.view(sizes) if lead else found


def _unsafe_chunk(input: Any, chunks: int, dim: int = 0) -> Any:
    return torch.unsafe_split(input, (input.shape[dim] + chunks - 1) // chunks, dim)


def _itself(input: Any) -> Any:
    """Of real numbers."""
    return NotImplemented if input.is_complex() else input


STATISTICS: dict[str, Body] = {
    "count_nonzero": _count_nonzero,
    "float_power": _float_power,
    "sum_to_size": _sum_to_size,
    "unsafe_chunk": _unsafe_chunk,
    **dict.fromkeys(("conj", "resolve_conj", "resolve_neg", "conj_physical"), _itself),
    "cov": _cov,
    "corrcoef": _corrcoef,
    **dict.fromkeys(("trapezoid", "trapz"), _trapezoid),
    "cumulative_trapezoid": _cumulative_trapezoid,
}
