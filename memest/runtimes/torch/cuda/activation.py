"""Activations on CUDA."""

from __future__ import annotations

from memest.ops.operator import Operator

ROWS: tuple[Operator, ...] = ()
SAME = (
    "relu",
    "relu6",
    "hardtanh",
    "leaky_relu",
    "elu",
    "selu",
    "celu",
    "gelu",
    "silu",
    "mish",
    "hardswish",
    "hardsigmoid",
    "sigmoid",
    "tanh",
    "softplus",
    "threshold",
    "hardshrink",
    "softshrink",
    "logsigmoid",
    "prelu",
    "rrelu",
    "glu",
    "softmax",
    "log_softmax",
)
