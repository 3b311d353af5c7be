"""Pooling on CUDA."""

from __future__ import annotations

from memest.ops.operator import Operator

ROWS: tuple[Operator, ...] = ()
SAME = (
    "max_pool2d",
    "max_pool3d",
    "_max_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "_adaptive_avg_pool",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
)
