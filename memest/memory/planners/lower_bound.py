"""What no plan can go below: the most bytes alive at one moment."""

from __future__ import annotations

from collections.abc import Sequence

from memest.memory.planners.blocks import Block


def lower_bound(blocks: Sequence[Block]) -> int:
    """The largest live set, in bytes."""
    changes = sorted([(b.lower, 1, b.size) for b in blocks] + [(b.upper, 0, -b.size) for b in blocks])
    best = alive = 0
    for _, _, change in changes:
        alive += change
        best = max(best, alive)
    return best
