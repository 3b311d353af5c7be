"""Every block has a place of its own: what a runtime takes that gives nothing back before the end."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from memest.memory.planners.blocks import Block, Plan, plan_of


def no_reuse(blocks: Sequence[Block]) -> Plan:
    """Side by side, in order."""
    ends = accumulate((b.size for b in blocks), initial=0)
    return plan_of(blocks, [start for start, _ in zip(ends, blocks, strict=False)])
