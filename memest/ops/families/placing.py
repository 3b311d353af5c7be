"""Putting elements at places along a dim: scatter, and what adds, copies or fills whole slices. What is kept is the places (8 bytes each).

Sources: aten/src/ATen/native/TensorAdvancedIndexing.cpp, cpu/ScatterGatherKernel.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.network.dtypes import HALVES
from memest.ops.aten.copies import clone, contiguous, scatter_into
from memest.ops.aten.iterator import incoming, with_number
from memest.ops.aten.views import wrapped
from memest.ops.facts import ALONG_DIM_FACTS, BY_METHOD, PROMOTE
from memest.ops.operator import Example, flag, number, optional
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, attribute, row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def _target(k: Tape, input: Tensor, inplace: bool) -> Tensor:
    """Where the call writes: over its input, or into a contiguous copy of it."""
    return input if inplace else k.empty(input.shape, input.dtype)


# single elements -------------------------------------------------------------------------------------------------------


def _checked(input: Tensor, index: Tensor, src: Tensor | None) -> None:
    if index.dtype != "int64":
        raise UnsupportedError(f"scatter takes int64 places, got {index.dtype}: make it int64")
    if len(input.shape) != len(index.shape) or (src is not None and len(src.shape) != len(index.shape)):
        raise ShapeError(f"scatter into {len(input.shape)} dims needs places and elements of as many, got {list(index.shape)}")
    if src is not None and src.dtype != input.dtype:
        raise ShapeError(f"scatter of {src.dtype} into {input.dtype}")


def _scatter(k: Tape, input: Tensor, index: Tensor, src: Tensor | None, *, dim: int, value: float | None, inplace: bool) -> Tensor:
    _checked(input, index, src)
    if src is None and value is None:
        raise ShapeError("needs elements or a value")
    k.save(index=index)
    k.note(given=src is not None)
    out = _target(k, input, inplace)
    scatter_into(k, out)
    return out


def _scatter_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int, value: float | None, inplace: bool) -> list[Tensor | None]:
    """``grad.scatter(dim, index, 0)``, and ``grad.gather(dim, index)``."""
    grad = incoming(grads)
    kept = found = None
    if k.needs[0]:
        kept = k.empty(grad.shape, grad.dtype)
        scatter_into(k, kept)
    if saved["given"] and k.needs[-1]:
        found = _gathered(k, grad, saved["index"])
    return [kept, None, found] if saved["given"] else [kept, None]


def _gathered(k: Tape, grad: Tensor, index: Tensor) -> Tensor:
    out = k.empty(index.shape, grad.dtype)
    scatter_into(k, out)
    return out


def _scatter_add(k: Tape, input: Tensor, index: Tensor, src: Tensor, *, dim: int, inplace: bool) -> Tensor:
    _checked(input, index, src)
    if input.dtype in HALVES and 0 in index.strides:
        raise UnsupportedError(f"scatter_add of {input.dtype} by an expanded index has no rule")
    if k.needs[-1]:
        k.save(index=index)
    out = _target(k, input, inplace)
    scatter_into(k, out)
    return out


def _scatter_add_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int, inplace: bool) -> list[Tensor | None]:
    grad = incoming(grads)
    found = _gathered(k, grad, saved["index"]) if k.needs[-1] else None
    return [grad if k.needs[0] else None, None, found]


# whole slices ----------------------------------------------------------------------------------------------------------


def _slices(k: Tape, input: Tensor, index: Tensor, dim: int) -> None:
    wrapped(dim, input.ndim)
    if index.ndim > 1 or index.dtype not in ("int64", "int32"):
        raise ShapeError(f"slices are counted by whole numbers in one dim, got {index.dtype} of shape {list(index.shape)}")
    if input.dtype in HALVES:
        raise UnsupportedError(f"writing slices of {input.dtype} has no rule")


def _index_fill(k: Tape, input: Tensor, index: Tensor, *, dim: int, value: float, inplace: bool) -> Tensor:
    _slices(k, input, index, dim)
    k.save(index=index)
    return input if inplace else clone(k, input)


def _index_fill_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int, value: float, inplace: bool) -> list[Tensor | None]:
    return [clone(k, incoming(grads)), None]


def _index_copy(k: Tape, input: Tensor, index: Tensor, source: Tensor, *, dim: int, inplace: bool) -> Tensor:
    _slices(k, input, index, dim)
    k.save(index=index)
    if k.needs[-1]:
        k.save(source=source)
    return _target(k, input, inplace)


def _index_copy_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int, inplace: bool) -> list[Tensor | None]:
    """``grad.index_fill(dim, index, 0)``, and ``grad.index_select(dim, index)``."""
    grad = incoming(grads)
    kept = clone(k, grad) if k.needs[0] else None
    return [kept, None, _selected(k, grad, saved, dim) if k.needs[-1] else None]


def _selected(k: Tape, grad: Tensor, saved: Saved, dim: int) -> Tensor:
    out = k.empty(saved["source"].shape, grad.dtype)
    contiguous(k, saved["index"])
    if wrapped(dim, grad.ndim) == 1 and grad.ndim > 1:
        contiguous(k, grad)
    return out


def _index_add(k: Tape, input: Tensor, index: Tensor, source: Tensor, *, dim: int, alpha: float, inplace: bool) -> Tensor:
    _slices(k, input, index, dim)
    if source.dtype != input.dtype:
        raise ShapeError(f"index_add of {source.dtype} onto {input.dtype}")
    if k.needs[-1]:
        k.save(index=index, source=source)
    return _target(k, input, inplace)


def _index_add_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int, alpha: float, inplace: bool) -> list[Tensor | None]:
    grad = incoming(grads)
    added = None
    if k.needs[-1]:
        added = _selected(k, grad, saved, dim)
        if alpha != 1:
            added = with_number(k, added, alpha)
    return [grad if k.needs[0] else None, None, added]


BCHW, PART = (2, 3, 4, 5), (2, 2, 4, 5)
DIM, INPLACE = attribute("dim"), attribute("inplace", False, flag)
AT = ("float32", "int64")
_WRITES = ALONG_DIM_FACTS.but(overwrites=BY_METHOD)
_row = partial(row, facts=_WRITES)


def _examples(shapes: Any, *given: dict[str, Any]) -> tuple[Example, ...]:
    """Each call on tensors that want gradients, in place onto one that wants none, and by elements that want none."""
    return tuple(
        Example(shapes=shapes, attributes=a, dtypes=AT, frozen=frozen)
        for a in given
        for frozen in (((),) if not a.get("inplace") else ((0,), (0, 2)))
    ) + (Example(shapes=shapes, attributes=given[0], dtypes=AT, frozen=(2,)),) * (shapes[-1] is not None and len(shapes) == 3)


SLICES = (BCHW, (2,), (2, 2, 4, 5))
ROWS = (
    _row(
        "scatter",
        _scatter,
        _scatter_backward,
        (DIM, attribute("value", None, optional(number)), INPLACE),
        (
            *_examples((BCHW, PART, PART), {"dim": 1}, {"dim": 1, "inplace": True}),
            *_examples((BCHW, PART, None), {"dim": -1, "value": 0.0}, {"dim": 1, "value": 1, "inplace": True}),
        ),
        f"{DERIVED}/TensorAdvancedIndexing.cpp",
        roles=("input", "index", "src?"),
        saves=("index",),
        oracle="scatter",
    ),
    _row(
        "scatter_add",
        _scatter_add,
        _scatter_add_backward,
        (DIM, INPLACE),
        _examples((BCHW, PART, PART), {"dim": 1}, {"dim": 1, "inplace": True}),
        f"{DERIVED}/TensorAdvancedIndexing.cpp",
        roles=("input", "index", "src"),
        saves=("index",),
        oracle="scatter_add",
    ),
    _row(
        "index_fill",
        _index_fill,
        _index_fill_backward,
        (DIM, attribute("value", check=number), INPLACE),
        _examples((BCHW, (2,)), {"dim": 1, "value": 0.0}, {"dim": -1, "value": 1, "inplace": True}),
        f"{DERIVED}/TensorAdvancedIndexing.cpp",
        roles=("input", "index"),
        saves=("index",),
        oracle="index_fill",
    ),
    _row(
        "index_copy",
        _index_copy,
        _index_copy_backward,
        (DIM, INPLACE),
        _examples(SLICES, {"dim": 1}, {"dim": 1, "inplace": True}),
        f"{DERIVED}/TensorAdvancedIndexing.cpp",
        roles=("input", "index", "source"),
        saves=("index", "source"),
        oracle="index_copy",
        facts=_WRITES.but(autocast=PROMOTE),
    ),
    _row(
        "index_add",
        _index_add,
        _index_add_backward,
        (DIM, attribute("alpha", 1, number), INPLACE),
        (
            *_examples(SLICES, {"dim": 1}, {"dim": 1, "inplace": True}),
            *_examples((BCHW, (6,), (6, 3, 4, 5)), {"dim": 0}, {"dim": 0, "alpha": 2.0}),
        ),
        f"{DERIVED}/TensorAdvancedIndexing.cpp",
        roles=("input", "index", "source"),
        saves=("index", "source"),
        oracle="index_add",
    ),
)
COMPOSITE_ROWS = ()
