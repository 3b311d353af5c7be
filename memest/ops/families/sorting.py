"""Sorted values and their places, of all elements along a dim (``sort``) or of the first of them (``topk``). Places are int64, twice a
float32's bytes, and kept for backward, which scatters the values' gradient back.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from memest.errors import ShapeError
from memest.ops.aten.iterator import empty_like
from memest.ops.aten.selecting import scattered_back
from memest.ops.aten.views import wrapped
from memest.ops.composite import Caller
from memest.ops.facts import ALONG_DIM_CALLS, ALONG_DIM_FACTS
from memest.ops.operator import Example, flag, optional
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, NATIVE, attribute, calls, composite, row


def places_like(k: Tape, input: Tensor) -> tuple[Tensor, Tensor]:
    """The tensors for all values and their places, which lie as the input does, as far as that is dense."""
    return empty_like(k, input), empty_like(k, input, "int64")


def _sort(k: Tape, input: Tensor, *, dim: int, descending: bool, stable: bool | None) -> tuple[Tensor, Tensor]:
    """Places begin as a range along the dim that is copied into them."""
    at = wrapped(dim, input.ndim)
    k.note(sizes=input.shape)
    values, indices = places_like(k, input)
    if input.ndim:
        k.free(k.empty((input.shape[at],), "int64"))
    k.save(indices=indices)
    return values, indices


def largest_places(k: Tape, input: Tensor, number: int, dim: int) -> tuple[Tensor, Tensor]:
    """The tensors for the values and the places of so many elements along a dim."""
    k.note(sizes=input.shape)
    at = wrapped(dim, input.ndim)
    if number > (input.shape[at] if input.ndim else 1):
        raise ShapeError(f"topk of {number} elements along a dim of {input.shape[at] if input.ndim else 1}")
    shape = (*input.shape[:at], number, *input.shape[at + 1 :]) if input.ndim else ()
    return k.empty(shape, input.dtype), k.empty(shape, "int64")


def _topk(tape: Tape, input: Tensor, *, k: int, dim: int, largest: bool, sorted: bool) -> tuple[Tensor, Tensor]:
    values, indices = largest_places(tape, input, k, dim)
    tape.save(indices=indices)
    return values, indices


def _argsort(c: Caller, input: Any, *, dim: int, descending: bool, stable: bool | None) -> Any:
    return c.call("sort", input, dim=dim, descending=descending, stable=stable)[1]


BCHW = (2, 3, 4, 5)
ORDER = (attribute("dim", -1), attribute("descending", False, flag), attribute("stable", None, optional(flag)))
_row = partial(row, facts=ALONG_DIM_FACTS, saves=("indices",))

ROWS = (
    _row(
        "sort",
        _sort,
        scattered_back,
        ORDER,
        (
            *calls((BCHW, {}), (BCHW, {"dim": 1, "descending": True, "stable": True}), ((7,), {}), ((), {})),
            *calls((BCHW, {"dim": 1}), layout="channels_last"),
            Example(shapes=((3, 5000),), attributes={"stable": False}),
            Example(shapes=((5000, 3),), attributes={"dim": 0}),
            Example(shapes=((130, 4100),), attributes={}),
            Example(shapes=((2, 6000, 3),), attributes={"dim": 1}, layout="transposed"),
            Example(shapes=((4200,),), attributes={}, dtypes=("int32",)),
        ),
        source=f"{DERIVED}/Sorting.cpp, cpu/SortingKernel.cpp",
    ),
    _row(
        "topk",
        _topk,
        scattered_back,
        (attribute("k"), attribute("dim", -1), attribute("largest", True, flag), attribute("sorted", True, flag)),
        (
            *calls((BCHW, {"k": 1, "dim": 1}), (BCHW, {"k": 2})),
            *calls((BCHW, {"k": 2}), layout="channels_last"),
            Example(shapes=((3, 21000),), attributes={"k": 3}),
            Example(shapes=((9000, 45),), attributes={"k": 2, "dim": 0}),
            Example(shapes=((6, 5000),), attributes={"k": 4500}),
        ),
        source=f"{DERIVED}/cpu/SortingKernel.cpp",
    ),
)
COMPOSITE_ROWS = (
    composite(
        "argsort",
        _argsort,
        ORDER,
        (*calls(((7, 9), {}), ((7, 9), {"dim": 0, "stable": True})), Example(shapes=((7, 9),), attributes={}, frozen=(0,))),
        source=f"{NATIVE}/Sorting.cpp",
        facts=ALONG_DIM_CALLS,
    ),
)
