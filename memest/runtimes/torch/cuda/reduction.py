"""Reductions on CUDA."""

from __future__ import annotations

from memest.ops.operator import Operator

ROWS: tuple[Operator, ...] = ()
SAME = (
    "sum",
    "mean",
    "var",
    "std",
    "var_mean",
    "amax",
    "amin",
    "_max",
    "_min",
    "_max_dim",
    "_min_dim",
    "argmax",
    "argmin",
    "any",
    "all",
    "prod",
    "cumsum",
)
