"""Hill climbing over the order in which blocks are placed: never worse than the best of the greedy planners, where it starts.

A step takes one of the blocks that end highest and places it earlier; the order is kept where the arena does not grow. Steps are drawn by
a seeded generator and end after a fixed amount of work, so that the same blocks have the same plan. Where a start reaches the lower bound
nothing is left to do. After the idea of TVM's planner (src/tir/usmp/algo/hill_climb.cc); the moves are our own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from memest.memory.planners.blocks import Block, Plan, plan_of
from memest.memory.planners.gaps import Fit, Placed, in_order
from memest.memory.planners.greedy_by_breadth import by_breadth
from memest.memory.planners.greedy_by_size import by_size, by_size_and_end
from memest.memory.planners.lower_bound import lower_bound

WORK = 3_000  # blocks placed, at most, by all steps together
SEED = 1
STARTS: tuple[tuple[Callable[[Sequence[Block]], list[int]], Fit], ...] = (
    (by_size, "smallest"),
    (by_size_and_end, "lowest"),
    (by_breadth, "smallest"),
)
"""The orders of greedy_by_size, openvino_solver and greedy_by_breadth."""


def hill_climb(blocks: Sequence[Block], *, seed: int = SEED, work: int = WORK) -> Plan:
    """The plan. ``work`` is how many blocks are placed in all while it climbs."""
    bound = lower_bound(blocks)
    starts = []
    for ordered, fit in STARTS:
        order = ordered(blocks)
        plan = in_order(blocks, order, fit)
        if plan.nbytes == bound:
            return plan
        starts.append((plan, order, fit))
    return _climbed(blocks, *min(starts, key=lambda start: start[0].nbytes), bound=bound, rnd=random.Random(seed), work=work)


def _climbed(blocks: Sequence[Block], plan: Plan, order: list[int], fit: Fit, *, bound: int, rnd: random.Random, work: int) -> Plan:
    total = sum(b.size for b in blocks)
    while work > 0 and plan.nbytes > bound:
        places = {n: place for place, n in enumerate(order)}
        highest = [n for n in order if places[n] and plan.offsets[n] + blocks[n].size == plan.nbytes and blocks[n].size]
        if not highest:
            return plan
        moved = rnd.choice(highest)
        to = rnd.randrange(places[moved])
        tried = [*order[:to], moved, *(n for n in order[to:] if n != moved)]
        placed, offsets = Placed(len(blocks), total), dict(enumerate(plan.offsets))
        for n in tried[:to]:
            if blocks[n].size and blocks[n].upper > blocks[n].lower:
                placed.put(blocks[n], plan.offsets[n])
        for n in tried[to:]:
            work -= 1
            offset = placed.place(blocks[n], fit, limit=plan.nbytes)
            if offset is None:
                break
            offsets[n] = offset
        else:
            plan, order = plan_of(blocks, offsets.values()), tried
    return plan
