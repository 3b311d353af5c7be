"""Products and quotients with a number inside ATen: the ``Scalar`` overloads, which keep nothing and wrap the number anew in backward.

(From Python, ``x * 2.0`` reaches the tensor overload, which keeps the wrapped number: rows ``mul`` and ``div``.)
"""

from __future__ import annotations

from typing import Any

from memest.ops.aten.iterator import with_number
from memest.ops.facts import POINTWISE_FACTS
from memest.ops.operator import REQUIRED, Attribute, Example, Operator, number
from memest.ops.tape import Tape, Tensor


def _forward(k: Tape, input: Tensor, *, value: float) -> Tensor:
    return with_number(k, input, value)


def _backward(k: Tape, saved: dict[str, Any], grads: list[Tensor | None], *, value: float) -> list[Tensor | None]:
    (grad,) = grads
    assert grad is not None
    return [with_number(k, grad, value)]


def _row(name: str) -> Operator:
    return Operator(
        name=f"{name}.Scalar",
        torch=f"torch.ops.aten.{name}.Scalar",
        oracle=f"{name}_scalar",
        roles=("input",),
        attributes=(Attribute(name="value", default=REQUIRED, check=number),),
        forward=_forward,
        saves=(),
        backward=_backward,
        examples=(Example(shapes=((4, 5),), attributes={"value": 2.0}), Example(shapes=((),), attributes={"value": 3})),
        facts=POINTWISE_FACTS,
        source=f"derivatives.yaml: {name}.Scalar; aten/src/ATen/native/BinaryOps.cpp",
    )


ROWS = (_row("mul"), _row("div"))
COMPOSITE_ROWS = ()
