"""Elementwise arithmetic on CUDA."""

from __future__ import annotations

from memest.ops.operator import Operator

ROWS: tuple[Operator, ...] = ()
SAME = (
    "add",
    "sub",
    "rsub",
    "mul",
    "div",
    "pow",
    "rpow",
    "floor_divide",
    "remainder",
)
