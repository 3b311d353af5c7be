"""Greedy by size: the largest block first, each at the smallest gap among those it lives with that holds it.

Source: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020 (Greedy by Size for Offset Calculation), and
its form in TensorFlow Lite (tensorflow/lite/delegates/gpu/common/memory_management/greedy_by_size_assignment.cc): of equal sizes the
earlier block comes first; of equal gaps the lower one is taken; where no gap holds a block it goes above the highest one it lives with.
"""

from __future__ import annotations

from collections.abc import Sequence

from memest.memory.planners.blocks import Block, Plan, neighbours, plan_of


def greedy_by_size(blocks: Sequence[Block]) -> Plan:
    """The plan. Time grows with the pairs of blocks that live together."""
    beside = neighbours(blocks)
    offsets: dict[int, int] = {}
    for n in sorted(range(len(blocks)), key=lambda n: (-blocks[n].size, blocks[n].lower, n)):
        size, end, best, place = blocks[n].size, 0, None, None
        for start, stop in sorted((offsets[m], offsets[m] + blocks[m].size) for m in beside[n] if m in offsets):
            gap = start - end
            if gap >= size and (best is None or gap < best):
                best, place = gap, end
            end = max(end, stop)
        offsets[n] = end if place is None else place
    return plan_of(blocks, [offsets[n] for n in range(len(blocks))])
