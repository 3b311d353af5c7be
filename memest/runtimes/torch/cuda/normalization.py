"""Normalization on CUDA."""

from __future__ import annotations

from memest.ops.operator import Operator

ROWS: tuple[Operator, ...] = ()
SAME = (
    "batch_norm",
    "group_norm",
    "layer_norm",
)
