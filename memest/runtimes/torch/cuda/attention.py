"""Attention on CUDA."""

from __future__ import annotations

from memest.ops.operator import Operator

ROWS: tuple[Operator, ...] = ()
SAME = (
    "_flash_attention",
    "_additive_mask",
    "_causal_mask",
    "_safe_softmax",
)
