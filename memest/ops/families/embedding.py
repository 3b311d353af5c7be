"""Tables of vectors: rows picked by number, and numbers as rows of zeros and a one."""

from __future__ import annotations

from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.ops.aten.copies import contiguous
from memest.ops.aten.iterator import incoming
from memest.ops.aten.views import reshaped
from memest.ops.facts import EVERYWHERE_FACTS
from memest.ops.operator import Example, flag, integer, optional
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import FUNCTIONAL, attribute, row

Saved = dict[str, Any]
Grads = list[Tensor | None]


def _embedding(k: Tape, weight: Tensor, indices: Tensor, *, padding_idx: int | None, scale_grad_by_freq: bool, sparse: bool) -> Tensor:
    """Rows of the table; the numbers are kept."""
    if sparse:
        raise UnsupportedError("an embedding with sparse gradients is not modelled; use sparse=False")
    if weight.ndim != 2 or indices.dtype not in ("int64", "int32"):
        raise ShapeError(f"embedding needs a matrix and int64 numbers, got {list(weight.shape)} and {indices.dtype}")
    k.note(sizes=weight.shape)
    k.save(indices=indices)
    flat = reshaped(k, indices, (indices.numel,))
    made = k.empty((indices.numel, weight.shape[1]), weight.dtype)
    if flat.slot != indices.slot:
        k.free(flat)
    return k.alias(made, (*indices.shape, weight.shape[1]))


def _embedding_backward(k: Tape, saved: Saved, grads: Grads, *, padding_idx: int | None, scale_grad_by_freq: bool, sparse: bool) -> Grads:
    """embedding_dense_backward: zeros as large as the table, added to row by row."""
    indices, grad = saved["indices"], incoming(grads)
    numbers = contiguous(k, indices)
    out = k.empty(saved["sizes"], grad.dtype)
    dense = contiguous(k, grad)
    k.free(None if dense is grad else dense, None if numbers is indices else numbers)
    return [out, None]


def _one_hot(k: Tape, input: Tensor, *, num_classes: int) -> Tensor:
    """Torch looks at the least and the greatest number first."""
    if num_classes <= 0:
        raise UnsupportedError("one_hot without num_classes has a size that depends on values; say num_classes=")
    if input.dtype != "int64":
        raise ShapeError(f"one_hot needs int64 numbers, got {input.dtype}")
    if input.numel:
        k.free(k.empty((), "int64"), k.empty((), "int64"))
    return k.empty((*input.shape, num_classes), "int64")


SETTINGS = (
    attribute("padding_idx", None, optional(integer)),
    attribute("scale_grad_by_freq", False, flag),
    attribute("sparse", False, flag),
)
TABLE = (20, 6)
ROWS = (
    row(
        "embedding",
        _embedding,
        _embedding_backward,
        SETTINGS,
        (
            Example(shapes=(TABLE, (4, 5)), attributes={}, dtypes=("float32", "int64")),
            Example(shapes=(TABLE, (7,)), attributes={"padding_idx": 0}, dtypes=("float32", "int32")),
            Example(shapes=(TABLE, ()), attributes={}, dtypes=("float64", "int64")),
            Example(shapes=(TABLE, (2, 3, 4)), attributes={"scale_grad_by_freq": True}, dtypes=("bfloat16", "int64")),
        ),
        "derivatives.yaml: embedding; aten/src/ATen/native/Embedding.cpp",
        facts=EVERYWHERE_FACTS,
        roles=("weight", "indices"),
        saves=("indices",),
        torch=FUNCTIONAL,
        oracle="embedding",
    ),
    row(
        "one_hot",
        _one_hot,
        None,
        (attribute("num_classes", -1),),
        (Example(shapes=((4, 5),), attributes={"num_classes": 7}, dtypes=("int64",)),),
        "aten/src/ATen/native/Onehot.cpp",
        facts=EVERYWHERE_FACTS,
        torch=FUNCTIONAL,
    ),
)
COMPOSITE_ROWS = ()
