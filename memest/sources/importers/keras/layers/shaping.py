"""Layers that arrange what is there: pads, crops, other shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any

from memest.errors import FileError, UnsupportedError
from memest.sources.importers.keras.layer import Call
from memest.sources.importers.keras.padding import written
from memest.sources.importers.keras.values import Value


def _pairs(given: Any, dims: int) -> tuple[tuple[int, int], ...]:
    """What is put on, or taken from, both ends of each spatial dim: one number, one a dim, or two a dim."""
    each = [given] * dims if isinstance(given, int) else [given] if dims == 1 and len(given) == 2 and isinstance(given[0], int) else given
    found = tuple((e, e) if isinstance(e, int) else tuple(e) for e in each)
    if len(found) != dims or any(len(pair) != 2 for pair in found):
        raise FileError(f"{given!r:.60} is no pad or crop of {dims} dims")
    return found


def _zero_padding(dims: int, call: Call) -> Value:
    return Value(call.made("pad", call.images().node, pad=written(_pairs(call.setting("padding", 1), dims))), True)


def _cropping(dims: int, call: Call) -> Value:
    node = call.images().node
    cut = [(n, pair) for n, pair in enumerate(_pairs(call.setting("cropping", 1), dims), 2) if any(pair)]
    for dim, (before, behind) in cut:
        name = "" if dim == cut[-1][0] else f"dim_{dim}"
        node = call.made("slice", node, name=name, dim=dim, start=before, end=node.shape[dim] - behind)
    return Value(node, True)


def _flatten(call: Call) -> Value:
    if call.value.rank < 3:
        return call.value
    return Value(call.made("flatten", call.orders.plain(call.value, call.name).node, start_dim=1))


def _reshape(call: Call) -> Value:
    value = call.orders.plain(call.value, call.name)
    target = [int(n) for n in call.setting("target_shape")]
    if target.count(-1) > 1:
        raise FileError(f"target_shape {target} leaves more than one dim open")
    there = value.node.shape
    if -1 in target:
        known = prod(n for n in target if n != -1)
        target[target.index(-1)] = prod(there[1:]) // known
    return Value(call.made("reshape", value.node, shape=(there[0], *target)))


def _permute(call: Call) -> Value:
    value = call.orders.plain(call.value, call.name)
    dims = tuple(int(d) for d in call.setting("dims"))
    if sorted(dims) != list(range(1, value.rank)):
        raise UnsupportedError(f"dims {list(dims)} are not those of a tensor with {value.rank} dims")
    return Value(call.made("permute", value.node, dims=(0, *dims)))


HANDLERS: Mapping[str, Callable[[Call], Value]] = {
    **{f"ZeroPadding{n}D": partial(_zero_padding, n) for n in (1, 2, 3)},
    **{f"Cropping{n}D": partial(_cropping, n) for n in (1, 2, 3)},
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
}
