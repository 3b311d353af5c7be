"""Calls that ATen makes of other calls (CompositeImplicitAutograd): written here with torch's own functions, in ATen's order, so that the
recorder sees what is inside. What C++ keeps in a variable until its function returns is a variable here.

Sources: aten/src/ATen/native/TensorShape.cpp, TensorTransformations.cpp, LinearAlgebra.cpp, Linear.cpp, ReduceOps.cpp, TensorCompare.cpp,
Sorting.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from memest.errors import UnsupportedError
from memest.sources.importers.torch.calls.composed_leaves import LEAVES, required
from memest.sources.importers.torch.calls.composed_losses import LOSSES, Body, as_autocast_gives
from memest.sources.importers.torch.calls.composed_norms import NORMS
from memest.sources.importers.torch.calls.composed_spectra import SPECTRA
from memest.sources.importers.torch.calls.composed_statistics import STATISTICS
from memest.sources.importers.torch.calls.sequences import BODIES as SEQUENCES

# joined and cut ---------------------------------------------------------------------------------------------------------


def _several(tensors: tuple[Any, ...]) -> Sequence[Any]:
    """``f(a, b)`` and ``f([a, b])``."""
    return tensors[0] if len(tensors) == 1 and isinstance(tensors[0], list | tuple) else tensors


def _for_each(body: Body) -> Body:
    def composed(*tensors: Any) -> Any:
        if len(tensors) == 1 and isinstance(tensors[0], torch.Tensor):
            return body(tensors[0])
        return tuple(body(t) for t in _several(tensors))

    return composed


def _one_dim(t: Any) -> Any:
    return t.reshape(1) if t.dim() == 0 else t


def _two_dims(t: Any) -> Any:
    return t.reshape(1, 1) if t.dim() == 0 else t.unsqueeze(0) if t.dim() == 1 else t


def _three_dims(t: Any) -> Any:
    if t.dim() == 0:
        return t.reshape(1, 1, 1)
    return t.unsqueeze(0).unsqueeze(-1) if t.dim() == 1 else t.unsqueeze(-1) if t.dim() == 2 else t


def _hstack(tensors: Any) -> Any:
    raised = [_one_dim(t) for t in tensors]
    return torch.cat(raised, 0 if raised[0].dim() == 1 else 1)


def _vstack(tensors: Any) -> Any:
    raised = [_two_dims(t) for t in tensors]
    return torch.cat(raised, 0)


def _dstack(tensors: Any) -> Any:
    raised = [_three_dims(t) for t in tensors]
    return torch.cat(raised, 2)


def _column_stack(tensors: Any) -> Any:
    raised = [t.reshape(t.numel(), 1) if t.dim() <= 1 else t for t in tensors]
    return _hstack(raised)


def _cut_along(dim: Callable[[Any], int]) -> Body:
    def composed(input: Any, indices_or_sections: Any = None, **named: Any) -> Any:
        return torch.tensor_split(input, named.get("indices", named.get("sections", indices_or_sections)), dim(input))

    return composed


def _pad_sequence(sequences: Any, batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right") -> Any:
    longest = max(t.shape[0] for t in sequences)
    lead = (len(sequences), longest) if batch_first else (longest, len(sequences))
    out = torch.full((*lead, *sequences[0].shape[1:]), padding_value, dtype=sequences[0].dtype)
    for i, t in enumerate(sequences):
        start = longest - t.shape[0] if padding_side == "left" else 0
        if batch_first:
            out.select(0, i).narrow(0, start, t.shape[0]).copy_(t)
        else:
            out.narrow(0, start, t.shape[0]).select(1, i).copy_(t)
    return out


def _cartesian_prod(*tensors: Any) -> Any:
    given = _several(tensors)
    if len(given) == 1:
        return given[0]
    grids = [t.flatten() for t in torch.meshgrid(*given, indexing="ij")]
    return torch.stack(grids, 1)


def _take_along_dim(input: Any, indices: Any, dim: int | None = None) -> Any:
    if dim is None:
        return input.view(-1).gather(0, indices.view(-1))
    shape = [n if m == 1 else m for n, m in zip(indices.shape, input.shape, strict=True)]
    at = dim % input.dim()
    wide = [n if d != at else indices.shape[d] for d, n in enumerate(shape)]
    source = [n if d != at else input.shape[d] for d, n in enumerate(shape)]
    return input.expand(source).gather(dim, indices.expand(wide).remainder(input.shape[at]))


def _ravel(input: Any) -> Any:
    return input.contiguous().view(-1)


# turned -----------------------------------------------------------------------------------------------------------------


# ordered ----------------------------------------------------------------------------------------------------------------


def _quantile(input: Any, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear") -> Any:
    """The sorted values at the two places around each rank, and what lies between them. A number ``q`` is a tensor first, and that it lies
    from 0 to 1 is asked of tensors."""
    if interpolation != "linear" or (isinstance(q, torch.Tensor) and q.dim() > 0):
        raise UnsupportedError("quantile of several places, or not interpolated linearly, has no rule: ask for one place after the other")
    if isinstance(q, torch.Tensor):
        raise UnsupportedError("quantile by a tensor has no rule: give the place as a number")
    (input,) = as_autocast_gives("quantile", input)
    place = torch.full((), float(q), dtype=input.dtype)
    low, high = place >= 0, place <= 1
    inside = low.all()
    del low, high
    known = torch.empty((), dtype=torch.bool)
    del known, inside
    last = -1 if dim is None else dim
    moved = input.flatten() if dim is None else input.transpose(dim, -1)
    ordered = torch.sort(moved, -1)[0]
    ranks = place * (moved.shape[-1] - 1)
    absent = torch.isnan(ordered).any(-1, True)
    at = ranks.masked_fill(absent, 0)
    del ranks, absent
    below = at.to(torch.int64)
    under = ordered.gather(-1, below)
    weights = at - below
    above = at.ceil_().to(torch.int64)
    over = ordered.gather(-1, above)
    under.lerp_(over, weights)
    del over, weights, at, below, above, place
    if dim is None:
        return under.reshape([1] * input.dim()) if keepdim else under.squeeze(-1)
    found = under.transpose(last, -1)
    return found if keepdim else found.squeeze(dim)


# diagonals --------------------------------------------------------------------------------------------------------------


def _diag(input: Any, diagonal: int = 0) -> Any:
    if input.dim() == 1:
        return torch.diag_embed(input, diagonal)
    return input.diagonal(diagonal).clone(memory_format=torch.contiguous_format)


def _diagflat(input: Any, offset: int = 0) -> Any:
    return _diag(input.contiguous().view(-1), offset)


def _corner(row: int, col: int, offset: int) -> int:
    """How many places of a matrix lie on or under a diagonal."""
    return sum(min(max(i + 1 + offset, 0), col) for i in range(row))


def _tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, **named: Any) -> Any:
    return torch.empty((2, _corner(row, col, offset)), dtype=dtype or torch.int64)


def _triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, **named: Any) -> Any:
    return torch.empty((2, row * col - _corner(row, col, offset - 1)), dtype=dtype or torch.int64)


# products ---------------------------------------------------------------------------------------------------------------


def _outer(input: Any, vec2: Any) -> Any:
    return input.reshape(input.numel(), 1) * vec2


def _inner(input: Any, other: Any) -> Any:
    if input.dim() == 0 or other.dim() == 0:
        return input * other
    return _tensordot(input, other, [-1], [-1])


def _tensordot(a: Any, b: Any, dims_a: Any, dims_b: Any) -> Any:
    """``_VF.tensordot``: contracted dims of size 1 are summed away, the rest becomes a product of matrices."""
    first, second = [d % a.dim() for d in dims_a], [d % b.dim() for d in dims_b]
    one, two = a, b
    depth: Any = 1
    for i, j in zip(first, second, strict=True):
        if b.shape[j] == 1:
            one = one.sum(i, keepdim=True)
        elif a.shape[i] == 1:
            two = two.sum(j, keepdim=True)
        else:
            depth = depth * a.shape[i]
    own, others = [d for d in range(a.dim()) if d not in first], [d for d in range(b.dim()) if d not in second]
    rows: Any = math.prod(a.shape[d] for d in own)
    columns: Any = math.prod(b.shape[d] for d in others)
    if rows == 1 and columns == 1:
        left, right = one.permute(own + first), two.permute(second + others)
        if left.is_contiguous() and right.is_contiguous():
            made = torch.dot(left.reshape(-1), right.reshape(-1))
        else:
            product = left.squeeze() * right.squeeze()
            made = product.sum()
        return made.reshape([1] * (len(own) + len(others)))
    left = one.permute(own + first).reshape(rows, depth)
    right = two.permute(second + others).reshape(depth, columns)
    return torch.mm(left, right).reshape([a.shape[d] for d in own] + [b.shape[d] for d in others])


def _kron(input: Any, other: Any) -> Any:
    dims = max(input.dim(), other.dim())
    one, two = [1] * (dims - input.dim()) + list(input.shape), [1] * (dims - other.dim()) + list(other.shape)
    left = input.reshape([n for size in one for n in (size, 1)])
    right = other.reshape([n for size in two for n in (1, size)])
    return (left * right).reshape([n * m for n, m in zip(one, two, strict=True)])


def _getitem(input: Any, index: Any) -> Any:
    """A list of places becomes a tensor of the input's device."""
    entries = index if isinstance(index, tuple) else (index,)
    if not any(map(_is_places, entries)):
        return NotImplemented
    return input[tuple(torch.tensor(list(e), device=input.device) if _is_places(e) else e for e in entries)]


def _is_places(entry: Any) -> bool:
    return isinstance(entry, list | range) and bool(entry) and all(type(i) is int for i in entry)


def _masked_fill(input: Any, mask: Any, value: Any) -> Any:
    """A tensor of no dims is read as its number."""
    if not isinstance(value, torch.Tensor):
        return NotImplemented
    if value.requires_grad:
        raise UnsupportedError("masked_fill with a value that requires a gradient has no rule: torch.where(mask, value, x) is modelled")
    return input.masked_fill(mask, 0)


def _masked_fill_(input: Any, mask: Any, value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return NotImplemented
    if value.requires_grad:
        raise UnsupportedError("masked_fill_ with a value that requires a gradient has no rule: torch.where(mask, value, x) is modelled")
    return input.masked_fill_(mask, 0)


def _index_put(input: Any, indices: Any, values: Any, accumulate: bool = False) -> Any:
    return input.clone().index_put_(indices, values, accumulate)


def _fill_diagonal_(input: Any, fill_value: Any, wrap: bool = False) -> Any:
    """A view of the diagonal is filled."""
    if wrap and input.shape[0] > input.shape[1] + 1:
        raise UnsupportedError("fill_diagonal_ with wrap=True of a tall matrix has no rule: fill it part by part")
    input.as_strided((min(input.shape),), (sum(input.stride()),)).fill_(fill_value)
    return input


# numbers ----------------------------------------------------------------------------------------------------------------


def _softmax(input: Any, dim: int, dtype: Any = None) -> Any:
    """In another dtype it is a conversion first."""
    if dtype != torch.float64 or input.dtype == torch.float64:
        return NotImplemented
    return input.to(dtype).softmax(dim)


def _log_softmax(input: Any, dim: int, dtype: Any = None) -> Any:
    if dtype != torch.float64 or input.dtype == torch.float64:
        return NotImplemented
    return input.to(dtype).log_softmax(dim)


def _positive(input: Any) -> Any:
    return input


def _diff(input: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    if n == 0:
        made = torch.zeros_like(input)
        return made.copy_(input)
    parts = [t for t in (prepend, input, append) if t is not None]
    joined = torch.cat(parts, dim) if len(parts) > 1 else input
    result = joined
    for _ in range(n):
        length = result.shape[dim] - 1
        after, before = result.narrow(dim, 1, length), result.narrow(dim, 0, length)
        result = torch.logical_xor(after, before) if result.dtype == torch.bool else after - before
        del after, before
    return result


def _like(name: str) -> Body:
    """``empty_like(x, memory_format=…)`` and its kin: as ``x`` lies, or row-major."""

    def composed(input: Any, *args: Any, memory_format: Any = None, **named: Any) -> Any:
        if memory_format is None:
            return NotImplemented
        if memory_format == torch.preserve_format or (memory_format == torch.contiguous_format and input.is_contiguous()):
            return getattr(torch, name)(input, *args, **named)
        if args or memory_format != torch.contiguous_format or name not in ("empty_like", "zeros_like", "ones_like"):
            raise UnsupportedError(f"{name} with memory_format={memory_format} has no rule")
        named = {n: v for n, v in named.items() if n not in ("requires_grad", "device") and v is not None}
        return getattr(input, f"new_{name.removesuffix('_like')}")(input.shape, **named)

    return composed


BODIES: dict[str, Body] = {
    **LOSSES,
    **NORMS,
    **SPECTRA,
    **STATISTICS,
    **SEQUENCES,
    **LEAVES,
    **{name: required(name, _like(name)) for name in ("empty_like", "zeros_like", "ones_like", "rand_like", "randn_like", "full_like")},
    "atleast_1d": _for_each(_one_dim),
    "atleast_2d": _for_each(_two_dims),
    "atleast_3d": _for_each(_three_dims),
    "hstack": _hstack,
    **dict.fromkeys(("vstack", "row_stack"), _vstack),
    "dstack": _dstack,
    "column_stack": _column_stack,
    "hsplit": _cut_along(lambda t: 0 if t.dim() == 1 else 1),
    "vsplit": _cut_along(lambda t: 0),
    "dsplit": _cut_along(lambda t: 2),
    "pad_sequence": _pad_sequence,
    "cartesian_prod": _cartesian_prod,
    "take_along_dim": _take_along_dim,
    "ravel": _ravel,
    "fliplr": lambda input: input.flip([1]),
    "flipud": lambda input: input.flip([0]),
    "quantile": _quantile,
    "diag": _diag,
    "diagflat": _diagflat,
    "tril_indices": _tril_indices,
    "triu_indices": _triu_indices,
    **dict.fromkeys(("outer", "ger"), _outer),
    "inner": _inner,
    "tensordot": _tensordot,
    "kron": _kron,
    "__getitem__": _getitem,
    "masked_fill": _masked_fill,
    "masked_fill_": _masked_fill_,
    "index_put": _index_put,
    "fill_diagonal_": _fill_diagonal_,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "positive": _positive,
    "diff": _diff,
}
"""By torch's own name; a body gets what the call gets, and NotImplemented leaves it to the rows."""
