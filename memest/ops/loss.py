"""Losses and the operators they are made of."""

from __future__ import annotations

from typing import Any

from memest.ops.composite import Caller, Composite
from memest.ops.operator import Attribute, Example, Operator
from memest.ops.tape import Tape, Tensor


def _nll_loss(k: Tape, input: Tensor, target: Tensor) -> Tensor:
    loss = k.empty((), input.dtype)
    total_weight = k.empty((), input.dtype)
    k.save(input=input, target=target, total_weight=total_weight)
    return loss


def _nll_loss_backward(k: Tape, saved: dict[str, Any], grads: list[Tensor | None]) -> list[Tensor | None]:
    return [k.empty(saved["input"].shape, saved["input"].dtype), None]


def _cross_entropy(c: Caller, input: Any, target: Any) -> Any:
    return c.call("nll_loss", c.call("log_softmax", input, dim=1), target)


ROWS = (
    Operator(
        name="nll_loss",
        torch="torch.nn.functional.nll_loss",
        roles=("input", "target"),
        attributes=(),
        forward=_nll_loss,
        saves=("input", "target", "total_weight"),
        backward=_nll_loss_backward,
        examples=(Example(shapes=((4, 5), (4,)), attributes={}, dtypes=("float32", "int64")),),
        source="derivatives.yaml: nll_loss_forward; aten/src/ATen/native/LossNLL.cpp",
    ),
)
COMPOSITE_ROWS = (
    Composite(
        name="cross_entropy",
        torch="torch.nn.functional.cross_entropy",
        roles=("input", "target"),
        attributes=(),
        compose=_cross_entropy,
        examples=(Example(shapes=((4, 5), (4,)), attributes={}, dtypes=("float32", "int64")),),
        source="aten/src/ATen/native/LossNLL.cpp (cross_entropy_loss)",
    ),
)
