"""Products of matrices on CUDA."""

from __future__ import annotations

from memest.ops.operator import Operator

ROWS: tuple[Operator, ...] = ()
SAME = (
    "mm",
    "addmm",
    "bmm",
    "baddbmm",
    "mv",
    "dot",
    "vdot",
)
