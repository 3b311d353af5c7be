"""The counters of ``nn.BatchNorm``: recorded as calls of their own, they become a role of the batch norm they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from memest.network.graph import Layer, Reference

COUNT = "count"
"""What the recorder calls nn.BatchNorm's counter increments until they are folded."""


def with_counters(layers: Sequence[Layer], drops: Sequence[Sequence[str]], parameters: set[str]) -> list[tuple[Layer, Sequence[str]]]:
    """The layers, each with what it lets go of when it has run; ``num_batches_tracked.add_(1)`` of nn.BatchNorm is a role of the batch_norm
    it belongs to, in training and eval alike."""
    suffix = ".num_batches_tracked"
    counts = {layer.name for layer in layers if layer.op == "add" and layer.name.rpartition(".")[2].partition("_")[0] == COUNT}
    aliases: dict[str, str] = {}
    for layer in layers:
        if layer.name in counts:
            counted = str(layer.tensors[0])
            aliases.update(dict.fromkeys(layer.outputs, aliases.get(counted, counted)))
    kept: list[tuple[Layer, Sequence[str]]] = []
    for layer, gone in zip(layers, drops, strict=True):
        if layer.name in counts:
            continue
        if not aliases.keys().isdisjoint(layer.reads):  # somebody reads the counter
            layer = replace(layer, tensors=tuple([_renamed(t, aliases) for t in layer.tensors]))
        mean = layer.tensors[1] if layer.op == "batch_norm" else None
        counter = f"{mean.rpartition('.')[0]}{suffix}".lstrip(".") if isinstance(mean, str) else ""
        if counter in parameters:
            layer = replace(layer, tensors=(*layer.tensors[:5], counter))
        kept.append((layer, [n for n in gone if n not in aliases]))
    return kept


def _renamed(reference: Reference, names: Mapping[str, str]) -> Reference:
    if isinstance(reference, str):
        return names.get(reference, reference)
    return None if reference is None else tuple([names.get(n, n) for n in reference])
