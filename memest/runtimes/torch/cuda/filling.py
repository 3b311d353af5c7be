"""Filling on CUDA."""

from __future__ import annotations

from memest.ops.operator import Operator

ROWS: tuple[Operator, ...] = ()
SAME = (
    "fill_",
    "zero_",
    "bernoulli_",
    "uniform_",
    "normal_",
    "copy_",
    "div_into_",
)
