"""Whole numbers in small tensors: a list that a tensor was made of, an example's own values, and what sorting leaves of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memest.network.graph import Layer
from memest.sizes.dims import Dim, plain
from memest.sources.importers.torch.assuming.following import SAME, made_by

MOST = 4_096
"""Numbers in a list that is remembered."""
Whole = tuple[int, ...]


def whole_numbers(value: Any) -> Whole | None:
    """A list of them, which nobody read from a tensor; None for anything else."""
    if isinstance(value, list | tuple) and 0 < len(value) <= MOST and all(type(n) in (int, Dim) for n in value):
        return tuple(value)
    return None


def traced(layers: Sequence[Layer], known: Mapping[str, Whole], name: str) -> Whole | None:
    """The numbers in the tensor ``name``; None where they do not follow."""
    if name in known:
        return known[name]
    layer = made_by(layers, name)
    if layer is None or not layer.reads:
        return None
    found = traced(layers, known, layer.reads[0])
    given = dict(layer.attributes)
    if found is None or layer.op in SAME or layer.op == "to":
        return found
    if layer.op == "sort" and name == layer.outputs[0]:
        return tuple(sorted(found, key=plain, reverse=given["descending"]))
    if layer.op in ("getitem", "index_select") and len(layer.reads) == 2:  # in another's order
        order = made_by(layers, layer.reads[1])
        ordered = order is not None and order.op in ("sort", "argsort") and order.reads[0] == layer.reads[0]
        return tuple(sorted(found, key=plain, reverse=dict(order.attributes)["descending"])) if ordered and order is not None else None
    return None


def element(layers: Sequence[Layer], known: Mapping[str, Whole], layer: Layer) -> int | None:
    """The number that a ``layer`` picks from such a tensor."""
    given = dict(layer.attributes)
    index = given.get("index")
    at = index[0] if layer.op == "getitem" and isinstance(index, tuple) and len(index) == 1 else index
    if layer.op not in ("getitem", "select") or type(at) is not int or len(layer.reads) != 1:
        return None
    found = traced(layers, known, layer.reads[0])
    return found[at] if found is not None and -len(found) <= at < len(found) else None


def fixed(lengths: Whole) -> Whole:
    """Lengths that were sizes of other tensors are those, and no others (noted among the comparisons of sizes)."""
    return tuple([plain(n) if n == plain(n) else 0 for n in lengths])


def batch_sizes_of(lengths: Sequence[int]) -> Whole:
    """How many sequences have a first step, a second one, and so on; of equal lengths the number of sequences may be a symbol."""
    if isinstance(lengths, Even):
        return (lengths.batch,) * lengths.steps
    return tuple(sum(n > i for n in lengths) for i in range(max(lengths)))


class Even(tuple[int, ...]):
    """Lengths of ``batch`` sequences, all of ``steps``."""

    batch: int
    steps: int


def even(batch: int, steps: int) -> Even:
    """As many lengths as there are sequences here."""
    made = Even([steps] * plain(batch))
    made.batch, made.steps = batch, steps
    return made
