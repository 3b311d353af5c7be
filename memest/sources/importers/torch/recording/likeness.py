"""Calls that are alike: they ask the same of memory, whatever numbers they compute with.

A ratio drawn anew (mixup), a moving average that warms up and a pointer of Python's differ from call to call, and nothing is larger for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from memest.memory.stream import Event
from memest.network.graph import Backward, Graph, Layer
from memest.ops.facts import POINTWISE
from memest.ops.table import operator_named
from memest.runtimes.torch.step.acting import ACTIONS
from memest.sizes.dims import Expr
from memest.sources.importers.torch.recording.layers import SOME_NUMBER

_OPERANDS = frozenset({"value", "alpha", "beta", "fill_value"})
"""Attributes that are computed with, and no more, whatever row has them."""
_PLACES = {"narrow": "start", "select": "index"}
"""Where a view of so many lies."""
_WHOLE = (int, Expr)
_AHEAD = 3


def alike(one: Graph, other: Graph) -> Graph | None:
    """The graph that both are when numbers are left open that no shape depends on: those of pointwise operators, operands, and where
    views lie, in the backward of custom functions, too."""
    if len(one.layers) != len(other.layers):
        return None
    merged = one.with_(layers=tuple(map(_alike, one.layers, other.layers)))
    return merged if merged == other.with_(layers=tuple(map(_alike, other.layers, one.layers))) else None


def played_alike(one: Sequence[Event], other: Sequence[Event]) -> bool:
    """Whether two plays ask for and give back the same bytes, in the same order, for the same operators."""
    return len(one) == len(other) and _course(one) == _course(other)


def _course(events: Sequence[Event]) -> list[tuple[int, int, str]]:
    """The events, their storages numbered as they come."""
    numbers: dict[int, int] = {}
    return [(e.delta, numbers.setdefault(e.storage.id, len(numbers)), e.op) for e in events]


class Parting(NamedTuple):
    """Where two calls are no longer alike: the line of code (empty: not known), and the operators there."""

    line: str
    ops: tuple[str, ...]


def where_they_part(one: Graph, other: Graph) -> Parting:
    """Where one runs an operator that the other does not; where both run the same ones, the first layer that is not alike."""
    ops = [[layer.op for layer in g.layers] for g in (one, other)]
    shorter = min(map(len, ops))
    at = next((i for i in range(shorter) if ops[0][i] != ops[1][i]), shorter)
    if at == len(ops[0]) == len(ops[1]):
        pairs = enumerate(zip(one.layers, other.layers, strict=True))
        at = next((i for i, (a, b) in pairs if a is not b and _alike(a, b) != _alike(b, a)), at)
    more = (one, other) if _goes_on(ops[1][at:], ops[0][at:]) else (other, one)
    there = [(dict(g.lines).get(layer.name, ""), layer.op) for g in more for layer in g.layers[at : at + 1]]
    return Parting(next((line for line, _ in there if line), ""), tuple(op for _, op in there))


def _goes_on(ops: Sequence[str], others: Sequence[str]) -> bool:
    """Whether the others do something more before they go on as these do."""
    ahead = list(ops[:_AHEAD])
    return any(list(others[n : n + len(ahead)]) == ahead for n in range(1, len(others) + 1))


def _alike(layer: Layer, other: Layer) -> Layer:
    if layer.backward is not None and other.backward is not None:
        layer = replace(layer, backward=_backwards_alike(layer.backward, other.backward))
    given, others = dict(layer.attributes), dict(other.attributes)
    numbers = {name for name, value in given.items() if value != others.get(name) and _are_numbers(value, others.get(name))}
    open_ = {name: some for name in numbers if (some := _left_open(layer.op, name, given[name])) is not None}
    if not open_:
        return layer
    return replace(layer, attributes=tuple((name, open_.get(name, value)) for name, value in layer.attributes))


def _backwards_alike(one: Backward, other: Backward) -> Backward:
    if len(one.layers) != len(other.layers) or len(one.others) != len(other.others):
        return one
    others = tuple(map(_backwards_alike, one.others, other.others))
    return replace(one, layers=tuple(map(_alike, one.layers, other.layers)), others=others)


def _are_numbers(one: Any, other: Any) -> bool:
    return type(one) is type(other) is float or (type(one) in _WHOLE and type(other) in _WHOLE)


def _left_open(op: str, name: str, value: Any) -> float | None:
    """What stands for a number that differs; None where memory may go by it."""
    if _PLACES.get(op) == name:
        return 0
    if op in ACTIONS:
        return None
    if type(value) is float:
        return SOME_NUMBER if name in _OPERANDS or operator_named(op).facts.reach is POINTWISE else None
    return 1 if name in _OPERANDS else None
