"""Activations: what is kept is the output where the derivative can be written with it (relu, sigmoid), else the input (silu, gelu)."""

from __future__ import annotations

from typing import Any

from memest.ops.kernels import elementwise, empty_like
from memest.ops.operator import Attribute, Example, Operator, flag
from memest.ops.tape import Tape, Tensor


def _relu(k: Tape, input: Tensor, *, inplace: bool) -> Tensor:
    out = input if inplace else empty_like(k, input)
    k.save(result=out)
    return out


def _relu_backward(k: Tape, saved: dict[str, Any], grads: list[Tensor | None], *, inplace: bool) -> list[Tensor | None]:
    (grad,) = grads
    assert grad is not None
    return [elementwise(k, grad, saved["result"])]


ROWS = (
    Operator(
        name="relu",
        torch="torch.nn.functional.relu",
        roles=("input",),
        attributes=(Attribute(name="inplace", default=False, check=flag),),
        forward=_relu,
        saves=("result",),
        backward=_relu_backward,
        examples=(Example(shapes=((2, 3, 4),), attributes={}), Example(shapes=((2, 3, 4, 5),), attributes={}, layout="channels_last")),
        source="derivatives.yaml: relu; aten/src/ATen/native/Activation.cpp (clamp_min, threshold_backward)",
    ),
)
COMPOSITE_ROWS = ()
