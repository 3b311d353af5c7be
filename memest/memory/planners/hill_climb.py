"""Hill climbing over the order in which blocks are placed: never worse than the best of the greedy planners, where it starts.

A step takes a block that ends highest, or one that it lives with, and places it before one of those it lives with, or exchanges the two;
the order is kept where the arena does not grow. Steps are drawn by a seeded generator and end after a fixed amount of work, so that the
same blocks have the same plan. Where a start reaches the lower bound nothing is left to do. After the idea of TVM's planner
(src/tir/usmp/algo/hill_climb.cc: neighbours of the blocks on top, of the first and second degree, change places).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from memest.memory.planners.blocks import Block, Plan, plan_of
from memest.memory.planners.gaps import Fit, Placed, in_order
from memest.memory.planners.greedy_by_breadth import by_breadth
from memest.memory.planners.greedy_by_size import by_size, by_size_and_end
from memest.memory.planners.lower_bound import lower_bound

WORK, ALONE = 3_000_000, 500  # what all steps together may do: a block placed beside n others is n + ALONE
SEED = 1
SECOND, EXCHANGED = 0.5, 0.3  # how often a step takes a neighbour of the highest block, and exchanges two
STARTS: tuple[tuple[Callable[[Sequence[Block]], list[int]], Fit], ...] = (
    (by_size, "smallest"),
    (by_size_and_end, "lowest"),
    (by_breadth, "smallest"),
)
"""The orders of greedy_by_size, openvino_solver and greedy_by_breadth."""


def hill_climb(blocks: Sequence[Block], *, seed: int = SEED, work: int = WORK) -> Plan:
    """The plan. ``work`` is what may be done while it climbs, in blocks looked at."""
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
        tried, kept = _step(blocks, plan, order, rnd)
        placed, offsets = Placed(len(blocks), total), dict(enumerate(plan.offsets))
        for n in tried[:kept]:
            placed.put(blocks[n], plan.offsets[n])
        for place, n in enumerate(tried[kept:], kept):
            work -= place + ALONE
            offset = placed.place(blocks[n], fit, limit=plan.nbytes)
            if offset is None:
                break
            offsets[n] = offset
        else:
            plan, order = plan_of(blocks, offsets.values()), tried
    return plan


def _step(blocks: Sequence[Block], plan: Plan, order: list[int], rnd: random.Random) -> tuple[list[int], int]:
    """Another order, and how many of its first blocks stay where they are."""
    places = {n: place for place, n in enumerate(order)}
    moved = rnd.choice([n for n in order if plan.offsets[n] + blocks[n].size == plan.nbytes])
    if rnd.random() < SECOND:
        moved = rnd.choice(_before(blocks, order, places[moved]) or [moved])
    first = places[rnd.choice(_before(blocks, order, places[moved]) or [moved])]
    if rnd.random() < EXCHANGED:
        tried = list(order)
        tried[first], tried[places[moved]] = moved, order[first]
        return tried, first
    return [*order[:first], moved, *(n for n in order[first:] if n != moved)], first


def _before(blocks: Sequence[Block], order: Sequence[int], place: int) -> list[int]:
    """The blocks placed before that at ``place`` which it lives with."""
    block = blocks[order[place]]
    return [n for n in order[:place] if blocks[n].lower < block.upper and block.lower < blocks[n].upper]
