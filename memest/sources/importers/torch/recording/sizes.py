"""Which sizes a recorded network is free in: those at which it is found to be the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice

from memest.network.graph import Graph
from memest.sizes.conditions import Conditions, reduced
from memest.sizes.dims import Expr, Guard, symbol
from memest.sizes.variation import Sizes, least, one_by_one, varied, where

Agrees = Callable[[Mapping[str, int]], bool | None]
Taken = Mapping[Expr, Iterable[int]]
MOST, MOST_RECORDED = 24, 4
"""Sizes that are looked at besides, where plain numbers were taken; and where a look is a recording of its own."""


def described_where(graph: Graph, agrees: Agrees, taken: Taken, most: int = MOST) -> Graph:
    """The graph, with conditions on the sizes that it is not free in. ``agrees`` says of other sizes whether the network is the same there,
    or None where it cannot be. ``taken`` are sizes whose plain number was taken, each with numbers that it may be held against: there the
    network is looked at, too, at ``most`` so many."""
    sizes = dict(graph.examples)
    conditions: Conditions = graph.memo.find("conditions", None, 1, lambda: reduced(graph.guards, sizes))
    fixed: frozenset[str] = frozenset()
    others: list[Sizes] = []
    while True:
        outcomes = ((other, agrees(other)) for other in islice(varied(conditions, sizes, without=fixed), 4))
        other, same = next((found for found in outcomes if found[1] is not None), (sizes, True))
        if same:
            others.append(other)
            break
        parts = list(one_by_one(conditions, sizes, other))
        blamed = frozenset[str]().union(*(names for names, at in parts if agrees(at) is False))
        fixed |= blamed or frozenset(s for s in sizes if other[s] != sizes[s])
    guards = [Guard("==", symbol(s), sizes[s]) for s in sizes if s in fixed]
    guards += _near_by(conditions, sizes, agrees, taken, fixed, others, most) if taken else []
    return graph.with_(guards=(*graph.guards, *guards)) if guards else graph


def _near_by(
    conditions: Conditions, sizes: Sizes, agrees: Agrees, taken: Taken, fixed: frozenset[str], others: list[Sizes], left: int
) -> list[Guard]:
    """Conditions on sizes that are not ``fixed``, by looking where what was taken is least, and at and next to the numbers it may be held
    against. ``others`` are sizes at which the network is known to be the same."""
    tried: dict[str, dict[int, bool | None]] = {s: {sizes[s]: True, **{at[s]: True for at in others}} for s in sizes if s not in fixed}
    for e, numbers in taken.items():
        near = dict.fromkeys(n + d for n in numbers for d in (0, 1, -1))
        places = [(s, at) for s in sorted(e.symbols()) if s in tried and (at := least(conditions, sizes, s)) is not None]
        places += [(s, at) for n in near for s, at in where(conditions, sizes, e, n) if s in tried]
        for s, at in places:
            if at[s] not in tried[s] and left:
                left -= 1
                tried[s][at[s]] = agrees(at)
    return [guard for s, outcomes in tried.items() if (guard := _condition(s, sizes[s], outcomes)) is not None]


def _condition(s: str, now: int, outcomes: Mapping[int, bool | None]) -> Guard | None:
    """What is known of one symbol: it is free, or so where it is large, or it has to be what it is."""
    same, otherwise = ([n for n, outcome in outcomes.items() if outcome is wanted] for wanted in (True, False))
    if not otherwise:
        return None
    if max(otherwise) < min(same) and max(same) > now:
        return Guard(">=", symbol(s), min(same))
    return Guard("==", symbol(s), now)
