"""Norms of matrices, means of what is no NaN, logarithms of determinants: ATen makes them of other calls; written as :mod:`composed` says.

Sources: aten/src/ATen/native/LinearAlgebra.cpp (``linalg_norm``, ``linalg_matrix_norm``), ReduceOps.cpp (``nanmean``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from memest.sources.importers.torch.calls.composed_losses import Body


def _matrix_norm(input: Any, ord: Any = "fro", dim: Sequence[int] = (-2, -1), keepdim: bool = False, *, dtype: Any = None) -> Any:
    """input norm of vectors along one of the dims, and the greatest or the least of these along the other."""
    first, last = (d % input.dim() for d in dim)
    if ord == "fro":
        return torch.linalg.vector_norm(input, 2, (first, last), keepdim, dtype=dtype)
    if isinstance(ord, str) or abs(ord) == 2:
        return _of_values(input if dtype is None else input.to(dtype), ord, first, last, keepdim)
    if abs(ord) == math.inf:
        first, last = last, first
    if not keepdim and first < last:
        last -= 1
    sums = torch.linalg.vector_norm(input, 1, (first,), keepdim, dtype=dtype)
    return sums.amax(last, keepdim) if ord > 0 else sums.amin(last, keepdim)


def _of_values(input: Any, ord: Any, first: int, last: int, keepdim: bool) -> Any:
    """The greatest, the least or the sum of the singular values, of matrices moved to the last dims."""
    order = [*(d for d in range(input.dim()) if d not in (first, last)), first, last]
    values = torch.linalg.svdvals(input.permute(order))
    found = values.sum(-1, keepdim) if ord == "nuc" else values.amax(-1, keepdim) if ord > 0 else values.amin(-1, keepdim)
    return found.unsqueeze(-1).permute([order.index(d) for d in range(input.dim())]) if keepdim else found


def _norm(input: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """That of a vector where there is one dim, else of a matrix where an order is given."""
    if ord is None:
        return torch.linalg.vector_norm(input, 2, dim, keepdim, dtype=dtype)
    dims = tuple(range(input.dim())) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    if len(dims) == 2:
        return _matrix_norm(input, ord, dims, keepdim, dtype=dtype)
    return torch.linalg.vector_norm(input, ord, dim, keepdim, dtype=dtype)


def _nanmean(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    there = torch.isnan(input.detach()).logical_not_()
    count = there.sum(dim, keepdim)
    del there
    return torch.nansum(input, dim, keepdim, dtype=dtype).div(count)


def _logdet(input: Any) -> Any:
    """NaN where the sign is negative."""
    sign, logarithm = torch.linalg.slogdet(input)
    negative = sign == -1.0
    return torch.where(negative, math.nan, logarithm)


NORMS: dict[str, Body] = {"linalg_matrix_norm": _matrix_norm, "linalg_norm": _norm, "nanmean": _nanmean, "logdet": _logdet}
