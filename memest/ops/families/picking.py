"""What depends on values: where a tensor is not 0, its different values, and writing at index tensors and masks.

How many there are no shape says: ``count`` (``counts``, one a mask) does. Places take 8 bytes for each dim of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.network.tensor import Shape
from memest.ops.aten.iterator import empty_like, incoming
from memest.ops.aten.places import checked_count, free_places, picked, places_of, refuse_on_cuda
from memest.ops.aten.reductions import sum_to
from memest.ops.facts import EVERYWHERE_FACTS
from memest.ops.operator import Example, flag, integers, number_or_flag, optional
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import NATIVE, attribute, row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def _nonzero(k: Tape, input: Tensor, *, count: int) -> Tensor:
    return places_of(k, input, count)


def _unique(
    k: Tape, input: Tensor, *, count: int, sorted: bool, return_inverse: bool, return_counts: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Sorted with their places; then one of each, and on demand where each went and how often there is one."""
    refuse_on_cuda(k)
    checked_count(count, input.numel)
    if input.dtype not in ("int64", "int32") or not input.is_contiguous:
        raise UnsupportedError(f"unique of {input.dtype}, or of a tensor that does not lie row by row, has no rule; give contiguous int64")
    values, order = k.empty((input.numel,), input.dtype), k.empty((input.numel,), "int64")
    k.free(k.empty((input.numel,), "int64"))
    out = k.empty((count,), input.dtype)
    inverse = k.empty(input.shape if return_inverse else (0,), "int64")
    counted = k.empty((count if return_counts else 0,), "int64")
    begins = k.empty((count + 1,), "int64") if return_counts else None
    k.free(begins, order, values)
    return out, inverse, counted


def _index_put(
    k: Tape,
    input: Tensor,
    indices: list[Tensor],
    other: Tensor | None,
    *,
    dims: Shape,
    counts: Shape,
    value: float | None,
    accumulate: bool,
) -> Tensor:
    """``input[indices] = other`` (or ``+=``: ``accumulate``) or a number, which becomes a tensor for the call. One number by one mask is
    filled in (``canDispatchToMaskedFill``), for anything else it is looked up where masks are true."""
    refuse_on_cuda(k)
    if other is None and value is None:
        raise ShapeError("needs a second tensor or a value")
    if other is not None and other.dtype != input.dtype:
        raise UnsupportedError(f"torch writes no {other.dtype} into {input.dtype} at indices")
    given = () if other is None else other.shape
    fills = len(indices) == 1 and indices[0].dtype == "bool" and (other is None or other.numel == 1)
    number = k.empty((), input.dtype) if other is None else None
    k.save(**{f"index{i}": t for i, t in enumerate(indices)})
    k.note(given=given, fills=fills, written=other is not None)
    if not fills:
        free_places(k, indices, counts)
    k.free(number)
    return input


def _index_put_backward(
    k: Tape, saved: Saved, grads: Grads, *, dims: Shape, counts: Shape, value: float | None, accumulate: bool
) -> list[Tensor | None]:
    """The gradient with zeros put in (where something was added, itself), and what of it stands at the indices."""
    grad = incoming(grads)
    indices = [saved[f"index{i}"] for i in range(len(dims))]
    first = part = None
    if k.needs[0] and accumulate:
        first = grad
    elif k.needs[0]:
        zeros = k.empty(saved["given"], grad.dtype)
        first = empty_like(k, grad)
        if not saved["fills"]:
            free_places(k, indices, counts)
        k.free(zeros)
    if saved["written"] and k.needs[-1]:
        whole = picked(k, grad, indices, dims, counts)
        part = sum_to(k, whole, saved["given"])
    return [first, *[None] * len(indices), *([part] if saved["written"] else [])]


BCHW = (2, 3, 4, 5)
COUNT = attribute("count")
_row = partial(row, facts=EVERYWHERE_FACTS)
MASK, PLACES = ("float32", "bool"), ("float32", "int64")
INDEX = "aten/src/ATen/native/TensorAdvancedIndexing.cpp"
ROWS = (
    _row(
        "nonzero",
        _nonzero,
        None,
        (COUNT,),
        (
            Example(shapes=((7,),), attributes={"count": 3}, dtypes=("bool",)),
            Example(shapes=((3, 4),), attributes={"count": 5}, dtypes=("bool",)),
            Example(shapes=((3, 4),), attributes={"count": 12}, dtypes=("int64",)),
        ),
        f"{INDEX} (nonzero_cpu)",
        oracle="nonzero",
    ),
    _row(
        "unique",
        _unique,
        None,
        (COUNT, attribute("sorted", True, flag), attribute("return_inverse", False, flag), attribute("return_counts", False, flag)),
        (
            Example(shapes=((9,),), attributes={"count": 1}, dtypes=("int64",)),
            Example(shapes=((3, 4),), attributes={"count": 1, "return_inverse": True, "return_counts": True}, dtypes=("int64",)),
        ),
        f"{NATIVE}/Unique.cpp (unique_cpu_sorted_template)",
        oracle="unique",
    ),
    _row(
        "index_put_",
        _index_put,
        _index_put_backward,
        (
            attribute("dims", check=integers),
            attribute("counts", (), integers),
            attribute("value", None, optional(number_or_flag)),
            attribute("accumulate", False, flag),
        ),
        (
            Example(shapes=(BCHW, [(6,)], (6, 3, 4, 5)), attributes={"dims": (0,)}, dtypes=PLACES),
            Example(shapes=(BCHW, [(6,)], (5,)), attributes={"dims": (0,)}, dtypes=PLACES),
            Example(shapes=(BCHW, [(6,)], (6, 3, 4, 5)), attributes={"dims": (0,), "accumulate": True}, dtypes=PLACES),
            Example(shapes=(BCHW, [(6,)], (6, 3, 4, 5)), attributes={"dims": (0,)}, dtypes=PLACES, frozen=(0,)),
            Example(shapes=(BCHW, [(6,), (6,)], (6, 4, 5)), attributes={"dims": (0, 1)}, dtypes=(*PLACES, "int64"), frozen=(2,)),
            Example(shapes=(BCHW, [(6,)] * 4, (6,)), attributes={"dims": (0, 1, 2, 3)}, dtypes=("float32", *["int64"] * 4)),
            Example(shapes=(BCHW, [(3,)], (2, 2, 4, 5)), attributes={"dims": (1,), "counts": (2,)}, dtypes=MASK),
            Example(shapes=(BCHW, [(2, 3)], (5, 4, 5)), attributes={"dims": (0,), "counts": (5,)}, dtypes=MASK),
            Example(shapes=(BCHW, [BCHW], ()), attributes={"dims": (0,), "counts": (7,)}, dtypes=MASK),
            Example(shapes=(BCHW, [BCHW], None), attributes={"dims": (0,), "counts": (7,), "value": 0.0}, dtypes=MASK),
            Example(shapes=(BCHW, [(6,)], None), attributes={"dims": (0,), "value": 0.0}, dtypes=PLACES),
            Example(shapes=(BCHW, [(2,), (1,)], None), attributes={"dims": (0, 1), "counts": (2,), "value": 0.0}, dtypes=(*MASK, "int64")),
        ),
        f"derivatives.yaml: index_put_; {INDEX}",
        roles=("input", "indices*", "other?"),
        saves=("index0", "index1", "index2", "index3"),
        torch="torch.Tensor.index_put_",
        oracle="index_put_",
    ),
)
COMPOSITE_ROWS = ()
