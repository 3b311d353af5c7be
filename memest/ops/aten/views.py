"""Views and the arithmetic of dims: what families of operators share. No view takes memory; only a reshape may copy."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from memest.errors import ShapeError
from memest.network.tensor import Shape, channels_last_strides
from memest.ops.aten.copies import cat, contiguous, suggests_channels_last
from memest.ops.aten.reductions import reduced_shape
from memest.ops.operator import integer, integers, optional
from memest.ops.tape import Tape, Tensor


def wrapped(dim: int, ndim: int) -> int:
    """A dim counted from the end made positive."""
    limit = max(ndim, 1)
    if not -limit <= dim < limit:
        raise ShapeError(f"dimension {dim} of a tensor of {ndim}")
    return dim + limit if dim < 0 else dim


def inferred_shape(wanted: Sequence[int], numel: int) -> Shape:
    """``wanted`` with its one -1 worked out."""
    known = prod(n for n in wanted if n != -1)
    if -1 in wanted and wanted.count(-1) == 1 and known and numel % known == 0:
        return tuple(numel // known if n == -1 else n for n in wanted)
    if -1 in wanted or known != numel:
        raise ShapeError(f"shape {list(wanted)} does not hold {numel} elements")
    return tuple(wanted)


def viewed_strides(shape: Shape, strides: Shape, wanted: Shape) -> Shape | None:
    """Strides that show the elements of (shape, strides) under ``wanted``; None when a copy is needed (at::detail::computeStride)."""
    if 0 in shape:
        return strides if shape == wanted else _zero_strides(wanted)
    out = [0] * len(wanted)
    d = len(wanted) - 1
    step = strides[-1] if shape else 1
    chunk = taken = 1
    for i in range(len(shape) - 1, -1, -1):
        chunk = chunk * shape[i]
        if i == 0 or (shape[i - 1] != 1 and strides[i - 1] != chunk * step):
            while d >= 0 and (taken < chunk or wanted[d] == 1):
                out[d] = taken * step
                taken = taken * wanted[d]
                d -= 1
            if taken != chunk:
                return None
            if i > 0:
                step = strides[i - 1]
                chunk = taken = 1
    if not shape:
        return (1,) * len(wanted)
    return tuple(out) if d == -1 else None


def _zero_strides(wanted: Shape) -> Shape:
    out = [1] * len(wanted)
    for d in range(len(wanted) - 2, -1, -1):
        out[d] = max(wanted[d + 1], 1) * out[d + 1]
    return tuple(out)


def reshaped(k: Tape, t: Tensor, shape: Shape) -> Tensor:
    """``t.reshape(shape)``: a view where strides allow, else a contiguous copy under another shape (``_unsafe_view``: no view of it)."""
    strides = viewed_strides(t.shape, t.strides, shape)
    if strides is not None:
        return k.view(t, shape, strides)
    return k.alias(contiguous(k, t), shape)


def permuted(k: Tape, t: Tensor, dims: Sequence[int]) -> Tensor:
    """The view with dims in another order."""
    return k.view(t, [t.shape[d] for d in dims], [t.strides[d] for d in dims])


def rearranged(k: Tape, t: Tensor, inner: Shape, order: Sequence[int], shape: Shape, always: bool = True) -> Tensor:
    """The elements of ``t`` seen under ``inner``, their dims in another order, as ``shape``. On CPU a kernel writes them in the memory
    format the input suggests; on CUDA they are reshaped, permuted and copied row by row, ``always`` or only where they do not lie so
    (PixelShuffle.cpp, ChanelShuffle.cpp)."""
    if k.target.on_cuda:
        moved = permuted(k, reshaped(k, t, inner), order)
        return k.alias(k.empty(moved.shape, t.dtype) if always else contiguous(k, moved), shape)
    last = suggests_channels_last(t)
    out = k.empty(shape, t.dtype, channels_last_strides(shape) if last else None)
    k.free(contiguous(k, t, last))
    return out


def unsqueezed(k: Tape, t: Tensor, dim: int) -> Tensor:
    """The view with a dim of size 1 more at ``dim``."""
    step = t.shape[dim] * t.strides[dim] if dim < t.ndim else 1
    return k.view(t, (*t.shape[:dim], 1, *t.shape[dim:]), (*t.strides[:dim], step, *t.strides[dim:]))


def stacked(k: Tape, tensors: Sequence[Tensor], dim: int) -> Tensor:
    """``at::stack``: tensors joined along ``dim`` and that dim split in two; a dim beyond the last is made first."""
    if dim == tensors[0].ndim:
        return cat(k, [unsqueezed(k, t, dim) for t in tensors], dim)
    joined = cat(k, tensors, dim)
    n, step = tensors[0].shape[dim], joined.strides[dim]
    shape = (*joined.shape[:dim], len(tensors), n, *joined.shape[dim + 1 :])
    return k.view(joined, shape, (*joined.strides[:dim], n * step, *joined.strides[dim:]))


def squeezed(k: Tape, t: Tensor, dims: Sequence[int]) -> Tensor:
    """The view without those of ``dims`` that have size 1."""
    kept = [d for d in range(t.ndim) if d not in dims or t.shape[d] != 1]
    return k.view(t, [t.shape[d] for d in kept], [t.strides[d] for d in kept])


def expanded(k: Tape, t: Tensor, shape: Shape) -> Tensor:
    """The view repeated along dims of size 1 (inferExpandGeometry)."""
    lead = len(shape) - t.ndim
    if lead < 0:
        raise ShapeError(f"expand of {list(t.shape)} to fewer dimensions {list(shape)}")
    sizes, strides = list(shape), [0] * len(shape)
    if t.ndim == 0:
        return k.view(t, sizes, strides)
    for i in range(len(shape) - 1, -1, -1):
        size = t.shape[i - lead] if i >= lead else 1
        step = t.strides[i - lead] if i >= lead else (sizes[i + 1] * strides[i + 1] if i + 1 < len(shape) else 1)
        if sizes[i] == -1:
            sizes[i] = size
        if size not in (1, sizes[i]):
            raise ShapeError(f"expand of {list(t.shape)} to {list(shape)}")
        strides[i] = step if size == sizes[i] else 0
    return k.view(t, sizes, strides)


def slice_bounds(length: int, start: int | None, end: int | None, step: int) -> tuple[int, int]:
    """Start and number of elements of a slice, as Python clamps it."""
    if step <= 0:
        raise ShapeError(f"slice step must be positive, got {step}")
    first = 0 if start is None else start
    last = length if end is None else end
    first = max(first + length, 0) if first < 0 else min(first, length)
    last = last + length if last < 0 else min(last, length)
    return first, (max(last - first, 0) + step - 1) // step


def dim_or_dims(value: Any) -> Any:
    """One dim, several, or None."""
    return None if value is None else integers(value) if isinstance(value, list | tuple) else integer(value)


def index_entries(value: Any) -> tuple[Any, ...]:
    """The entries of an index: integer, [start, end, step], None, "..." or "tensor"."""
    if not isinstance(value, list | tuple):
        raise ValueError("expected a list of index entries")
    return tuple(_index_entry(v) for v in value)


def _index_entry(value: Any) -> Any:
    if isinstance(value, list | tuple):
        if len(value) != 3:
            raise ValueError("a slice is [start, end, step]")
        start, end, step = (optional(integer)(v) for v in value)
        return (start, end, 1 if step is None else step)
    return value if value is None or value in ("...", "tensor") else integer(value)


def reduced_dims(dim: Any, ndim: int) -> tuple[int, ...]:
    """The dims to reduce, in order; None or an empty list means all."""
    if dim is None or dim == ():
        return tuple(range(ndim))
    return tuple(sorted(wrapped(d, ndim) for d in ((dim,) if isinstance(dim, int) else dim)))


def reduction_shape(input: Tensor, dim: Any, keepdim: bool) -> Shape:
    """What is left of the input's shape when ``dim`` is reduced."""
    return reduced_shape(input.shape, reduced_dims(dim, input.ndim), keepdim) if input.ndim else ()


def restored(k: Tape, t: Tensor, dim: Any, keepdim: bool, ndim: int) -> Tensor:
    """The view with the reduced dims back, as dims of size 1 (unsqueeze_multiple)."""
    if keepdim or not ndim:
        return t
    for d in reduced_dims(dim, ndim):
        t = unsqueezed(k, t, d)
    return t


def overlap(size: Shape, stride: Shape) -> bool:
    """Whether places of a view may be the same (``_maybe_overlapping_memory``, of dims of more than one)."""
    reached = 0
    for step, n in sorted((step, n) for n, step in zip(size, stride, strict=True) if n != 1):
        if step <= reached:
            return True
        reached = reached + step * (n - 1)
    return False
