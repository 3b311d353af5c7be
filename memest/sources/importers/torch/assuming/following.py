"""What follows from an assumed count: masks that pick the same elements or the others, and numbers read from sums of masks.

A mask is known by its root, the call that made it; what only views, copies or negates it picks the same elements, or those left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from memest.network.graph import Layer

SAME = frozenset(
    {
        *("alias", "detach", "data", "clone", "contiguous", "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze"),
        *("transpose", "permute", "t", "movedim", "view_as", "reshape_as", "to_device"),
    }
)
NEGATED = frozenset({"bitwise_not", "logical_not"})
_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}
_COUNTED: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "maximum": max,
    "minimum": min,
    "clamp_min": max,
}


_OF_ONE: dict[str, Callable[[Any], Any]] = {
    **{"log2": math.log2, "log": math.log, "exp": math.exp, "sqrt": math.sqrt},
    **{"round": round, "floor": math.floor, "ceil": math.ceil, "abs": abs, "neg": lambda a: -a},
}


class Root(NamedTuple):
    """Where a mask comes from: the name of the tensor, and whether it picks what that does not."""

    name: str
    others: bool


def made_by(layers: Sequence[Layer], name: str) -> Layer | None:
    """The layer that gave ``name``."""
    return next((layer for layer in reversed(layers) if name in layer.outputs), None)


def root_of(layers: Sequence[Layer], name: str) -> Root:
    """Where the mask ``name`` comes from."""
    others = False
    while True:
        layer = made_by(layers, name)
        if layer is None or not layer.reads:
            break
        if layer.op in NEGATED:
            others = not others
        elif layer.op not in SAME and not (layer.op == "to" and dict(layer.attributes).get("dtype") in (None, "bool")):
            break
        name = layer.reads[0]
    return Root(name, others)


def apart(layers: Sequence[Layer], start: str, stop: str) -> int | None:
    """How far one number in a tensor is from another, where it is that and a number more (``x[i : i + 4]``)."""
    layer = made_by(layers, root_of(layers, stop).name)
    if layer is None or layer.op != "add" or len(layer.reads) != 1 or dict(layer.attributes).get("inplace"):
        return None
    more = dict(layer.attributes).get("value")
    same = root_of(layers, layer.reads[0]) == root_of(layers, start)
    return more if same and type(more) is int and set(dict(layer.attributes)) == {"value"} else None


def terms(layers: Sequence[Layer], layer: Layer, number: Callable[[str], Any]) -> Any:
    """The number that a ``layer`` of numbers gives, where ``number`` knows those that it reads; None where it does not follow."""
    attributes = dict(layer.attributes)
    if layer.op in SAME or layer.op == "to":
        return number(layer.reads[0])
    if layer.op in _OF_ONE and len(layer.reads) == 1 and not attributes.get("inplace"):
        known = number(layer.reads[0])
        return None if known is None else _OF_ONE[layer.op](known)
    if layer.op not in _COMPARED and layer.op not in _COUNTED:
        return None
    given: list[Any] = []
    for name in layer.reads:
        known = number(name)
        if known is None:
            return None
        given.append(known)
    given += [attributes[key] for key in ("value", "min") if isinstance(attributes.get(key), int | float)]
    if len(given) == 2 and None not in given and not any(attributes.get(key) for key in ("alpha", "max")):
        if layer.op in _COMPARED:
            return _COMPARED[layer.op](*given)
        if layer.op in _COUNTED:
            return _COUNTED[layer.op](*given)
    return None


def siblings(layers: Sequence[Layer], root: str) -> Iterator[str]:
    """Other masks that pick, of one tensor, what equals another number: what one of them picks none of them does."""
    layer = made_by(layers, root)
    if layer is not None and layer.op == "eq":
        for other in layers:
            if other.op == "eq" and other.reads[0] == layer.reads[0] and other is not layer and _number(other) != _number(layer):
                yield other.outputs[0]


def _number(layer: Layer) -> Any:
    return dict(layer.attributes).get("value"), layer.reads[1:]
