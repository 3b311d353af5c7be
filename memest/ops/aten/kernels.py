"""What ATen's shared machinery allocates: TensorIterator's outputs and casts, reductions, copies, matrix products.

Rows call these the way ATen's operators call each other. Sources: aten/src/ATen/TensorIterator.cpp (stride propagation, casts),
aten/src/ATen/native/ReduceOps.cpp, TensorConversions.cpp, LinearAlgebra.cpp.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import reduce
from math import prod

from memest.errors import ShapeError, UnsupportedError
from memest.network.dtypes import COMPLEX, FLOATING, HALVES, promote
from memest.network.tensor import (
    Shape,
    Spec,
    broadcast,
    channels_last_strides,
    contiguous_strides,
    is_channels_last,
    is_channels_last_strides,
    is_contiguous,
    is_non_overlapping_and_dense,
    same_shape,
)
from memest.ops.aten.products import is_onednn_product, onednn_product
from memest.ops.tape import Tape, Tensor


def refuse_dtypes(op: str, t: Tensor, dtypes: Collection[str]) -> None:
    """UnsupportedError for a dtype that torch's CPU kernel does not take either."""
    if t.dtype in dtypes:
        raise UnsupportedError(f"torch has no {op} in {t.dtype} on CPU")


def broadcast_shape(*tensors: Tensor) -> Shape:
    """The common shape of operands; ShapeError when there is none."""
    try:
        return broadcast(*(t.shape for t in tensors))
    except ValueError as e:
        raise ShapeError(str(e)) from None


def iterator_strides(shape: Shape, operands: Sequence[Tensor]) -> Shape:
    """Strides of the output TensorIterator allocates for ``operands`` broadcast to ``shape``."""
    if all(same_shape(t.shape, shape) for t in operands):
        if all(is_contiguous(t.shape, t.strides) for t in operands):
            return contiguous_strides(shape)
        if all(is_channels_last(t.shape, t.strides) for t in operands):
            return channels_last_strides(shape)
        first = operands[0].strides
        if all(t.strides == first for t in operands) and is_non_overlapping_and_dense(shape, first):
            return first
    return _permuted_strides(shape, [_expanded_strides(t, shape) for t in operands])


def _expanded_strides(t: Tensor, shape: Shape) -> tuple[int, ...]:
    lead = len(shape) - len(t.shape)
    own = (0 if n == 1 and shape[lead + d] != 1 else t.strides[d] * t.itemsize for d, n in enumerate(t.shape))
    return (0,) * lead + tuple(own)


def _permuted_strides(shape: Shape, strides: Sequence[tuple[int, ...]]) -> Shape:
    """TensorIterator::reorder_dimensions: dims sorted by the operands' strides, innermost first; then dense strides in that order."""
    ndim = len(shape)
    perm = _sorted_dims(shape, strides)
    out = [0] * ndim
    step = 1
    for d in perm:
        out[d] = step
        step = step * shape[d]
    return tuple(out) if perm != list(range(ndim - 1, -1, -1)) else contiguous_strides(shape)


def _sorted_dims(shape: Shape, strides: Sequence[tuple[int, ...]], reduction: bool = False) -> list[int]:
    """The dims from the innermost on; the first operand of a ``reduction`` is its output, whose dims without stride come first."""
    perm = list(range(len(shape) - 1, -1, -1))
    for i in range(1, len(shape)):
        moving = i
        for d in range(i - 1, -1, -1):
            order = _compare_dims(perm[d], perm[moving], shape, strides, reduction)
            if order > 0:
                perm[d], perm[moving] = perm[moving], perm[d]
                moving = d
            elif order < 0:
                break
    return perm


def _compare_dims(a: int, b: int, shape: Shape, strides: Sequence[tuple[int, ...]], reduction: bool) -> int:
    if reduction and (strides[0][a] == 0) != (strides[0][b] == 0):
        return 1 if strides[0][b] == 0 else -1
    for s in strides:
        if s[a] == 0 or s[b] == 0:
            continue
        if s[a] != s[b]:
            return -1 if s[a] < s[b] else 1
        if shape[a] > shape[b]:
            return 1
    return 0


class Number(Tensor):
    """A Python number wrapped into a 0-dim tensor: weakest of all in type promotion."""

    __slots__ = ()


def result_dtype(*tensors: Tensor) -> str:
    """The dtype operands combine to (torch.result_type): a 0-dim tensor counts only when its category is higher than that of the
    tensors with dims, a wrapped number only when it is higher than both."""
    out: str | None = None
    for group in (
        [t.dtype for t in tensors if t.ndim > 0],
        [t.dtype for t in tensors if t.ndim == 0 and not isinstance(t, Number)],
        ["float32" if t.dtype == "float64" else t.dtype for t in tensors if isinstance(t, Number)],
    ):
        if group:
            lower = reduce(promote, group)
            if out is None or (out not in FLOATING and (out == "bool" or lower in FLOATING)):
                out = lower if out is None else promote(out, lower)
    assert out is not None
    return out


def integral(dtype: str) -> bool:
    """True for integers and bool (``isIntegralType`` with bool)."""
    return dtype not in FLOATING and dtype not in COMPLEX


def elementwise(k: Tape, *tensors: Tensor, dtype: str | None = None, compute: str | None = None) -> Tensor:
    """One TensorIterator kernel with an allocated output. Operands that are not of the common dtype (``compute``; by default the
    promoted one) are copied first and dropped last. ``dtype`` overrides the output's dtype (comparisons: bool)."""
    common = compute or result_dtype(*tensors)
    casts = [
        k.empty(t.shape, common, t.strides if is_non_overlapping_and_dense(t.shape, t.strides) else None)
        for t in tensors
        if t.dtype != common
    ]
    shape = broadcast_shape(*tensors)
    out = k.empty(shape, dtype or common, iterator_strides(shape, tensors))
    k.free(*reversed(casts))
    return out


def elementwise_(k: Tape, out: Tensor, *others: Tensor) -> Tensor:
    """One TensorIterator kernel that writes into ``out`` (which it also reads). Where ``out`` is not of the common dtype the kernel works
    on copies of it, one to write and one to read."""
    common = result_dtype(out, *others)
    casts = [k.empty(t.shape, common, t.strides) for t in (out, out, *others) if t.dtype != common]
    k.free(*reversed(casts))
    return out


def scalar(k: Tape, value: float | int | bool) -> Tensor:
    """A Python number wrapped into a 0-dim CPU tensor: float64 or int64 (bool stays bool)."""
    dtype = "bool" if isinstance(value, bool) else "int64" if isinstance(value, int) else "float64"
    return Number((), (), dtype, k.empty((), dtype).slot)


def with_number(k: Tape, t: Tensor, value: float | int | bool, dtype: str | None = None) -> Tensor:
    """``t`` combined with a number by one kernel, as ``at::mul(t, Scalar)`` and its kin do: the number is wrapped for the call."""
    number = scalar(k, value)
    out = elementwise(k, t, number, dtype=dtype)
    k.free(number)
    return out


def where(k: Tape, condition: Tensor, input: Tensor, other: Tensor) -> Tensor:
    """``at::where`` of three tensors: operands of a lesser dtype than the result's are copied first."""
    common = result_dtype(input, other)
    sides = [t if t.dtype == common else k.empty(t.shape, common, preserved_strides(t)) for t in (input, other)]
    shape = broadcast_shape(condition, *sides)
    out = k.empty(shape, common, iterator_strides(shape, (condition, *sides)))
    k.free(*(new for new, old in zip(sides, (input, other), strict=True) if new is not old))
    return out


def empty_like(k: Tape, t: Tensor, dtype: str | None = None) -> Tensor:
    """``empty_like`` with preserve_format: dense strides are kept, others are ordered as TensorIterator would."""
    return k.empty(t.shape, dtype or t.dtype, preserved_strides(t))


def preserved_strides(t: Tensor) -> Shape:
    """Strides of ``empty_like(t)``: those of ``t`` when dense, else its dims' order made dense (infer_dense_strides)."""
    if is_non_overlapping_and_dense(t.shape, t.strides):
        return t.strides
    return _permuted_strides(t.shape, [t.strides])


def clone(k: Tape, t: Tensor) -> Tensor:
    """``clone`` with preserve_format."""
    return empty_like(k, t)


def incoming(grads: Sequence[Tensor | None]) -> Tensor:
    """The gradient of the only output."""
    (grad,) = grads
    assert grad is not None
    return grad


def wants(k: Tape, which: int) -> bool:
    """True when the gradient of that input is wanted (an absent one's never is)."""
    return len(k.needs) > which and k.needs[which]


def original(k: Tape, input: Tensor, inplace: bool) -> Tensor:
    """What is kept of an input: itself, or a clone made before the call overwrites it."""
    return clone(k, input) if inplace and k.grad_enabled else input


def contiguous(k: Tape, t: Tensor, channels_last: bool = False) -> Tensor:
    """``t`` itself when it already lies so, else a copy (``t.contiguous(memory_format)``)."""
    if channels_last:
        if is_channels_last(t.shape, t.strides):
            return t
        return k.empty(t.shape, t.dtype, channels_last_strides(t.shape))
    if is_contiguous(t.shape, t.strides):
        return t
    out = k.empty(t.shape, t.dtype)
    copy_into(k, t, out)
    return out


def copy_into(k: Tape, source: Tensor, out: Tensor) -> None:
    """``copy_``: nothing, but for the block that a large matrix is transposed through."""
    if source.dtype == out.dtype and transposes(source.spec, out.spec):
        side = transposed_block(out.dtype)
        k.free(k.empty((side, side), out.dtype))


def transposes(source: Spec, out: Spec) -> bool:
    """True when a copy is a plain transposition of a matrix of 3600 elements or more (Copy.cpp, copy_transpose_valid)."""
    shape = source.shape
    if len(shape) != 2 or source.strides != (1, shape[0]) or out.shape != shape:
        return False
    return shape[0] * shape[1] >= 60 * 60 and is_contiguous(shape, out.strides)


def transposed_block(dtype: str) -> int:
    """The side of the block."""
    return 120 if dtype == "uint8" else 60


def cat(k: Tape, tensors: Sequence[Tensor], dim: int) -> Tensor:
    """``at::cat``: channels_last when every operand suggests it, else contiguous; empty 1-dim operands are skipped (legacy)."""
    counted = [t for t in tensors if t.shape != (0,)] or list(tensors[:1])
    first = counted[0]
    total = 0
    for t in counted:
        if t.ndim != first.ndim or any(a != b for d, (a, b) in enumerate(zip(t.shape, first.shape, strict=True)) if d != dim):
            raise ShapeError(f"tensors of shapes {list(first.shape)} and {list(t.shape)} do not concatenate along dimension {dim}")
        total = total + t.shape[dim]
    shape = (*first.shape[:dim], total, *first.shape[dim + 1 :])
    last = all(suggests_channels_last(t) for t in tensors)
    out = k.empty(shape, reduce(promote, [t.dtype for t in tensors]), channels_last_strides(shape) if last else None)
    for t in counted:
        if t.dtype != out.dtype:  # its part of the output is written in the operand's dtype first, then cast
            k.free(k.empty(t.shape, t.dtype))
    return out


def suggests_channels_last(t: Tensor) -> bool:
    """``t.suggest_memory_format() != contiguous``."""
    return is_channels_last_strides(t.shape, t.strides)


def transpose(k: Tape, t: Tensor, a: int, b: int) -> Tensor:
    """The view with two dims exchanged."""
    shape, strides = list(t.shape), list(t.strides)
    shape[a], shape[b] = shape[b], shape[a]
    strides[a], strides[b] = strides[b], strides[a]
    return k.view(t, shape, strides)


def mm(k: Tape, a: Tensor, b: Tensor) -> Tensor:
    """A matrix product of 2-dim operands."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ShapeError(f"matrices of shapes {list(a.shape)} and {list(b.shape)} cannot be multiplied")
    if is_onednn_product(k.target.cpu, a, b):
        return onednn_product(k, a, b)
    out = k.empty((a.shape[0], b.shape[1]), a.dtype)
    gemm(k, a, b)
    return out


def gemm(k: Tape, a: Tensor, b: Tensor) -> None:
    """``addmm_impl_cpu_`` into a row-major result: BLAS takes transposed operands as they are, others are copied first. BLAS counts
    by columns, so it is asked for the transposed product and sees ``b`` first."""
    order = (a, b) if b.shape[1] == 1 else (b, a)
    copies = [k.empty(t.shape, t.dtype) for t in order if not _blas_ready(t)]
    k.free(*reversed(copies))


def _blas_ready(t: Tensor) -> bool:
    rows, cols = t.shape
    by_rows = t.strides[1] == 1 and t.strides[0] >= max(1, cols)
    by_cols = t.strides[0] == 1 and t.strides[1] >= max(1, rows)
    return by_rows or by_cols or t.numel == 0


SMALL_PRODUCT = 400


def batched_product(k: Tape, a: Tensor, b: Tensor) -> Tensor:
    """``at::bmm``: small products are plain loops, others one call of MKL, which copies nothing; matrices that BLAS cannot read as
    they lie are copied one by one."""
    if a.ndim != 3 or b.ndim != 3 or a.shape[0] != b.shape[0] or a.shape[2] != b.shape[1]:
        raise ShapeError(f"batches of matrices of shapes {list(a.shape)} and {list(b.shape)} cannot be multiplied")
    if is_onednn_product(k.target.cpu, a, b):
        return onednn_product(k, a, b)
    out = k.empty((a.shape[0], a.shape[1], b.shape[2]), a.dtype)
    if a.shape[1] * a.shape[2] * b.shape[2] >= SMALL_PRODUCT and not (_is_readable(a) and _is_readable(b)):
        one, other = (k.view(t, t.shape[1:], t.strides[1:]) for t in (a, b))
        for _ in range(a.shape[0]):
            gemm(k, one, other)
    return out


def _is_readable(t: Tensor) -> bool:
    """``batch_items_contiguous_or_transposed``."""
    _, rows, cols = t.shape
    _, by_row, by_col = t.strides
    return (by_col == 1 and (rows == 1 or by_row >= cols)) or (by_row == 1 and (cols == 1 or by_col >= rows))


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
    for d in _sorted_dims(shape, (out, source.strides), reduction=True):
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


def scatter_into(k: Tape, out: Tensor) -> None:
    """``gather``, ``scatter_`` and ``scatter_add_`` write half types through a float32 copy (ScatterGatherKernel.cpp,
    ``create_acc_buffer``)."""
    if out.dtype in HALVES:
        k.free(k.empty(out.shape, "float32"))


def with_number_(k: Tape, t: Tensor, value: float | int | bool) -> Tensor:
    """``t`` combined with a number in place (``t.mul_(value)``)."""
    number = scalar(k, value)
    elementwise_(k, t, number)
    k.free(number)
    return t
