"""TensorIterator: shapes, strides, dtypes and casts of elementwise kernels, numbers among their operands.

Rows call these the way ATen's operators call each other. Sources: aten/src/ATen/TensorIterator.cpp (stride propagation, casts),
aten/src/ATen/native/TensorConversions.cpp.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import reduce

from memest.errors import ShapeError, UnsupportedError
from memest.network.dtypes import COMPLEX, FLOATING, promote
from memest.network.tensor import (
    Shape,
    broadcast,
    channels_last_strides,
    contiguous_strides,
    is_channels_last,
    is_contiguous,
    is_non_overlapping_and_dense,
    same_shape,
)
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
    perm = sorted_dims(shape, strides)
    out = [0] * ndim
    step = 1
    for d in perm:
        out[d] = step
        step = step * shape[d]
    return tuple(out) if perm != list(range(ndim - 1, -1, -1)) else contiguous_strides(shape)


def sorted_dims(shape: Shape, strides: Sequence[tuple[int, ...]], reduction: bool = False) -> list[int]:
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
    promoted one) are copied first and dropped last, but on CUDA, whose kernels cast as they load (CUDALoops.cuh). ``dtype`` overrides
    the output's dtype (comparisons: bool)."""
    common = compute or result_dtype(*tensors)
    casts = [
        k.empty(t.shape, common, t.strides if is_non_overlapping_and_dense(t.shape, t.strides) else None)
        for t in tensors
        if t.dtype != common and not k.target.on_cuda
    ]
    shape = broadcast_shape(*tensors)
    out = k.empty(shape, dtype or common, iterator_strides(shape, tensors))
    k.free(*reversed(casts))
    return out


def elementwise_(k: Tape, out: Tensor, *others: Tensor) -> Tensor:
    """One TensorIterator kernel that writes into ``out`` (which it also reads). Where ``out`` is not of the common dtype the kernel works
    on copies of it, one to write and one to read."""
    if k.target.on_cuda:
        return out
    common = result_dtype(out, *others)
    casts = [k.empty(t.shape, common, t.strides) for t in (out, out, *others) if t.dtype != common]
    k.free(*reversed(casts))
    return out


def on_host(k: Tape, shape: Shape, dtype: str) -> Tensor:
    """A tensor of the host's, whatever the runtime: on CUDA it is not the accelerator's memory."""
    return Tensor(shape, contiguous_strides(shape), dtype, (k.empty((0,)) if k.target.on_cuda else k.empty(shape, dtype)).slot)


def wrapped_dtype(value: float | int | bool) -> str:
    """The dtype of a Python number made a tensor: float64 or int64 (bool stays bool)."""
    return "bool" if isinstance(value, bool) else "int64" if isinstance(value, int) else "float64"


def scalar(k: Tape, value: float | int | bool) -> Tensor:
    """A Python number wrapped into a 0-dim tensor of the host's."""
    dtype = wrapped_dtype(value)
    return Number((), (), dtype, on_host(k, (), dtype).slot)


def passed(k: Tape, value: float | int | bool) -> Tensor:
    """A number that Python gives to a call. Where a mode of Python's sees the call, the operator that it calls wraps it once more
    (torch/csrc/PyInterpreter.cpp); that one dies last."""
    number = scalar(k, value)
    if k.target.dispatched:
        scalar(k, value)
    return number


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


def incoming(grads: Sequence[Tensor | None]) -> Tensor:
    """The gradient of the only output."""
    (grad,) = grads
    assert grad is not None
    return grad


def wants(k: Tape, which: int) -> bool:
    """True when the gradient of that input is wanted (an absent one's never is)."""
    return len(k.needs) > which and k.needs[which]


def with_number_(k: Tape, t: Tensor, value: float | int | bool) -> Tensor:
    """``t`` combined with a number in place (``t.mul_(value)``)."""
    number = scalar(k, value)
    elementwise_(k, t, number)
    k.free(number)
    return t
