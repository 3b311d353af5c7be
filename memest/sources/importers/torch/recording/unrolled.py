"""Loops over a size, as they are recorded: ``for i in range(x.shape[0]): f(x[i])`` is so many calls as ``x`` is long.

Python counts with plain numbers there, and nothing says where they come from. But what is picked gives it away: pieces at plain numbers
that cover a dim of a symbolic size from end to end are those of a loop, and the network is described at this size alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from memest.network.graph import Items, Layer
from memest.sizes.dims import Dim

PICKS = frozenset({"getitem", "select", "narrow", "slice"})
Piece = tuple[int, int, int]
"""A dim, and the first and the last index (not included) of what is picked along it."""


def covered(layers: Sequence[Layer], shapes: Mapping[str, Sequence[Any]]) -> list[tuple[Dim, int]]:
    """The symbolic sizes that pieces cover, with what they are now; ``shapes`` are those of what is picked from, by name."""
    found: dict[tuple[str, int], set[tuple[int, int]]] = {}
    for layer in layers:
        source = layer.tensors[0] if layer.op in PICKS else None
        if isinstance(source, str) and source in shapes:
            for d, start, stop in _pieces(layer.op, layer.attributes, len(shapes[source])):
                found.setdefault((source, d), set()).add((start, stop))
    sizes = [(shapes[source][d], pieces) for (source, d), pieces in found.items()]
    return [(n, int.__int__(n)) for n, pieces in sizes if isinstance(n, Dim) and _cover(pieces, int.__int__(n))]


def _cover(pieces: set[tuple[int, int]], n: int) -> bool:
    """Whether there are several, one after the other from 0 to ``n``."""
    at = 0
    for start, stop in sorted(pieces):
        if start > at:
            return False
        at = max(at, stop)
    return len(pieces) > 1 and at >= n


def _pieces(op: str, attributes: Items, ndim: int) -> Iterator[Piece]:
    given = dict(attributes)
    if op == "getitem":
        yield from _indexed(given["index"], ndim)
        return
    start = given.get("index" if op == "select" else "start", 0)
    length = 1 if op == "select" else given.get("length")
    stop = given.get("end") if length is None or start is None else start + length
    if _plain(start, stop):
        yield given.get("dim", 0) % ndim, start, stop


def _indexed(index: Sequence[Any], ndim: int) -> Iterator[Piece]:
    """Of ``x[index]``, as far as it says dim after dim; behind ``...`` they are counted from the end."""
    d = 0
    for i, entry in enumerate(index):
        if entry is None:
            continue
        if entry == "...":
            d = ndim - sum(e is not None for e in index[i + 1 :])
            continue
        if d >= ndim or not isinstance(entry, int | tuple):
            return
        start, stop, step = (entry[0] or 0, entry[1], entry[2]) if isinstance(entry, tuple) else (entry, entry + 1, 1)
        if _plain(start, stop) and step == 1:
            yield d, start, stop
        d += 1


def _plain(start: Any, stop: Any) -> bool:
    """Whether both are numbers, and count from the front."""
    return type(start) is int and type(stop) is int and 0 <= start < stop
