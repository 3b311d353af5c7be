"""Cross products of vectors of three numbers: each operand's gradient is one, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.errors import ShapeError
from memest.network.dtypes import FLOATING
from memest.ops.aten.iterator import broadcast_shape, incoming, result_dtype
from memest.ops.aten.places import refuse_on_cuda
from memest.ops.aten.views import wrapped
from memest.ops.facts import ALONG_DIM_FACTS
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, attribute, calls, row


def _cross(k: Tape, input: Tensor, other: Tensor, *, dim: int) -> Tensor:
    """Row by row, whatever the operands' strides."""
    refuse_on_cuda(k)
    if input.ndim != other.ndim or input.dtype != other.dtype or result_dtype(input, other) not in FLOATING:
        raise ShapeError(f"cross of {input.dtype} of shape {list(input.shape)} and {other.dtype} of {list(other.shape)}")
    at = wrapped(dim, input.ndim)
    if input.shape[at] != 3 or other.shape[at] != 3:
        raise ShapeError(f"cross along dim {dim} of shapes {list(input.shape)} and {list(other.shape)}: 3 numbers are needed")
    k.save(other=other if k.needs[0] else None, input=input if k.needs[1] else None)
    return k.empty(broadcast_shape(input, other), input.dtype)


def _cross_backward(k: Tape, saved: dict[str, Any], grads: Sequence[Tensor | None], *, dim: int) -> list[Tensor | None]:
    grad = incoming(grads)
    return [k.empty(grad.shape, grad.dtype) if needed else None for needed in k.needs]


ROWS = (
    row(
        "linalg_cross",
        _cross,
        _cross_backward,
        (attribute("dim", -1),),
        (
            *calls((((6, 3), (6, 3)), {}), (((2, 3, 4), (2, 3, 4)), {"dim": 1}), (((6, 3), (1, 3)), {})),
            *calls((((6, 3), (6, 3)), {}), layout="transposed"),
        ),
        f"{DERIVED}/Cross.cpp",
        facts=ALONG_DIM_FACTS,
        roles=("input", "other"),
        saves=("input", "other"),
        torch="torch.linalg.cross",
    ),
)
COMPOSITE_ROWS = ()
