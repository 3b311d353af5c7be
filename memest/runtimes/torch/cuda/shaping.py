"""Shapes on CUDA."""

from __future__ import annotations

from memest.ops.operator import Operator

ROWS: tuple[Operator, ...] = ()
SAME = (
    "view",
    "permute",
    "transpose",
    "t",
    "squeeze",
    "unsqueeze",
    "expand",
    "_unsafe_view",
    "as_strided",
    "as_strided_",
    "detach",
    "data",
    "alias",
    "autograd_function",
    "register_hook",
    "autograd_grad",
    "backward",
    "requires_grad",
    "forget_gradients",
)
