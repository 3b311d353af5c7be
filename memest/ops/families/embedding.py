"""Tables of vectors: rows picked by number, and numbers as rows of zeros and a one. What is kept is the numbers (8 bytes each); the
gradient is as large as the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.ops.aten.copies import contiguous
from memest.ops.aten.iterator import incoming
from memest.ops.aten.views import reshaped
from memest.ops.composite import Composite
from memest.ops.facts import EVERYWHERE_FACTS
from memest.ops.operator import Example, flag
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import FUNCTIONAL, attribute, row


def _embedding(k: Tape, weight: Tensor, indices: Tensor, *, padding_idx: int, scale_grad_by_freq: bool, sparse: bool) -> Tensor:
    """``index_select`` by the flattened numbers."""
    if weight.ndim != 2:
        raise ShapeError(f"embedding takes a weight of two dims, got shape {list(weight.shape)}")
    if indices.dtype not in ("int64", "int32"):
        raise ShapeError(f"embedding takes indices of int64 or int32, got {indices.dtype}")
    if sparse and k.grad_enabled:
        raise UnsupportedError("embedding with sparse=True: a sparse gradient is not modelled; sparse=False is")
    k.save(indices=indices)
    k.note(rows=weight.shape[0])
    numbers = indices if indices.ndim == 1 else reshaped(k, indices, (indices.numel,))
    out = k.empty((indices.numel, weight.shape[1]), weight.dtype)
    read = numbers if k.target.on_cuda else contiguous(k, numbers)
    k.free(*(t for t in (read, numbers) if t.slot != indices.slot))
    return k.alias(out, (*indices.shape, weight.shape[1]))


def _embedding_backward(k: Tape, saved: dict[str, Any], grads: Sequence[Tensor | None], **attributes: Any) -> list[Tensor | None]:
    """embedding_dense_backward: zeros of the table's size, to which rows are added one by one."""
    grad = incoming(grads)
    out = k.empty((saved["rows"], grad.shape[-1]), grad.dtype)
    for t in (saved["indices"], grad):
        contiguous(k, t)
    return [out, None]


def _one_hot(k: Tape, input: Tensor, *, num_classes: int) -> Tensor:
    """On the CPU torch looks at the least and the greatest number first."""
    if num_classes <= 0:
        raise UnsupportedError("one_hot without num_classes has a size that depends on values; say num_classes=")
    if input.dtype != "int64":
        raise ShapeError(f"one_hot needs int64 numbers, got {input.dtype}")
    if input.numel and not k.target.on_cuda:
        k.free(k.empty((), "int64"), k.empty((), "int64"))
    return k.empty((*input.shape, num_classes), "int64")


NUMBERS = ("float32", "int64")
ROWS = (
    row(
        "embedding",
        _embedding,
        _embedding_backward,
        (attribute("padding_idx", -1), attribute("scale_grad_by_freq", False, flag), attribute("sparse", False, flag)),
        (
            Example(shapes=((30, 8), (2, 3)), attributes={}, dtypes=NUMBERS),
            Example(shapes=((30, 8), (7,)), attributes={"padding_idx": 1}, dtypes=("float32", "int32")),
            Example(shapes=((30, 8), ()), attributes={}, dtypes=NUMBERS),
            Example(shapes=((30, 8), (40, 5)), attributes={"scale_grad_by_freq": True}, dtypes=NUMBERS),
            Example(shapes=((30, 8), (20, 5)), attributes={}, dtypes=NUMBERS, layout="transposed"),
            Example(shapes=((600, 8), (50, 70)), attributes={}, dtypes=NUMBERS),
            Example(shapes=((40, 8), (90000,)), attributes={"scale_grad_by_freq": True}, dtypes=NUMBERS),
            Example(shapes=((40, 8), (40000,)), attributes={"padding_idx": 3}, dtypes=("float32", "int32")),
        ),
        source="derivatives.yaml: embedding; aten/src/ATen/native/Embedding.cpp",
        roles=("weight", "indices"),
        saves=("indices",),
        facts=EVERYWHERE_FACTS,
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
COMPOSITE_ROWS: tuple[Composite, ...] = ()
