"""Copies on CUDA."""

from __future__ import annotations

from memest.ops.operator import Operator

ROWS: tuple[Operator, ...] = ()
SAME = (
    "clone",
    "_to_copy",
    "cat",
    "stack",
    "repeat",
    "roll",
    "flip",
)
