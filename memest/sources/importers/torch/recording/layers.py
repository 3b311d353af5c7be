"""Recorded calls as the layers of a graph: attributes in the graph's own words, batch counters as roles, names that die in time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from memest.network.graph import Backward, Items, Layer
from memest.ops.composite import Composite
from memest.ops.operator import Operator, per_dim
from memest.ops.table import operator_named
from memest.runtimes.torch.step.acting import ACTIONS
from memest.sizes.dims import Dim
from memest.sources.importers.torch.calls.queries import COUNTS_PARTS
from memest.sources.importers.torch.tensors.numbers import Unknown, UnknownWhole

SOME_NUMBER = 0.7071
"""What stands in a graph for a number that was read from a tensor: one that no kernel treats apart."""


def written(row: Operator | Composite, given: Mapping[str, Any], training: bool) -> Items:
    """Attributes as the graph keeps them: those that are not the row's defaults, in its order; ``training`` where it does not follow the
    mode of the step, which is ``training`` here."""
    known = {a.name: a for a in row.attributes}
    items: dict[str, Any] = {}
    for name, value in given.items():
        a = known[name]
        if a.check is per_dim:
            value = _one_number(value)
        if isinstance(value, Unknown | UnknownWhole):  # no row went by it
            value = SOME_NUMBER
        if value != a.default and not (name == "training" and value is True and training):
            items[name] = _written(value)
    return tuple((name, items[name]) for name in known if name in items)


def count_parts(op: str, reads: Sequence[Any], attributes: Mapping[str, Any], parts: int) -> None:
    """A tensor that falls into as many parts as its size says (``for row in x``) does so at such sizes alone: a condition."""
    if op not in COUNTS_PARTS:
        return
    n = reads[0].value.spec.shape[attributes.get("dim", 0)]
    if op == "chunk":
        chunks = attributes["chunks"]
        if parts == chunks and n > (chunks - 1) ** 2:  # from there on never fewer
            return
        size = (n + chunks - 1) // chunks
    else:
        size = attributes.get("split_size_or_sections", attributes.get("split_size", 1))
    if isinstance(size, int) and isinstance(n, Dim) and (n + size - 1) // size != parts:
        raise AssertionError("torch counts the parts of a tensor otherwise")


def _one_number(value: Any) -> Any:
    """One number where a value per dim repeats it."""
    repeated = isinstance(value, tuple) and len(value) > 0 and all(type(v) is int and v == value[0] for v in value)
    return value[0] if repeated else value


def _written(value: Any) -> Any:
    """Sizes as expressions, sequences as tuples."""
    if isinstance(value, Dim):
        return value.expr
    return tuple([_written(v) for v in value]) if isinstance(value, list | tuple) else value


def with_ranks(layers: Sequence[Layer], synced: Collection[str]) -> list[Layer]:
    """The layers, each batch norm of the modules at these paths (nn.SyncBatchNorm) with the statistics of all ranks. Which module a call
    is of is told by what it reads, or by its name."""

    def of_all(layer: Layer) -> Layer:
        if layer.op != "batch_norm":
            return layer
        names = (layer.name, *(name for name in layer.tensors[1:] if isinstance(name, str)))
        paths = {layer.name, *(name.rpartition(".")[0] for name in names)}
        return replace(layer, attributes=(*layer.attributes, ("ranks", None))) if paths & set(synced) else layer

    return [of_all(layer) for layer in layers] if synced else list(layers)


def settled(layers: Sequence[tuple[Layer, Sequence[str]]], outputs: Sequence[str], permanent: set[str], mortal: set[str]) -> list[Layer]:
    """The layers with their drops. Outputs and what the caller owns never die in the graph (but for its ``mortal`` tensors); all else that
    outlived the forward dies with its frame, at the end."""
    keep = {*outputs, *permanent}
    alive: dict[str, None] = dict.fromkeys(sorted(mortal))
    found: list[Layer] = []
    for layer, gone in layers:
        alive.update(dict.fromkeys(layer.outputs))
        if layer.autocast:
            alive.update(dict.fromkeys([c.scope for c in layer.autocast]))
        drops = tuple([n for n in gone if n not in keep and n in alive])
        for n in drops:
            del alive[n]
        found.append(replace(layer, drops=drops) if drops else layer)
    leftover = tuple(n for n in alive if n not in keep)
    if found and leftover:
        found[-1] = replace(found[-1], drops=(*found[-1].drops, *leftover))
    return found


def left_by_hooks(*backwards: Sequence[Backward | None]) -> set[str]:
    """The names of what hooks keep when they have run."""
    return {n for found in backwards for b in found if b is not None for one in (b, *b.again) for n in one.stays}


def passed_by_backward(layers: Sequence[Layer], outputs: Sequence[str]) -> set[str]:
    """The names whose gradients are made on the way back from ``outputs``, and in a step by its own backwards that keep no graph."""
    passed = set(outputs)
    for layer in reversed(layers):
        if layer.op in ACTIONS:
            if layer.op == "backward" and not dict(layer.attributes).get("retain_graph"):
                passed.update(layer.reads)
            continue
        row = operator_named(layer.op)
        differentiable = isinstance(row, Composite) or row.backward is not None or layer.backward is not None
        if layer.grad and differentiable and passed.intersection(layer.outputs):
            passed.update(layer.reads)
    return passed
