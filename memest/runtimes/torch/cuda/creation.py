"""New tensors on CUDA."""

from __future__ import annotations

from memest.ops.operator import Operator

ROWS: tuple[Operator, ...] = ()
SAME = (
    "zeros",
    "ones",
    "empty",
    "rand",
    "randn",
    "full",
    "arange",
    "linspace",
    "eye",
    "randint",
    "zeros_like",
    "ones_like",
    "empty_like",
    "rand_like",
    "randn_like",
    "full_like",
    "new_zeros",
    "new_ones",
    "new_empty",
    "new_full",
)
