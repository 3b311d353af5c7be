"""The order of operators with the smallest largest live set: which branch first.

The search goes forward over sets of operators done, one operator further at a time, and keeps of each set the way with the least most
alive. It is exact where it never has more than ``width`` sets, nor too much to try; else it keeps the best of them (a beam). An operator
that is ready, adds nothing to what is alive and stays under the most so far is run at once: whatever comes later is no worse for it. Data
dependencies hold, and so does the order of what writes over a value and what else touches it. The order as written is the answer where
none is smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from memest.memory.planners.lower_bound import lower_bound
from memest.planning.arena.flow import Flow
from memest.planning.arena.layout import blocks_of_flow

WIDTH = 64
TRIED = 60_000  # operators tried after a set of others, about: what is left is shared by the steps that are left


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The operations by number as they run, the most bytes alive with it, and whether no order has less (``exact``)."""

    order: tuple[int, ...]
    most: int
    exact: bool


class _State(NamedTuple):
    most: int
    alive: int
    done: int
    way: tuple[object, int] | None


def best_order(flow: Flow, *, width: int = WIDTH) -> Order:
    """The best order found, elementwise operators writing over what dies."""
    written = tuple(range(len(flow.operations)))
    start = lower_bound(blocks_of_flow(flow, in_place=True))
    found = _Search(flow, limit=start).run(width)
    if found is None or found.most >= start:
        return Order(order=written, most=start, exact=found is None or found.exact)
    most = lower_bound(blocks_of_flow(flow, found.order, in_place=True))
    return Order(order=found.order, most=most, exact=found.exact) if most < start else Order(order=written, most=start, exact=False)


class _Search:
    def __init__(self, flow: Flow, *, limit: int) -> None:
        self.flow, self.limit = flow, limit
        operations = flow.operations
        self.after = [sum(1 << m for m in o.after) for o in operations]
        self.leads: list[list[int]] = [[] for _ in operations]
        self.readers = [0] * len(flow.values)
        for n, operation in enumerate(operations):
            for m in operation.after:
                self.leads[m].append(n)
            for v in (*operation.reads, *operation.makes):
                self.readers[v] |= 1 << n
        for v in flow.outputs:
            self.readers[v] |= 1 << len(operations)  # who never runs

    def run(self, width: int) -> Order | None:
        """The best order; None where every one has at least ``limit`` alive."""
        begin = _State(0, sum(self.flow.values[v].nbytes for v in self.flow.inputs), 0, None)
        states = {0: (begin._replace(most=begin.alive), frozenset(n for n, a in enumerate(self.after) if not a))}
        exact, count, left = True, len(self.flow.operations), TRIED
        everything = (1 << count) - 1
        best: _State | None = None
        for step in range(count):
            following: dict[int, tuple[_State, frozenset[int]]] = {}
            for state, ready in states.values():
                left -= len(ready)
                for n, new in self._choices(state, ready):
                    if new.most >= (self.limit if best is None else best.most):
                        continue
                    if new.done == everything:
                        best = new
                    elif new.done not in following or new.most < following[new.done][0].most:
                        freed = (m for m in self.leads[n] if not self.after[m] & ~new.done)
                        following[new.done] = new, (ready - {n}).union(freed)
            room = min(width, max(left // ((count - step) * max((len(r) for _, r in following.values()), default=1)), 1))
            if len(following) > room:
                exact = False
                kept = sorted(following.items(), key=lambda item: (item[1][0].most, item[1][0].alive, item[0]))[:room]
                following = dict(kept)
            states = following
        return None if best is None and exact else Order(order=_way(best), most=self.limit if best is None else best.most, exact=exact)

    def _choices(self, state: _State, ready: frozenset[int]) -> list[tuple[int, _State]]:
        choices = []
        for n in sorted(ready):
            new = self._after(state, n)
            if new.most == state.most and new.alive <= state.alive:
                return [(n, new)]
            choices.append((n, new))
        return choices

    def _after(self, state: _State, n: int) -> _State:
        operation, values = self.flow.operations[n], self.flow.values
        done = state.done | 1 << n
        made = sum(values[v].nbytes for v in operation.makes)
        dying = [v for v in dict.fromkeys((*operation.reads, *operation.makes)) if not self.readers[v] & ~done]
        most = state.alive + made - self._taken_over(n, dying)
        alive = state.alive + made - sum(values[v].nbytes for v in dying)
        return _State(max(state.most, most), alive, done, (state.way, n))

    def _taken_over(self, n: int, dying: list[int]) -> int:
        operation = self.flow.operations[n]
        over = any(v in dying and v not in self.flow.inputs for v in operation.over)
        return self.flow.values[operation.makes[0]].nbytes if over else 0


def _way(state: _State | None) -> tuple[int, ...]:
    found: list[int] = []
    way = None if state is None else state.way
    while way is not None:
        way, n = way  # type: ignore[assignment]
        found.append(n)
    return tuple(reversed(found))
