"""What a report says beyond the peak: the holdings by owner with their reason, the high moments, one row a layer.

Everything is read off the timeline an Estimate carries: storages are counted once, by identity. Nothing is formatted here.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from memest.estimate.estimate import Estimate
from memest.estimate.peak import Holding
from memest.network.graph import at_sizes
from memest.network.tensor import Shape, nbytes, numel
from memest.runtimes.torch.step.acting import ACTIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Storages alive at the peak with one owner, category and reason: their bytes, their number, their share of the peak."""

    nbytes: int
    share: float
    tensors: int
    category: str
    layer: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """One allocation or release: what it moved, and the bytes alive after it (resident ones included)."""

    index: int
    phase: str
    layer: str
    op: str
    category: str
    delta_bytes: int
    alive_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """One layer: what comes out, what it owns, and what of its allocations is kept for backward (0 in inference)."""

    name: str
    op: str
    output_shapes: tuple[Shape, ...]
    parameters: int
    parameter_bytes: int
    activation_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTable:
    """All layers, and the totals over the network."""

    rows: tuple[LayerRow, ...]
    parameters: int
    trainable: int
    parameter_bytes: int
    buffer_bytes: int
    activation_bytes: int


def holdings_by_reason(estimate: Estimate) -> tuple[Group, ...]:
    """What is alive at the peak, by (owner, category, reason), largest first."""
    found: dict[tuple[str, str, str], list[int]] = {}
    for h in estimate.holdings:
        found.setdefault((h.layer, h.category, reason_of(h, estimate)), []).append(h.nbytes)
    peak = max(estimate.peak_bytes, 1)
    groups = [
        Group(nbytes=sum(sizes), share=sum(sizes) / peak, tensors=len(sizes), category=category, layer=layer, reason=reason)
        for (layer, category, reason), sizes in found.items()
    ]
    return tuple(sorted(groups, key=lambda g: -g.nbytes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """What one owner holds of one category at the peak. The small ones of a category may stand together, without a layer."""

    nbytes: int
    tensors: int
    category: str
    layer: str


def tiles_at_peak(estimate: Estimate, smallest: int = 0) -> tuple[Tile, ...]:
    """The live set at the peak by category and owner: the largest category first, in it the largest owner. Owners below ``smallest`` bytes
    become one tile of their category, the last in it."""
    found: dict[tuple[str, str], list[int]] = {}
    for h in estimate.holdings:
        found.setdefault((h.category, h.layer), []).append(h.nbytes)
    merged: dict[tuple[str, str], list[int]] = {}
    for (category, layer), sizes in found.items():
        merged.setdefault((category, layer if sum(sizes) >= smallest else ""), []).extend(sizes)
    tiles = [Tile(nbytes=sum(n), tensors=len(n), category=category, layer=layer) for (category, layer), n in merged.items()]
    totals = estimate.by_category()
    return tuple(sorted(tiles, key=lambda t: (-totals[t.category], t.category, not t.layer, -t.nbytes)))


def reason_of(holding: Holding, estimate: Estimate) -> str:
    """Why a storage is alive: the rule's own words, or what its category says."""
    if holding.reason:
        return holding.reason
    plain = {
        "parameter": "the network owns it",
        "buffer": "the network owns it",
        "input": "the caller holds it",
        "optimizer_state": f"state of {estimate.optimizer or 'the optimizer'}",
        "gradient": "gradient on its way back",
        "workspace": f"scratch inside {holding.op}",
    }
    return plain.get(holding.category, f"made by {holding.op}, not dropped yet")


def event_rows(estimate: Estimate) -> tuple[EventRow, ...]:
    """Every event in order."""
    totals = accumulate((s.delta for s in estimate.events), initial=estimate.standing_bytes)
    next(totals)
    return tuple(
        EventRow(index=i, phase=s.phase, layer=s.layer, op=s.op, category=s.storage.category, delta_bytes=s.delta, alive_bytes=alive)
        for i, (s, alive) in enumerate(zip(estimate.events, totals, strict=True))
    )


def high_moments(events: tuple[EventRow, ...], count: int) -> tuple[EventRow, ...]:
    """The ``count`` highest moments, one for each (phase, layer, operator), highest first."""
    best: dict[tuple[str, str, str], EventRow] = {}
    for e in events:
        key = (e.phase, e.layer, e.op)
        if key not in best or e.alive_bytes > best[key].alive_bytes:
            best[key] = e
    return tuple(sorted(best.values(), key=lambda e: (-e.alive_bytes, e.index))[:count])


def phase_peaks(events: tuple[EventRow, ...]) -> tuple[EventRow, ...]:
    """The highest moment of each phase, in the order of the phases."""
    best: dict[str, EventRow] = {}
    for e in events:
        if e.phase not in best or e.alive_bytes > best[e.phase].alive_bytes:
            best[e.phase] = e
    return tuple(best.values())


def layer_table(estimate: Estimate) -> LayerTable:
    """One row a layer, in order. A shared parameter is counted at the layer that reads it first; an activation at the layer that made its
    storage, once, however many keep it. The loss has a row of its own when it keeps something."""
    played = estimate.played
    kept = _kept(estimate)
    owned = {p.name: p for p in played.parameters}
    rows: list[LayerRow] = []
    for layer in played.layers:
        reads = () if layer.op in ACTIONS else dict.fromkeys(layer.reads)
        own = [owned.pop(n) for n in reads if n in owned and not owned[n].buffer]
        specs = [estimate.timeline.values[n] for n in layer.outputs if n in estimate.timeline.values]
        rows.append(
            LayerRow(
                name=layer.name,
                op=layer.op,
                output_shapes=tuple(s.shape for s in specs),
                parameters=sum(numel(p.shape) for p in own),
                parameter_bytes=sum(nbytes(p.shape, p.dtype) for p in own),
                activation_bytes=kept.pop(layer.name, 0),
            )
        )
    rows += [LayerRow(name=n, op=n, output_shapes=(), parameters=0, parameter_bytes=0, activation_bytes=b) for n, b in kept.items()]
    weights = [p for p in played.parameters if not p.buffer]
    buffers = [p for p in played.parameters if p.buffer and p.gradient_of is None and p.state_of is None]
    return LayerTable(
        rows=tuple(rows),
        parameters=sum(numel(p.shape) for p in weights),
        trainable=sum(numel(p.shape) for p in weights if p.trainable),
        parameter_bytes=sum(nbytes(p.shape, p.dtype) for p in weights),
        buffer_bytes=sum(nbytes(at_sizes(p, estimate.sizes).shape, p.dtype) for p in buffers),
        activation_bytes=sum(r.activation_bytes for r in rows),
    )


def _kept(estimate: Estimate) -> dict[str, int]:
    """Bytes of activations by the layer that made them."""
    found: dict[str, int] = {}
    for step in estimate.events:
        if step.delta > 0 and step.storage.category == "activation":
            found[step.storage.layer] = found.get(step.storage.layer, 0) + step.delta
    return found
