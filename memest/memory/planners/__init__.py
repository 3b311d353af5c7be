"""Planners by name: blocks in, an offset for each out. Whether a plan holds is said by :mod:`memest.memory.planners.check`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memest.memory.planners.blocks import Block, Plan
from memest.memory.planners.greedy_by_size import greedy_by_size
from memest.memory.planners.no_reuse import no_reuse

PLANNERS: dict[str, Callable[[Sequence[Block]], Plan]] = {
    "no_reuse": no_reuse,
    "greedy_by_size": greedy_by_size,
}
