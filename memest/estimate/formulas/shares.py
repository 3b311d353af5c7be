"""Who owns what over the whole step, as expressions: weights, kept activations, gradients, optimizer state, and the same by layer.

Everything is read off the compiled step, where storages are counted once, by identity.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from memest.memory.live_sets import LiveSets
from memest.network.graph import Graph
from memest.network.tensor import nbytes
from memest.sizes.dims import Dim, Expr, Opaque, expression, plain, recording


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Bytes of one layer: activations kept for backward that it made, its outputs, its parameters, and their gradients."""

    activation: int | Expr
    output: int | Expr
    parameter: int | Expr
    gradient: int | Expr


def totals(program: LiveSets) -> dict[str, int | Expr]:
    """Bytes over the step: ``parameter``, ``buffer``, ``input`` and ``optimizer_state`` as they are before it, ``activation`` kept when
    backward begins (the loss's among them), ``gradient`` of the parameters once all are there."""
    found: dict[str, list[int]] = {}
    for s in program.residents:
        found.setdefault(s.category, []).append(s.nbytes)
    kept: dict[int, int] = {}
    for step in program.events:
        if step.phase not in ("forward", "loss"):
            break
        if step.storage.category == "activation":
            if plain(step.delta) > 0:
                kept[step.storage.id] = step.storage.nbytes
            else:
                kept.pop(step.storage.id, None)
    found["activation"] = list(kept.values())
    found["gradient"] = [n for _, n in _gradients(program)]
    return {category: added(sizes) for category, sizes in found.items() if sizes}


def shares(graph: Graph, program: LiveSets) -> dict[str, Share]:
    """The layers in order; a shared parameter counts at the layer that reads it first."""
    kept: dict[str, list[int]] = {}
    for step in program.events:
        if plain(step.delta) > 0 and step.storage.category == "activation":
            kept.setdefault(step.storage.layer, []).append(step.storage.nbytes)
    gradients: dict[str, list[int]] = {}
    for name, n in _gradients(program):
        gradients.setdefault(name, []).append(n)
    owned = {p.name: nbytes(p.shape, p.dtype) for p in graph.parameters if not p.buffer}
    found = {}
    for layer in graph.layers:
        own = [name for name in dict.fromkeys(layer.reads) if name in owned]
        specs = [program.values[name] for name in layer.outputs if name in program.values]
        with recording(None):
            outputs = [nbytes(s.shape, s.dtype) for s in specs]
        found[layer.name] = Share(
            activation=added(kept.pop(layer.name, ())),
            output=added(outputs),
            parameter=added(owned.pop(name) for name in own),
            gradient=added(n for name in own for n in gradients.pop(name, ())),
        )
    for name, sizes in kept.items():
        found[name] = Share(activation=added(sizes), output=0, parameter=0, gradient=0)
    return found


def _gradients(program: LiveSets) -> list[tuple[str, int]]:
    """(parameter, bytes) of every gradient that reaches a parameter."""
    prefix = "gradient of "
    return [
        (s.reason.removeprefix(prefix), s.nbytes)
        for s in {step.storage.id: step.storage for step in program.events}.values()
        if s.category == "gradient" and s.reason.startswith(prefix)
    ]


def added(sizes: Iterable[int]) -> int | Expr:
    """The sum of symbolic sizes as an expression; scratchpads, which have none, are no part of it."""
    total: int = 0
    with recording(None):
        for n in sizes:
            if not (isinstance(n, Dim) and isinstance(n.expr, Opaque)):
                total = total + n
    return expression(total)
