"""Reductions: sums, means and what they hold while they run.

Source: aten/src/ATen/native/ReduceOps.cpp, ReduceOpsUtils.h, cpu/Reduce.h, TensorIteratorReduce.cpp; on CUDA
:mod:`memest.ops.aten.cuda_reduce`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from memest.network.dtypes import HALVES
from memest.network.tensor import Shape, contiguous_strides, same_shape
from memest.ops.aten import cuda_reduce
from memest.ops.aten.cuda_reduce import Kernel, averaging, joined_dims, judging, located, multiplying, summing, welford
from memest.ops.aten.iterator import preserved_strides, with_number_
from memest.ops.tape import Tape, Tensor

Compiled = Callable[[str, str], Kernel]


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
    """``at::sum_to``: ``t`` reduced over the dims that were broadcast from ``shape``, which are kept until the last."""
    if shape and same_shape(t.shape, shape):
        return t
    out = k.empty(shape, t.dtype)
    lead = t.ndim - len(shape)
    dims = [d for d, n in enumerate(t.shape) if d < lead or (shape[d - lead] == 1 and n != 1)]
    if k.target.on_cuda:
        cuda_reduce.reduce(k, t, dims, summing(t.dtype, t.dtype), bool(shape), t.itemsize)
    else:
        sum_into(k, t, out, dims)
    return out


def sum_into(k: Tape, source: Tensor, out: Tensor, dims: Sequence[int] | None = None) -> None:
    """``sum_out`` over ``dims`` (None or empty: all): nothing, but for a cast of another dtype, the partial sums, and the float32 copies
    of half types that are summed in more than one loop on CPU."""
    if k.target.on_cuda:
        _cast_on_cuda(k, source, out, dims, summing)
        return
    cast = _cast(k, source, out)
    summed = source if cast is None else cast
    if out.dtype in HALVES and _sums_in_loops(summed, dims):
        total = k.empty(out.shape, "float32")
        sum_into(k, summed, total, dims)
        k.free(total)
    else:
        reduce_into(k, summed, out, dims, summing)
    k.free(cast)


def _cast(k: Tape, source: Tensor, out: Tensor) -> Tensor | None:
    """The copy of ``source`` in the dtype of ``out``; CUDA's kernels read half types into float32 as they are (``make_reduction``)."""
    if source.dtype == out.dtype or (k.target.on_cuda and source.dtype in HALVES and out.dtype == "float32"):
        return None
    return k.empty(source.shape, out.dtype, preserved_strides(source))


def _sums_in_loops(source: Tensor, dims: Sequence[int] | None) -> bool:
    """True where the two innermost dims left after TensorIterator has joined what lies together are both reduced
    (ReduceOps.cpp, ``should_use_acc_buffer``)."""
    shape = source.shape
    gone = set(dims) if dims else set(range(source.ndim))
    kept = iter(contiguous_strides([n for d, n in enumerate(shape) if d not in gone]))
    out = tuple(0 if d in gone else next(kept) for d in range(source.ndim))
    joined = joined_dims(shape, out, source.strides)
    return len(joined) > 1 and all(loop.out == 0 for loop in joined[:2])


def reduce_into(k: Tape, source: Tensor, out: Tensor, dims: Sequence[int] | None, compiled: Compiled) -> None:
    """Any reduction over ``dims`` (None or empty: all): on CPU one that runs through ``parallel_reduce`` (sums, amax, amin); on CUDA what
    ``compiled`` is."""
    if k.target.on_cuda:
        _on_cuda(k, source, out, dims, compiled)
        return
    parts = partial_sums(source.shape, out.shape, k.target.cpu.threads)
    if parts:
        k.free(k.empty((parts, *out.shape), out.dtype))


def _on_cuda(k: Tape, source: Tensor, out: Tensor, dims: Sequence[int] | None, compiled: Compiled) -> None:
    """``out`` is the widest of the outputs."""
    keepdim = 0 < out.ndim == source.ndim
    cuda_reduce.reduce(k, source, dims, compiled(source.dtype, out.dtype), keepdim, out.itemsize)


def _cast_on_cuda(k: Tape, source: Tensor, out: Tensor, dims: Sequence[int] | None, compiled: Compiled) -> None:
    cast = _cast(k, source, out)
    _on_cuda(k, source if cast is None else cast, out, dims, compiled)
    k.free(cast)


def mean_into(k: Tape, source: Tensor, out: Tensor, dims: Sequence[int] | None = None) -> None:
    """``mean_out``: on CUDA a reduction of its own; on CPU a sum (of half types in float32), then a division by the element count in
    place."""
    if k.target.on_cuda:
        _cast_on_cuda(k, source, out, dims, averaging)
        return
    total = k.empty(out.shape, "float32") if out.dtype in HALVES else out
    sum_into(k, source, total, dims)
    with_number_(k, total, 1)
    k.free(None if total is out else total)


def product_into(k: Tape, source: Tensor, out: Tensor, dims: Sequence[int] | None = None) -> None:
    """``prod_out`` over one of ``dims`` or all, of a cast where dtypes differ."""
    cast = _cast(k, source, out)
    reduce_into(k, source if cast is None else cast, out, dims, multiplying)
    k.free(cast)


def deviation_into(k: Tape, source: Tensor, out: Tensor, dims: Sequence[int] | None, beside: Tensor | None = None) -> None:
    """Variance or standard deviation, ``beside`` it the mean: Welford's method in registers; on CPU a variance of all first takes the mean
    (``std_var_all_cpu``)."""
    if k.target.on_cuda:
        _on_cuda(k, source, out, dims, welford)
    elif beside is None and out.numel == 1 and source.dtype not in HALVES:
        middle = k.empty((), source.dtype)
        mean_into(k, source, middle, None)
        k.free(middle)


def norm_into(k: Tape, source: Tensor, out: Tensor, dims: Sequence[int] | None = None) -> None:
    """``linalg_vector_norm``: in registers; what only loses dims of one is no reduction."""
    if k.target.on_cuda and source.numel != out.numel:
        _on_cuda(k, source, out, dims, summing)


def judge_into(k: Tape, source: Tensor, out: Tensor, dims: Sequence[int] | None) -> None:
    """``any`` and ``all``: of a copy as truths; CUDA's kernels read any dtype, and copy one element only."""
    truths = source.dtype in ("bool", "uint8") or (k.target.on_cuda and source.numel != 1)
    cast = source if truths else k.empty(source.shape, "bool", preserved_strides(source))
    if not k.target.on_cuda or source.numel != 1:
        reduce_into(k, cast, out, dims, judging)
    k.free(None if truths else cast)


def locate_into(k: Tape, source: Tensor, out: Tensor, dims: Sequence[int] | None, compiled: Compiled = located) -> None:
    """Extrema with their places, or of all values: in registers."""
    if k.target.on_cuda:
        _on_cuda(k, source, out, dims, compiled)
