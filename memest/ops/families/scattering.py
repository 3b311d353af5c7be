"""Writing to places that an index names, along a dim or anywhere: scatter, index_add and their kin. What is kept is the index; the source's
gradient is gathered back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from memest.errors import UnsupportedError
from memest.network.dtypes import HALVES
from memest.network.tensor import Shape
from memest.ops.aten.copies import contiguous
from memest.ops.aten.iterator import elementwise, empty_like, incoming, wants, with_number
from memest.ops.aten.views import wrapped
from memest.ops.facts import ALONG_DIM_FACTS, BY_METHOD, EVERYWHERE_FACTS
from memest.ops.operator import Example, choice, flag, number, optional
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import attribute, row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]
Gradients = list[Tensor | None]


def _checked(op: str, input: Tensor, index: Tensor) -> None:
    if index.dtype != "int64":
        raise UnsupportedError(f"{op} at an index of {index.dtype} has no rule: make it int64")
    if input.dtype in HALVES:
        raise UnsupportedError(f"{op} in {input.dtype} has no rule: convert to float32 before")


def _into(k: Tape, input: Tensor, inplace: bool) -> Tensor:
    """The input itself, or row-major a copy of it."""
    return input if inplace else k.empty(input.shape, input.dtype)


# along a dim, an index of as many dims ------------------------------------------------------------------------------------


def _scatter_reduce(k: Tape, input: Tensor, index: Tensor, src: Tensor, *, dim: int, reduce: str, include_self: bool) -> Tensor:
    """Means are sums divided in place by how many came together."""
    _checked("scatter_reduce", input, index)
    k.save(index=index, input=input, src=src)
    out = k.empty(input.shape, input.dtype)
    if reduce == "mean":
        ones, count = empty_like(k, src), empty_like(k, out)
        k.free(with_number(k, count, 0, "bool"), count, ones)
    k.save(result=out)
    return out


def _scatter_reduce_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int, reduce: str, include_self: bool) -> Gradients:
    """scatter_reduce_backward: sums as scatter_add's; means shared by the count; extrema among those that equal them."""
    grad = incoming(grads)
    first, second = _shares(k, saved, grad, reduce)
    if not include_self:  # scattered over by zeros
        plain, first = first, k.empty(grad.shape, grad.dtype)
        k.free(plain)
    return [first if k.needs[0] else None, None, second if k.needs[2] else None]


def _shares(k: Tape, saved: Saved, grad: Tensor, reduce: str) -> tuple[Tensor, Tensor]:
    index = saved["index"]
    if reduce == "sum":
        return grad, k.empty(index.shape, grad.dtype)
    if reduce == "mean":
        start, ones = empty_like(k, grad), k.empty(saved["src"].shape, grad.dtype)
        count = k.empty(grad.shape, grad.dtype)
        k.free(start, ones)
        k.free(with_number(k, count, 0, "bool"))
        first = elementwise(k, grad, count)
        shares, gathered = k.empty(index.shape, grad.dtype), k.empty(index.shape, grad.dtype)
        second = elementwise(k, gathered, shares)
        k.free(gathered, shares, count)
        return first, second
    input, src, result = saved["input"], saved["src"], saved["result"]
    value = k.empty(index.shape, grad.dtype)
    own = _is_equal(k, input, result)
    theirs = _is_equal(k, src, value)
    count = k.empty(grad.shape, grad.dtype)
    shared = elementwise(k, grad, count)
    first = _masked(k, input, result, shared)
    gathered = k.empty(index.shape, grad.dtype)
    second = _masked(k, src, value, gathered)
    k.free(gathered, shared, count, theirs, own, value)
    return first, second


def _is_equal(k: Tape, one: Tensor, other: Tensor) -> Tensor:
    mask = elementwise(k, one, other, dtype="bool")
    out = empty_like(k, mask, one.dtype)
    k.free(mask)
    return out


def _masked(k: Tape, one: Tensor, other: Tensor, grad: Tensor) -> Tensor:
    mask = elementwise(k, one, other, dtype="bool")
    out = elementwise(k, mask, grad)
    k.free(mask)
    return out


def _selected(k: Tape, grad: Tensor, shape: Shape, dim: int) -> Tensor:
    """``grad.index_select(dim, index)``."""
    out = k.empty(shape, grad.dtype)
    if not k.target.on_cuda and wrapped(dim, grad.ndim) == 1 and grad.ndim > 1:
        dense = contiguous(k, grad)
        k.free(None if dense is grad else dense)
    return out


# anywhere -----------------------------------------------------------------------------------------------------------------


def _masked_scatter(k: Tape, input: Tensor, mask: Tensor, source: Tensor, *, inplace: bool) -> Tensor:
    if wants(k, 2):
        raise UnsupportedError("the gradient of masked_scatter's source has a size that depends on values: torch.where is modelled")
    k.save(mask=mask)
    return _into(k, input, inplace)


def _masked_scatter_backward(k: Tape, saved: Saved, grads: Grads, *, inplace: bool) -> Gradients:
    grad = incoming(grads)
    return [k.empty(grad.shape, grad.dtype), None, None]


def _take(k: Tape, input: Tensor, index: Tensor) -> Tensor:
    _checked("take", input, index)
    k.save(index=index, input=input)
    return k.empty(index.shape, input.dtype)


def _take_backward(k: Tape, saved: Saved, grads: Grads) -> Gradients:
    return [empty_like(k, saved["input"]), None]


INPLACE = attribute("inplace", False, flag)
DIM, VALUE = attribute("dim"), attribute("value", None, optional(number))
SOURCE = "derivatives.yaml: {}; aten/src/ATen/native/TensorAdvancedIndexing.cpp"
TABLE, PART = (4, 6, 5), (4, 3, 5)
LONG = ("float32", "int64")
PUT = ("float32", "float32", *["int64"] * 4)


def _at(*given: dict[str, Any], index: tuple[int, ...] = PART, frozen: tuple[int, ...] = ()) -> tuple[Example, ...]:
    return tuple(Example(shapes=(TABLE, index, PART), attributes=a, dtypes=(*LONG, "float32"), frozen=frozen) for a in given)


_along = partial(row, source=SOURCE, facts=ALONG_DIM_FACTS.but(overwrites=BY_METHOD), saves=("index",), torch="torch.Tensor.{}")
ROWS = (
    _along(
        "scatter_reduce",
        _scatter_reduce,
        _scatter_reduce_backward,
        (DIM, attribute("reduce", check=choice("sum", "mean", "amax", "amin")), attribute("include_self", True, flag)),
        _at(*({"dim": 1, "reduce": r, "include_self": own} for r in ("sum", "mean", "amax") for own in (True, False))),
        roles=("input", "index", "src"),
        saves=("index", "input", "src", "result"),
        facts=ALONG_DIM_FACTS,
        oracle="scatter_reduce",
    ),
    row(
        "masked_scatter",
        _masked_scatter,
        _masked_scatter_backward,
        (INPLACE,),
        (Example(shapes=(TABLE, TABLE, (120,)), attributes={}, dtypes=("float32", "bool", "float32"), frozen=(2,)),),
        SOURCE,
        roles=("input", "mask", "source"),
        saves=("mask",),
        facts=EVERYWHERE_FACTS.but(overwrites=BY_METHOD),
        torch="torch.Tensor.{}",
        oracle="masked_scatter",
    ),
    row(
        "take",
        _take,
        _take_backward,
        (),
        (Example(shapes=(TABLE, (3, 2)), attributes={}, dtypes=LONG),),
        SOURCE,
        roles=("input", "index"),
        saves=("index", "input"),
        facts=EVERYWHERE_FACTS,
    ),
)
COMPOSITE_ROWS = ()
