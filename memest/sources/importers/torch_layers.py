"""Recorded calls as the layers of a graph: attributes in the graph's own words, batch counters as roles, names that die in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from memest.network.graph import Layer
from memest.ops.operator import per_dim
from memest.sizes.dims import Dim

COUNT = "count"  # what the recorder calls nn.BatchNorm's counter increments until they are folded


def tidy(row: Any, key: str, value: Any) -> Any:
    """One number where a value per dim repeats it."""
    check = next((a.check for a in row.attributes if a.name == key), None)
    repeated = check is per_dim and isinstance(value, tuple) and len(value) > 0 and all(type(v) is int and v == value[0] for v in value)
    return value[0] if repeated else value


def default_of(row: Any, key: str) -> Any:
    """The default of the row's attribute ``key``; None where it has no such attribute."""
    return next((a.default for a in row.attributes if a.name == key), None)


def written_as(value: Any) -> Any:
    """Attribute values as the graph keeps them: sizes as expressions, sequences as tuples."""
    if isinstance(value, Dim):
        return value.expr
    if isinstance(value, torch.Size | list | tuple):
        return tuple(written_as(v) for v in value)
    return value


def with_drops(layer: Layer, drops: Sequence[str]) -> Layer:
    """``layer``, which lets go of ``drops`` when it has run."""
    return replace(layer, drops=tuple(drops))


def with_counters(layers: Sequence[Layer], parameters: set[str]) -> list[Layer]:
    """``num_batches_tracked.add_(1)`` of nn.BatchNorm as a role of the batch_norm it belongs to, in training and eval alike."""
    suffix = ".num_batches_tracked"
    counts = {layer.name for layer in layers if layer.op == "add" and layer.name.rpartition(".")[2].partition("_")[0] == COUNT}
    aliases = {n for layer in layers if layer.name in counts for n in layer.outputs}
    kept: list[Layer] = []
    for layer in layers:
        if layer.name in counts:
            continue
        layer = replace(layer, drops=tuple(n for n in layer.drops if n not in aliases))
        mean = layer.tensors[1] if layer.op == "batch_norm" else None
        counter = f"{mean.rpartition('.')[0]}{suffix}".lstrip(".") if isinstance(mean, str) else ""
        if counter in parameters:
            layer = replace(layer, tensors=(*layer.tensors[:5], counter))
        kept.append(layer)
    return kept


def settled(layers: Sequence[Layer], outputs: Sequence[str], permanent: set[str], mortal: set[str]) -> list[Layer]:
    """Outputs and what the caller owns never die in the graph (but for its ``mortal`` tensors); all else that outlived the forward dies
    with its frame, at the end."""
    keep = {*outputs, *permanent}
    alive: dict[str, None] = dict.fromkeys(sorted(mortal))
    found: list[Layer] = []
    for layer in layers:
        alive.update(dict.fromkeys(layer.outputs))
        drops = tuple(n for n in layer.drops if n not in keep and n in alive)
        for n in drops:
            del alive[n]
        found.append(with_drops(layer, drops))
    leftover = tuple(n for n in alive if n not in keep)
    if found and leftover:
        found[-1] = with_drops(found[-1], (*found[-1].drops, *leftover))
    return found
