"""How far a network sees: which inputs one position of the output depends on, from the geometry of its layers.

Position i of a value depends on the inputs from ``i * jump - left`` to ``i * jump + right`` along each spatial dim, where nothing is
padded. What each row sees is among its facts: a window widens that reach, what is pointwise joins the reach of what it reads (the deepest
path wins). Normalisation over a sample (instance, group norm) counts as pointwise: its statistics are those of the window it sees, and a
window's result then is an approximation, as it is in nnU-Net. What reaches everywhere (global pooling, a linear layer over pixels,
attention) has no such field: UnsupportedError names the layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from memest.errors import UnsupportedError
from memest.network.graph import Graph, Layer
from memest.network.tensor import Shape
from memest.ops.facts import Window, Windows
from memest.ops.table import operator_named


@dataclass(frozen=True, slots=True)
class Reach:
    """Of one value along one dim."""

    jump: Fraction
    left: Fraction
    right: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceptiveField:
    """Inputs to either side that an output position depends on, one entry a spatial dim, and the coarsest step of the network: windows
    that begin at its multiples see what the whole volume would show them."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    step: tuple[int, ...]

    @property
    def halo(self) -> tuple[int, ...]:
        """The least multiple of the step that covers the field on both sides."""
        return tuple(ceil(max(a, b) / s) * s for a, b, s in zip(self.left, self.right, self.step, strict=True))


def receptive_field(graph: Graph) -> ReceptiveField:
    """The field of the first output; UnsupportedError names a layer whose reach is not known or has no end."""
    graph = graph if graph.inference is None else graph.inference
    dims = len(graph.inputs[0].shape) - 2
    start = (Reach(Fraction(1), Fraction(0), Fraction(0)),) * dims
    reaches: dict[str, tuple[Reach, ...]] = {i.name: start for i in graph.inputs if len(i.shape) == dims + 2}
    coarsest = [Fraction(1)] * dims
    weights = {p.name: p.shape for p in graph.parameters}
    for layer in graph.layers:
        read = [reaches[name] for name in layer.reads if name in reaches]
        if not read:
            continue
        try:
            reach = _after(read, _windows(layer, weights, dims))
        except UnsupportedError as e:
            raise e.at(f"layer {layer.name!r} ({layer.op})") from None
        coarsest = [max(c, r.jump) for c, r in zip(coarsest, reach, strict=True)]
        reaches.update(dict.fromkeys(layer.outputs, reach))
    found = reaches[graph.outputs[0]]
    if any(r.jump != 1 for r in found):
        raise UnsupportedError(f"{graph.name}: the output is not of the input's size; windows cannot be joined")
    return ReceptiveField(
        left=tuple(ceil(r.left) for r in found), right=tuple(ceil(r.right) for r in found), step=tuple(ceil(c) for c in coarsest)
    )


def _windows(layer: Layer, weights: Mapping[str, Shape], dims: int) -> Windows:
    """What the layer's row sees along each dim."""
    row = operator_named(layer.op)
    shapes = [weights.get(t) if isinstance(t, str) else None for t in layer.tensors]
    return row.facts.reach.windows(row.canonical(dict(layer.attributes)), shapes, dims)


def _after(read: list[tuple[Reach, ...]], windows: Windows) -> tuple[Reach, ...]:
    """The reach of a layer's output along each dim, from those of what it reads."""
    return tuple(_joined(along, window) for *along, window in zip(*read, windows, strict=True))


def _joined(read: list[Reach], window: Window | None) -> Reach:
    """The reach along one dim."""
    if window is None:
        raise UnsupportedError("how far it sees is not known here, or has no end; give a halo")
    if len({r.jump for r in read}) > 1:
        raise UnsupportedError("joins values of different steps; give a halo")
    jump, left, right = read[0].jump, max(r.left for r in read), max(r.right for r in read)
    return Reach(window.step * jump, left + window.left * jump, right + window.right * jump)
