"""Quarter turns: ``rot90`` is one step for autograd, and turns its gradient back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.errors import ShapeError
from memest.network.tensor import Shape
from memest.ops.aten.iterator import empty_like, incoming
from memest.ops.aten.views import wrapped
from memest.ops.facts import EVERYWHERE_FACTS
from memest.ops.operator import Example, integers
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, attribute, calls, row


def _turned(k: Tape, t: Tensor, times: int, dims: Shape) -> Tensor:
    """A copy, flipped; of odd turns the flipped one lies transposed."""
    one, two = (wrapped(d, t.ndim) for d in dims)
    if one == two or len(dims) != 2:
        raise ShapeError(f"rot90 turns two different dims, got {list(dims)}")
    out = empty_like(k, t) if times % 4 else k.empty(t.shape, t.dtype)
    if times % 2:
        shape, strides = list(out.shape), list(out.strides)
        shape[one], shape[two], strides[one], strides[two] = shape[two], shape[one], strides[two], strides[one]
        k.restride(out, shape, strides)
    return out


def _rot90(tape: Tape, input: Tensor, *, k: int, dims: Shape) -> Tensor:
    return _turned(tape, input, k, dims)


def _rot90_backward(tape: Tape, saved: dict[str, Any], grads: Sequence[Tensor | None], *, k: int, dims: Shape) -> list[Tensor | None]:
    return [_turned(tape, incoming(grads), -k, dims)]


SHAPE = (2, 3, 4, 5)
ROWS = (
    row(
        "rot90",
        _rot90,
        _rot90_backward,
        (attribute("k", 1), attribute("dims", (0, 1), integers)),
        (
            *calls(*((SHAPE, {"k": k, "dims": (2, 3)}) for k in range(4))),
            Example(shapes=(SHAPE,), attributes={"k": -1, "dims": (1, -1)}, layout="channels_last"),
        ),
        f"{DERIVED}/TensorTransformations.cpp",
        facts=EVERYWHERE_FACTS,
    ),
)
COMPOSITE_ROWS = ()
