"""Which values share a place: elementwise operators write over an input that dies, and what is concatenated is made where it will lie.

Both are done before planning and change the blocks alone. An elementwise operator fused into the one before it is the same in bytes: its
input never exists beside its output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memest.memory.planners.blocks import Block, aligned
from memest.memory.planners.lower_bound import lower_bound
from memest.planning.arena.flow import Flow, Operation


@dataclass(slots=True)
class _Place:
    lower: int
    upper: int
    size: int
    layer: str
    callers: bool


def blocks_of_flow(
    flow: Flow, order: Sequence[int] | None = None, *, in_place: bool = False, joined: bool = False, alignment: int = 1
) -> tuple[Block, ...]:
    """The blocks of the call with its inputs and outputs, in the order of their beginnings: ``in_place`` lets an elementwise operator take
    over an input of the same shape and dtype that dies with it (never the caller's), ``joined`` what a concatenation reads be made in its
    result, where that makes the largest live set no larger."""
    lives = flow.lives(order)
    places = [
        _Place(lower, upper, aligned(value.nbytes, alignment), value.layer, v in flow.inputs)
        for v, (value, (lower, upper)) in enumerate(zip(flow.values, lives, strict=True))
    ]
    at = list(range(len(places)))
    running = range(len(flow.operations)) if order is None else order
    for time, n in enumerate(running):
        if in_place:
            _take_over(flow.operations[n], time, places, at)
    if joined:
        for time, n in sorted(enumerate(running), key=lambda item: -sum(flow.values[v].nbytes for v in flow.operations[item[1]].makes)):
            if flow.operations[n].joins:
                _join(flow.operations[n], time, places, at)
    return _blocks(places, at)


def _blocks(places: list[_Place], at: list[int]) -> tuple[Block, ...]:
    used = sorted((places[p] for p in set(at) if places[p].size), key=lambda place: (place.lower, place.upper))
    return tuple(Block(n, p.lower, p.upper, p.size) for n, p in enumerate(used))


def _take_over(operation: Operation, time: int, places: list[_Place], at: list[int]) -> None:
    for read in operation.over:
        (made,) = operation.makes
        old, new = places[at[read]], places[at[made]]
        if old.upper == time + 1 and not old.callers:
            old.upper = max(old.upper, new.upper)
            _move(at, at[made], at[read])
            return


def _join(operation: Operation, time: int, places: list[_Place], at: list[int]) -> None:
    pieces = list(dict.fromkeys(at[v] for v in operation.reads))
    if len(operation.makes) != 1 or len(pieces) != len(operation.reads):
        return
    whole = at[operation.makes[0]]
    fits = sum(places[p].size for p in pieces) == places[whole].size
    if not fits or any(places[p].upper != time + 1 or places[p].callers for p in pieces):
        return
    before, kept = lower_bound(_blocks(places, at)), (places[whole].lower, list(at))
    places[whole].lower = min(places[p].lower for p in pieces)
    for p in pieces:
        _move(at, p, whole)
    if lower_bound(_blocks(places, at)) > before:
        places[whole].lower, at[:] = kept


def _move(at: list[int], source: int, target: int) -> None:
    at[:] = [target if p == source else p for p in at]
