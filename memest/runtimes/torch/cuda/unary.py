"""Unary functions on CUDA."""

from __future__ import annotations

from memest.ops.operator import Operator

ROWS: tuple[Operator, ...] = ()
SAME = (
    "exp",
    "exp2",
    "expm1",
    "log",
    "log1p",
    "log2",
    "log10",
    "sqrt",
    "rsqrt",
    "abs",
    "neg",
    "reciprocal",
    "sin",
    "cos",
    "cosh",
    "erf",
    "floor",
    "ceil",
    "round",
    "trunc",
    "sign",
)
