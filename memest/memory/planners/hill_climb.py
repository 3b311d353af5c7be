"""Hill climbing over the order in which blocks are placed: never worse than the best of the greedy planners, where it starts.

A step takes a block that ends highest, or one that it lives with, and places it before one of those it lives with, or exchanges the two;
the order is kept where the arena does not grow. Steps are drawn by a seeded generator and end after a fixed amount of work, so that the
same blocks have the same plan. Where a start reaches the lower bound nothing is left to do. After the idea of TVM's planner
(src/tir/usmp/algo/hill_climb.cc: neighbours of the blocks on top, of the first and second degree, change places).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from heapq import heappop, heappush

from memest.memory.planners.blocks import Block, Plan, plan_of
from memest.memory.planners.gaps import Fit, Neighbours, in_order, offset_among
from memest.memory.planners.greedy_by_breadth import by_breadth
from memest.memory.planners.greedy_by_size import by_size, by_size_and_end
from memest.memory.planners.lower_bound import lower_bound

WORK, ALONE = 150_000, 10  # what all steps together may do: a block placed beside n others is n + ALONE
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


class Climb:
    """An order and the plan it gives, changed step by step. Of a step only those blocks are placed anew of whose neighbours one was moved
    before them, or changed its place: the others lie where they would be placed again."""

    def __init__(self, blocks: Sequence[Block], plan: Plan, order: list[int], fit: Fit, rnd: random.Random, work: int) -> None:
        self.blocks, self.order, self.fit, self.rnd = blocks, order, fit, rnd
        self.offsets, self.nbytes, self.left = list(plan.offsets), plan.nbytes, work
        self.rank = {n: place for place, n in enumerate(order)}
        self._near = Neighbours(blocks)

    def step(self) -> None:
        """Another order, kept where the arena does not grow."""
        self.left -= len(self.blocks)
        moved = self.rnd.choice([n for n, b in enumerate(self.blocks) if self.offsets[n] + b.size == self.nbytes])
        if self.rnd.random() < SECOND:
            moved = self.rnd.choice(self._before(moved) or [moved])
        first, last = self.rank[self.rnd.choice(self._before(moved) or [moved])], self.rank[moved]
        before = self.order[first : last + 1]
        exchanged = self.rnd.random() < EXCHANGED
        self._put(first, [before[-1], *before[1:-1], before[0]] if exchanged and first < last else [before[-1], *before[:-1]])
        found = self._placed({before[0], moved} if exchanged else {moved}, first)
        if found is None:
            self._put(first, before)
            return
        for n, offset in found.items():
            self.offsets[n] = offset
        self.nbytes = max(self.offsets[n] + b.size for n, b in enumerate(self.blocks))

    def _put(self, first: int, blocks: Sequence[int]) -> None:
        self.order[first : first + len(blocks)] = blocks
        self.rank.update(zip(blocks, range(first, first + len(blocks)), strict=True))

    def _placed(self, moved: set[int], first: int) -> dict[int, int] | None:
        """The offsets that change; None where a block would end above the arena, or nothing of the work is left."""
        found: dict[int, int] = {}
        due = {self.rank[m] for n in moved for m in (n, *self._near[n]) if self.rank[m] >= first}
        waiting = sorted(due)
        while waiting:
            n = self.order[heappop(waiting)]
            near = self._near[n]
            self.left -= len(near) + ALONE
            spans = sorted((found.get(m, self.offsets[m]), self.blocks[m].size) for m in self._before(n))
            offset = offset_among(spans, self.blocks[n].size, self.fit)
            if offset + self.blocks[n].size > self.nbytes or self.left < 0:
                return None
            if offset != self.offsets[n]:
                found[n] = offset
                for m in near:
                    if self.rank[m] > self.rank[n] and self.rank[m] not in due:
                        due.add(self.rank[m])
                        heappush(waiting, self.rank[m])
        return found

    def _before(self, n: int) -> list[int]:
        """The blocks placed before ``n`` that live with it."""
        return [m for m in self._near[n] if self.rank[m] < self.rank[n]]


def _climbed(blocks: Sequence[Block], plan: Plan, order: list[int], fit: Fit, *, bound: int, rnd: random.Random, work: int) -> Plan:
    climb = Climb(blocks, plan, order, fit, rnd, work)
    while climb.left > 0 and climb.nbytes > bound:
        climb.step()
    return plan_of(blocks, climb.offsets)
