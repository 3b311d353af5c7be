"""Elements in order: the k-th, medians, the commonest, running extrema and products, places in a sorted sequence.

What is kept is where each value came from (8 bytes an element).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.network.tensor import is_contiguous
from memest.ops.aten.copies import clone, contiguous
from memest.ops.aten.iterator import elementwise, empty_like, incoming, result_dtype, scalar, with_number
from memest.ops.aten.places import refuse_on_cuda
from memest.ops.aten.selecting import scattered_back, shared_out
from memest.ops.aten.views import reduction_shape, wrapped
from memest.ops.composite import Caller
from memest.ops.facts import ALONG_DIM_CALLS, ALONG_DIM_FACTS, EVERYWHERE_FACTS, POINTWISE_FACTS
from memest.ops.operator import Example, flag, number, optional
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, NATIVE, attribute, calls, composite, row
from memest.sizes.dims import plain

MOST_COMPARED = 1_000  # no memory holds as many elements as would be compared with more
Saved = dict[str, Any]
Grads = list[Tensor | None]


def _length(input: Tensor, dim: int) -> int:
    return input.shape[wrapped(dim, input.ndim)] if input.ndim else 1


def _msort(c: Caller, input: Any) -> Any:
    values, indices = c.call("sort", input, dim=0)
    c.drop(indices)
    return values


def _pick(k: Tape, input: Tensor, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    k.note(sizes=input.shape)
    shape = reduction_shape(input, dim, keepdim)
    return k.empty(shape, input.dtype), k.empty(shape, "int64")


def _kthvalue(tape: Tape, input: Tensor, *, k: int, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    """Partitioned in a copy, and the places with it."""
    length = _length(input, dim)
    if not 0 < k <= length:
        raise ShapeError(f"kthvalue of element {k} along a dim of {length}")
    values, indices = _pick(tape, input, dim, keepdim)
    if input.ndim:
        tape.free(tape.empty(input.shape, input.dtype), tape.empty(input.shape, "int64"))
    tape.save(indices=indices)
    return values, indices


def _median_dim(k: Tape, input: Tensor, *, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    """With the dim as the last one; what does not lie side by side is copied."""
    values, indices = _pick(k, input, dim, keepdim)
    if input.ndim and input.strides[wrapped(dim, input.ndim)] > 1:
        order = [*(d for d in range(input.ndim) if d != wrapped(dim, input.ndim)), wrapped(dim, input.ndim)]
        if not is_contiguous([input.shape[d] for d in order], [input.strides[d] for d in order]):
            k.free(k.empty(input.shape, input.dtype))
    k.save(indices=indices)
    return values, indices


def _median(k: Tape, input: Tensor) -> Tensor:
    """Partitioned in a copy."""
    k.save(input=input)
    copy = clone(k, input)
    out = k.empty((), input.dtype)
    k.free(copy)
    k.save(result=out)
    return out


def _mode(k: Tape, input: Tensor, *, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    values, indices = _pick(k, input, dim, keepdim)
    k.save(indices=indices)
    return values, indices


def _running(k: Tape, input: Tensor, *, dim: int) -> tuple[Tensor, Tensor]:
    k.note(sizes=input.shape)
    k.save(input=input)
    values, indices = k.empty(input.shape, input.dtype), k.empty(input.shape, "int64")
    k.save(indices=indices)
    return values, indices


def _running_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int) -> Grads:
    """cummaxmin_backward: zeros, added to at the places."""
    return scattered_back(k, saved, grads)


def _searchsorted(k: Tape, sorted_sequence: Tensor, input: Tensor, *, out_int32: bool, right: bool) -> Tensor:
    return _places(k, input, sorted_sequence, out_int32)


def _bucketize(k: Tape, input: Tensor, boundaries: Tensor, *, out_int32: bool, right: bool) -> Tensor:
    return _places(k, input, boundaries, out_int32)


def _places(k: Tape, input: Tensor, sequence: Tensor, out_int32: bool) -> Tensor:
    """What does not lie row by row is copied first."""
    if input.dtype != sequence.dtype:
        raise UnsupportedError(f"places of {input.dtype} in a sequence of {sequence.dtype} are not modelled; give both one dtype")
    if sequence.ndim != 1 and sequence.shape[:-1] != input.shape[:-1]:
        raise ShapeError(f"sequences of shape {list(sequence.shape)} are not searched for values of shape {list(input.shape)}")
    out = k.empty(input.shape, "int32" if out_int32 else "int64")
    k.free(*[t for t in (contiguous(k, input), contiguous(k, sequence)) if t not in (input, sequence)])
    return out


def _isin(k: Tape, input: Tensor, test_elements: Tensor | None, *, value: float | None, assume_unique: bool, invert: bool) -> Tensor:
    """A few are compared with every element, one dtype read and the answer as it is; many are sorted with the elements, which takes room by
    how many different ones there are."""
    refuse_on_cuda(k)
    if test_elements is None:
        assert value is not None
        out = k.empty(input.shape, "bool")
        number = scalar(k, value)
        if result_dtype(input, number) != number.dtype:
            k.free(k.empty((), result_dtype(input, number)))
        k.free(number)
        return out
    few = test_elements.numel
    if input.dtype == "bool" or test_elements.dtype != input.dtype:
        raise UnsupportedError(f"isin of {input.dtype} among {test_elements.dtype} has no rule; give both one dtype, such as int64")
    if few > plain(few) or few > MOST_COMPARED or input.numel < _fewest(plain(few)):
        raise UnsupportedError("isin sorts where there are many to look for, which takes room that depends on values: no rule for that")
    return k.empty(input.shape, "bool")


def _fewest(tested: int) -> int:
    """How many elements there are at least where so many are compared one by one: ``tested < 10 * elements ** 0.145`` in whole numbers."""
    number = math.ceil(((tested + 1) / 10) ** (1 / 0.145))
    return next(n for n in range(max(number - 1, 0), number + 2) if int(10 * n**0.145) > tested)


def _cumprod(k: Tape, input: Tensor, *, dim: int) -> Tensor:
    k.save(input=input)
    out = k.empty(input.shape, input.dtype)
    k.save(result=out)
    return out


def _cumprod_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int) -> Grads:
    """cumprod_backward where no element is zero: what follows is summed from the end, and divided by the element."""
    input: Tensor = saved["input"]
    if input.numel <= 1 or _length(input, dim) == 1:
        return [incoming(grads)]
    weighted = elementwise(k, saved["result"], incoming(grads))
    mask = with_number(k, input, 0, dtype="bool")
    k.free(k.empty((), "bool"))
    turned = empty_like(k, weighted)
    summed = empty_like(k, turned)
    back = empty_like(k, summed)
    k.free(summed, turned)
    out = elementwise(k, back, input)
    k.free(back, mask, weighted)
    return [out]


BCHW = (2, 3, 4, 5)
DIM, KEEP = attribute("dim", -1), attribute("keepdim", False, flag)
BY_DIM: tuple[Any, ...] = (
    *calls((BCHW, {"dim": 1}), (BCHW, {"keepdim": True}), (BCHW, {"dim": 2})),
    *calls((BCHW, {"dim": 1}), layout="channels_last"),
    *calls(((2, 3, 4, 1), {"dim": 2})),
)
_along = partial(row, facts=ALONG_DIM_FACTS, saves=("indices",))
SORTING = f"{DERIVED}/Sorting.cpp"
ROWS = (
    _along(
        "kthvalue",
        _kthvalue,
        scattered_back,
        (attribute("k"), DIM, KEEP),
        calls((BCHW, {"k": 1, "dim": 1}), (BCHW, {"k": 2, "keepdim": True})),
        SORTING,
    ),
    *(
        _along(f"{name}_dim", _median_dim, scattered_back, (DIM, KEEP), BY_DIM, SORTING, torch=f"torch.{name}", oracle=f"{name}_dim")
        for name in ("median", "nanmedian")
    ),
    *(
        row(name, _median, shared_out, (), calls((BCHW, {}), ((7,), {})), SORTING, facts=EVERYWHERE_FACTS, saves=("input", "result"))
        for name in ("median", "nanmedian")
    ),
    _along("mode", _mode, scattered_back, (DIM, KEEP), BY_DIM, f"{DERIVED}/TensorCompare.cpp"),
    *(
        row(
            name,
            _running,
            _running_backward,
            (attribute("dim"),),
            calls((BCHW, {"dim": 1}), (BCHW, {"dim": -1})),
            f"{DERIVED}/ReduceOps.cpp",
            facts=ALONG_DIM_FACTS,
            saves=("input", "indices"),
        )
        for name in ("cummax", "cummin")
    ),
    row(
        "cumprod",
        _cumprod,
        _cumprod_backward,
        (attribute("dim"),),
        calls((BCHW, {"dim": 1}), (BCHW, {"dim": -1}), ((2, 1, 3), {"dim": 1})),
        f"{DERIVED}/ReduceOps.cpp",
        facts=ALONG_DIM_FACTS.but(assumes="no element is zero"),
        saves=("input", "result"),
    ),
    row(
        "searchsorted",
        _searchsorted,
        None,
        (attribute("out_int32", False, flag), attribute("right", False, flag)),
        (
            *calls((((9,), (3, 4)), {}), (((3, 9), (3, 4)), {"out_int32": True}), (((5, 9), (5, 4)), {"right": True}), layout="transposed"),
            *calls((((9,), (3, 4)), {})),
        ),
        f"{NATIVE}/Bucketization.cpp",
        facts=EVERYWHERE_FACTS,
        roles=("sorted_sequence", "input"),
    ),
    row(
        "isin",
        _isin,
        None,
        (attribute("value", None, optional(number)), attribute("assume_unique", False, flag), attribute("invert", False, flag)),
        (
            Example(shapes=(BCHW, (4,)), attributes={}, dtypes=("int64", "int64")),
            Example(shapes=(BCHW, (3,)), attributes={"invert": True}, dtypes=("int32", "int32")),
            Example(shapes=(BCHW, (4,)), attributes={}, layout="channels_last"),
            Example(shapes=(BCHW, None), attributes={"value": 2}, dtypes=("int64",)),
            Example(shapes=(BCHW, None), attributes={"value": 2}),
        ),
        f"{NATIVE}/TensorCompare.cpp (isin_Tensor_Tensor_out)",
        facts=POINTWISE_FACTS,
        roles=("input", "test_elements?"),
        oracle="isin",
    ),
    row(
        "bucketize",
        _bucketize,
        None,
        (attribute("out_int32", False, flag), attribute("right", False, flag)),
        (*calls((((3, 4), (9,)), {"out_int32": True})), *calls((((3, 4), (9,)), {}), layout="transposed")),
        f"{NATIVE}/Bucketization.cpp",
        facts=POINTWISE_FACTS,
        roles=("input", "boundaries"),
    ),
)
COMPOSITE_ROWS = (
    composite("msort", _msort, (), calls((BCHW, {})), f"{NATIVE}/Sorting.cpp", facts=ALONG_DIM_CALLS.but(reach=EVERYWHERE_FACTS.reach)),
)
