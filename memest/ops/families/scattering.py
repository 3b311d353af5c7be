"""Writing to places that an index names, along a dim or anywhere: scatter, index_add and their kin. What is kept is the index; the source's
gradient is gathered back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.network.dtypes import HALVES
from memest.network.tensor import Shape
from memest.ops.aten.copies import clone, contiguous
from memest.ops.aten.iterator import broadcast_shape, elementwise, empty_like, incoming, wants, with_number
from memest.ops.aten.views import wrapped
from memest.ops.facts import ALONG_DIM_FACTS, BY_METHOD, EVERYWHERE_FACTS, FALLS_THROUGH, PROMOTE, Dispatched
from memest.ops.operator import Example, choice, flag, integers, number, optional
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


def _scatter(k: Tape, input: Tensor, index: Tensor, src: Tensor | None, *, dim: int, value: float | None, inplace: bool) -> Tensor:
    _checked("scatter", input, index)
    if src is None and value is None:
        raise ShapeError("scatter needs a source or a value")
    k.save(index=index)
    return _into(k, input, inplace)


def _scatter_backward(k: Tape, saved: Saved, grads: Grads, **attributes: Any) -> Gradients:
    """grad.scatter(dim, index, 0), and grad.gather(dim, index)."""
    grad, index = incoming(grads), saved["index"]
    first = k.empty(grad.shape, grad.dtype) if k.needs[0] else None
    return [first, None, k.empty(index.shape, grad.dtype) if wants(k, 2) else None][: len(k.needs)]


def _scatter_add(k: Tape, input: Tensor, index: Tensor, src: Tensor, *, dim: int, inplace: bool) -> Tensor:
    _checked("scatter_add", input, index)
    k.save(index=index)
    return _into(k, input, inplace)


def _scatter_add_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int, inplace: bool) -> Gradients:
    grad = incoming(grads)
    return [grad if k.needs[0] else None, None, k.empty(saved["index"].shape, grad.dtype) if k.needs[2] else None]


def _scatter_reduce(k: Tape, input: Tensor, index: Tensor, src: Tensor, *, dim: int, reduce: str, include_self: bool) -> Tensor:
    """Means are sums divided in place by how many came together."""
    _checked("scatter_reduce", input, index)
    k.save(input=input, index=index, src=src)
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


# along a dim, an index of one dim -----------------------------------------------------------------------------------------


def _selected(k: Tape, grad: Tensor, shape: Shape, dim: int) -> Tensor:
    """``grad.index_select(dim, index)``."""
    out = k.empty(shape, grad.dtype)
    if not k.target.on_cuda and wrapped(dim, grad.ndim) == 1 and grad.ndim > 1:
        dense = contiguous(k, grad)
        k.free(None if dense is grad else dense)
    return out


def _index_add(k: Tape, input: Tensor, index: Tensor, source: Tensor, *, dim: int, alpha: float, inplace: bool) -> Tensor:
    _checked("index_add", input, index)
    if wants(k, 2):
        k.save(source=source)
    k.save(index=index)
    return _into(k, input, inplace)


def _index_add_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int, alpha: float, inplace: bool) -> Gradients:
    grad = incoming(grads)
    second = None
    if k.needs[2]:
        second = _selected(k, grad, saved["source"].shape, dim)
        if alpha != 1:
            plain, second = second, with_number(k, second, alpha)
            k.free(plain)
    return [grad if k.needs[0] else None, None, second]


def _index_copy(k: Tape, input: Tensor, index: Tensor, source: Tensor, *, dim: int, inplace: bool) -> Tensor:
    _checked("index_copy", input, index)
    if wants(k, 2):
        k.save(source=source)
    k.save(index=index)
    return _into(k, input, inplace)


def _index_copy_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int, inplace: bool) -> Gradients:
    grad = incoming(grads)
    first = clone(k, grad) if k.needs[0] else None
    return [first, None, _selected(k, grad, saved["source"].shape, dim) if k.needs[2] else None]


def _index_fill(k: Tape, input: Tensor, index: Tensor, *, dim: int, value: float, inplace: bool) -> Tensor:
    _checked("index_fill", input, index)
    k.save(index=index)
    return input if inplace else clone(k, input)


def _index_fill_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int, value: float, inplace: bool) -> Gradients:
    return [clone(k, incoming(grads)), None]


# anywhere -----------------------------------------------------------------------------------------------------------------


def _index_put_(
    k: Tape, input: Tensor, values: Tensor | None, indices: list[Tensor], *, dims: Shape, value: float | None, accumulate: bool
) -> Tensor:
    """``input[indices] = values`` or a number, ``indices`` at ``dims``. A mask says where one number goes, so it becomes a fill."""
    if values is None and value is None:
        raise ShapeError("needs a second tensor or a value")
    masks = [t for t in indices if t.dtype == "bool"]
    if masks and (len(indices) > 1 or (values is not None and (values.numel != 1 or wants(k, 1)))):
        raise UnsupportedError("x[mask] = tensor writes as many values as the mask has: torch.where(mask, value, x) is modelled")
    for t in indices:
        if t.dtype not in ("int64", "bool"):
            raise UnsupportedError(f"x[index] = value at an index of {t.dtype} has no rule: make it int64")
    if not masks:
        at = [wrapped(d, input.ndim) for d in dims]
        common = broadcast_shape(*indices)
        together = at == list(range(at[0], at[0] + len(at)))
        rest = [n for d, n in enumerate(input.shape) if d not in at]
        place = at[0] if together else 0
        k.note(shape=(*rest[:place], *common, *rest[place:]))
    if values is None and not k.target.on_cuda:
        k.free(k.empty((), input.dtype))
    k.note(values=() if values is None else values.shape)
    k.save(**{f"index{i}": t for i, t in enumerate(indices)})
    return input


def _index_put_backward(k: Tape, saved: Saved, grads: Grads, *, dims: Shape, value: float | None, accumulate: bool) -> Gradients:
    """grad.index_put(indices, zeros), or the gradient itself where values were added; grad.index(indices)."""
    grad = incoming(grads)
    first: Tensor | None = grad
    if not k.needs[0]:
        first = None
    elif not accumulate:
        zeros = k.empty(saved["values"], grad.dtype)
        first = clone(k, grad)
        k.free(zeros)
    given = len(k.needs) - sum(1 for role in saved if role.startswith("index")) > 1
    second = [k.empty(saved["shape"], grad.dtype) if k.needs[1] else None] if given else []
    return [first, *second, *[None] * (len(k.needs) - 1 - len(second))]


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
    k.save(input=input, index=index)
    return k.empty(index.shape, input.dtype)


def _take_backward(k: Tape, saved: Saved, grads: Grads) -> Gradients:
    return [empty_like(k, saved["input"]), None]


INPLACE = attribute("inplace", False, flag)
DIM, VALUE = attribute("dim"), attribute("value", None, optional(number))
COPIED = Dispatched(
    {"index_copy": PROMOTE, "index_copy_": FALLS_THROUGH}, lambda given: "index_copy_" if given["inplace"] else "index_copy"
)
SOURCE = "derivatives.yaml: {}; aten/src/ATen/native/TensorAdvancedIndexing.cpp"
TABLE, PART = (4, 6, 5), (4, 3, 5)
LONG = ("float32", "int64")
PUT = ("float32", "float32", *["int64"] * 4)


def _at(*given: dict[str, Any], index: tuple[int, ...] = PART, frozen: tuple[int, ...] = ()) -> tuple[Example, ...]:
    return tuple(Example(shapes=(TABLE, index, PART), attributes=a, dtypes=(*LONG, "float32"), frozen=frozen) for a in given)


_along = partial(row, source=SOURCE, facts=ALONG_DIM_FACTS.but(overwrites=BY_METHOD), saves=("index",), torch="torch.Tensor.{}")
ROWS = (
    _along(
        "scatter",
        _scatter,
        _scatter_backward,
        (DIM, VALUE, INPLACE),
        (
            *_at({"dim": 1}),
            *_at({"dim": 1, "inplace": True}, frozen=(0,)),
            Example(shapes=(TABLE, PART, None), attributes={"dim": 1, "value": 0.5}, dtypes=LONG),
        ),
        roles=("input", "index", "src?"),
        oracle="scatter",
    ),
    _along(
        "scatter_add",
        _scatter_add,
        _scatter_add_backward,
        (DIM, INPLACE),
        (*_at({"dim": 1}), *_at({"dim": 1}, frozen=(0,))),
        roles=("input", "index", "src"),
        oracle="scatter_add",
    ),
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
    _along(
        "index_add",
        _index_add,
        _index_add_backward,
        (DIM, attribute("alpha", 1, number), INPLACE),
        _at({"dim": 1}, {"dim": 1, "alpha": 2}, index=(3,)),
        roles=("input", "index", "source"),
        saves=("index", "source"),
        oracle="index_add",
    ),
    _along(
        "index_copy",
        _index_copy,
        _index_copy_backward,
        (DIM, INPLACE),
        (*_at({"dim": 1}, index=(3,)), *_at({"dim": 1}, index=(3,), frozen=(0,))),
        roles=("input", "index", "source"),
        saves=("index", "source"),
        oracle="index_copy",
        facts=ALONG_DIM_FACTS.but(overwrites=BY_METHOD, autocast=COPIED),
    ),
    _along(
        "index_fill",
        _index_fill,
        _index_fill_backward,
        (DIM, attribute("value", check=number), INPLACE),
        (Example(shapes=(TABLE, (3,)), attributes={"dim": 1, "value": 0.5}, dtypes=LONG),),
        roles=("input", "index"),
        oracle="index_fill",
    ),
    row(
        "index_put_",
        _index_put_,
        _index_put_backward,
        (attribute("dims", check=integers), VALUE, attribute("accumulate", False, flag)),
        (
            Example(shapes=(TABLE, PART, [(3,)]), attributes={"dims": (1,)}, dtypes=PUT),
            Example(shapes=(TABLE, (3, 6, 5), [(3,)]), attributes={"dims": (0,), "accumulate": True}, dtypes=PUT),
            Example(shapes=(TABLE, None, [(3,), (3,)]), attributes={"dims": (0, 1), "value": 1.0}, dtypes=PUT),
            Example(shapes=((2, 3, 4, 5), (6,), [(6,)] * 4), attributes={"dims": (0, 1, 2, 3)}, dtypes=PUT),
            Example(shapes=(TABLE, None, [TABLE]), attributes={"dims": (0,), "value": 1.0}, dtypes=("float32", "float32", "bool")),
        ),
        SOURCE,
        roles=("input", "values?", "indices*"),
        saves=("index0", "index1", "index2", "index3"),
        facts=EVERYWHERE_FACTS,
        torch="torch.Tensor.__setitem__",
        oracle="index_put_",
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
        saves=("input", "index"),
        facts=EVERYWHERE_FACTS,
    ),
)
COMPOSITE_ROWS = ()
