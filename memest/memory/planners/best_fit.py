"""Best fit online: blocks come and go in time, and each takes the gap that it leaves the least of.

Source: ONNX Runtime's memory pattern (onnxruntime/core/framework/mem_pattern_planner.h, MemPatternPlanner::TraceAllocation, TraceFree):
of equal gaps the lowest one; the gap behind the last block, up to what was taken so far, counts like the others; where none holds a block
it goes behind the last one. Engines call the result a pattern, and take one block of that size at the next call of the same shapes.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

from memest.memory.planners.blocks import Block, Plan, plan_of


def best_fit(blocks: Sequence[Block]) -> Plan:
    """The plan. A block that ends when another begins has gone before."""
    births = sorted((n for n, b in enumerate(blocks) if b.size and b.upper > b.lower), key=lambda n: (blocks[n].lower, n))
    deaths = sorted(births, key=lambda n: blocks[n].upper)
    offsets = [0] * len(blocks)
    used: list[tuple[int, int]] = []  # start and end of those alive, by address
    taken = gone = 0
    for n in births:
        while blocks[deaths[gone]].upper <= blocks[n].lower:
            m = deaths[gone]
            del used[bisect_left(used, (offsets[m], offsets[m] + blocks[m].size))]
            gone += 1
        offsets[n] = _gap(used, blocks[n].size, taken)
        insort(used, (offsets[n], offsets[n] + blocks[n].size))
        taken = max(taken, offsets[n] + blocks[n].size)
    return plan_of(blocks, offsets)


def _gap(used: Sequence[tuple[int, int]], size: int, taken: int) -> int:
    end, best, waste = 0, None, 0
    for start, stop in (*used, (taken, taken)):
        left = start - end - size
        if left >= 0 and (best is None or left < waste):
            best, waste = end, left
        end = stop
    return (used[-1][1] if used else 0) if best is None else best
