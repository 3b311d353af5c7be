"""Arithmetic between tensors and with numbers."""

from __future__ import annotations

from typing import Any

from memest.ops.kernels import elementwise, scalar
from memest.ops.operator import Attribute, Example, Operator, number, optional
from memest.ops.tape import Tape, Tensor


def _add(k: Tape, input: Tensor, other: Tensor | None, *, value: float | None, alpha: float) -> Tensor:
    wrapped = scalar(k, value) if other is None and value is not None else other
    assert wrapped is not None
    return elementwise(k, input, wrapped)


def _add_backward(k: Tape, saved: dict[str, Any], grads: list[Tensor | None], *, value: float | None, alpha: float) -> list[Tensor | None]:
    (grad,) = grads
    return [grad] * len(k.needs)


ROWS = (
    Operator(
        name="add",
        torch="torch.add",
        roles=("input", "other?"),
        attributes=(Attribute(name="value", default=None, check=optional(number)), Attribute(name="alpha", default=1, check=number)),
        forward=_add,
        saves=(),
        backward=_add_backward,
        examples=(
            Example(shapes=((4, 5), (4, 5)), attributes={}),
            Example(shapes=((4, 5), (5,)), attributes={}),
            Example(shapes=((4, 5), None), attributes={"value": 2.0}),
        ),
        source="derivatives.yaml: add.Tensor; aten/src/ATen/native/BinaryOps.cpp",
    ),
)
COMPOSITE_ROWS = ()
