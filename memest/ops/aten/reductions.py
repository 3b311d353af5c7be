"""Reductions: sums, means and what they hold while they run.

Source: aten/src/ATen/native/ReduceOps.cpp, cpu/Reduce.h, TensorIteratorReduce.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from memest.network.dtypes import HALVES
from memest.network.tensor import Shape, contiguous_strides, same_shape
from memest.ops.aten.iterator import preserved_strides, sorted_dims, with_number_
from memest.ops.tape import Tape, Tensor


def reduced_shape(shape: Shape, dims: Sequence[int] | None, keepdim: bool) -> Shape:
    """The shape left after reducing ``dims`` (None or empty: all)."""
    ndim = len(shape)
    gone = set(range(ndim)) if not dims else {d % max(ndim, 1) for d in dims}
    if keepdim:
        return tuple(1 if d in gone else n for d, n in enumerate(shape))
    return tuple(n for d, n in enumerate(shape) if d not in gone)


GRAIN_SIZE = 32768


def partial_sums(source: Shape, out: Shape, threads: int) -> int:
    """How many partial results a reduction makes: a large one to a single element runs in two passes, one part a thread
    (TensorIteratorReduce.cpp, two_pass_reduction); any other makes none."""
    return threads if prod(out) == 1 and prod(source) >= GRAIN_SIZE and threads > 1 else 0


def sum_to(k: Tape, t: Tensor, shape: Shape) -> Tensor:
    """``at::sum_to``: ``t`` reduced over the dims that were broadcast from ``shape``."""
    if shape and same_shape(t.shape, shape):
        return t
    out = k.empty(shape, t.dtype)
    lead = t.ndim - len(shape)
    sum_into(k, t, out, [d for d, n in enumerate(t.shape) if d < lead or (shape[d - lead] == 1 and n != 1)])
    return out


def sum_into(k: Tape, source: Tensor, out: Tensor, dims: Sequence[int] | None = None) -> None:
    """``sum_out`` over ``dims`` (None or empty: all): nothing, but for a cast of another dtype, the partial sums, and the float32 copies
    of half types that are summed in more than one loop."""
    cast = k.empty(source.shape, out.dtype, preserved_strides(source)) if source.dtype != out.dtype else None
    summed = source if cast is None else cast
    if out.dtype in HALVES and _sums_in_loops(summed, dims):
        total = k.empty(out.shape, "float32")
        sum_into(k, summed, total, dims)
        k.free(total)
    else:
        reduce_into(k, summed, out)
    k.free(cast)


def _sums_in_loops(source: Tensor, dims: Sequence[int] | None) -> bool:
    """True where the two innermost dims left after TensorIterator has joined what lies together are both reduced
    (ReduceOps.cpp, ``should_use_acc_buffer``)."""
    shape = source.shape
    gone = set(dims) if dims else set(range(source.ndim))
    kept = iter(contiguous_strides([n for d, n in enumerate(shape) if d not in gone]))
    out = tuple(0 if d in gone else next(kept) for d in range(source.ndim))
    joined: list[list[int]] = []
    for d in sorted_dims(shape, (out, source.strides), reduction=True):
        if not joined or not _joins(joined[-1], [shape[d], out[d], source.strides[d]]):
            joined.append([shape[d], out[d], source.strides[d]])
            continue
        last = joined[-1]
        if last[0] == 1:
            last[1:] = out[d], source.strides[d]
        last[0] = last[0] * shape[d]
    return len(joined) > 1 and all(step == 0 for _, step, _ in joined[:2])


def _joins(inner: list[int], outer: list[int]) -> bool:
    """``coalesce_dimensions``: the outer dim goes on where the inner one ends, for both operands."""
    if inner[0] == 1 or outer[0] == 1:
        return True
    return all(inner[0] * a == b for a, b in zip(inner[1:], outer[1:], strict=True))


def reduce_into(k: Tape, source: Tensor, out: Tensor) -> None:
    """Any reduction that runs through ``parallel_reduce`` (sum, prod of a dim, amax, amin)."""
    parts = partial_sums(source.shape, out.shape, k.target.cpu.threads)
    if parts:
        k.free(k.empty((parts, *out.shape), out.dtype))


def mean_into(k: Tape, source: Tensor, out: Tensor, dims: Sequence[int] | None = None) -> None:
    """``mean_out`` on CPU: a sum (of half types in float32), then a division by the element count in place."""
    total = k.empty(out.shape, "float32") if out.dtype in HALVES else out
    sum_into(k, source, total, dims)
    with_number_(k, total, 1)
    k.free(None if total is out else total)
