"""Likelihood losses on CUDA."""

from __future__ import annotations

from memest.ops.operator import Operator

ROWS: tuple[Operator, ...] = ()
SAME = (
    "nll_loss_forward",
    "nll_loss2d_forward",
    "masked_select",
    "gather",
)
