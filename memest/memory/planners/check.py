"""Whether a plan holds, whoever made it: no two blocks that live together overlap, and none leaves the arena.

It knows nothing of how plans are made: it goes through time once and keeps the places in use sorted by address.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from memest.memory.planners.blocks import Block, Plan


def overlaps(blocks: Sequence[Block], plan: Plan) -> list[str]:
    """What is wrong with ``plan``, one sentence each; nothing where it holds."""
    if len(plan.offsets) != len(blocks):
        return [f"{len(blocks)} blocks have {len(plan.offsets)} offsets"]
    wrong = [
        f"block {b.id} ends at {o + b.size}, outside of 0 to {plan.nbytes}"
        for b, o in zip(blocks, plan.offsets, strict=True)
        if o < 0 or o + b.size > plan.nbytes
    ]
    moments = sorted([(b.upper, 0, n) for n, b in enumerate(blocks)] + [(b.lower, 1, n) for n, b in enumerate(blocks)])
    used: list[tuple[int, int, int]] = []
    for _, begins, n in moments:
        here = (plan.offsets[n], plan.offsets[n] + blocks[n].size, n)
        at = bisect_left(used, here)
        if not begins:
            if at < len(used) and used[at] == here:
                del used[at]
            continue
        if blocks[n].size and blocks[n].upper > blocks[n].lower:
            wrong += [
                f"blocks {blocks[m].id} and {blocks[n].id} are alive at event {blocks[n].lower} and overlap"
                for start, end, m in used[max(at - 1, 0) : at + 1]
                if start < here[1] and here[0] < end
            ]
            used.insert(at, here)
    return wrong
