"""Two estimates side by side: what moved, category by category and layer by layer.

Promises: the differences of the categories, and those of the layers, add up to the difference of the peaks, to the byte, because both
lists are what is alive at the two peaks; where an allocator is played, with a row for what its blocks hold beyond what was asked for. A
layer's row holds all that is its own: what it made, its parameters and buffers, their
gradients and optimizer state. Refuses to pair layers of different names: a layer that one side alone has is marked, not guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from memest.errors import UsageError, kind_of
from memest.estimate.estimate import Estimate
from memest.estimate.peak import CATEGORIES
from memest.memory.figure import Figure
from memest.shown import short

Side = Literal["both", "a", "b"]
ROUNDING = "block rounding"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRow:
    """One category or layer: its bytes at either peak, and on which sides it exists at all (in the network, alive or not)."""

    name: str
    a_bytes: int
    b_bytes: int
    side: Side

    @property
    def difference_bytes(self) -> int:
        """b's bytes less a's."""
        return self.b_bytes - self.a_bytes


class ComparedFigure(NamedTuple):
    """A figure of either side, both known, each with its range."""

    name: str
    a: Figure
    b: Figure

    @property
    def difference_bytes(self) -> int:
        """b's expected bytes less a's."""
        assert self.a.bytes is not None and self.b.bytes is not None
        return self.b.bytes - self.a.bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two estimates and their rows, the largest difference first."""

    a: Estimate
    b: Estimate
    categories: tuple[ComparedRow, ...]
    layers: tuple[ComparedRow, ...]

    def __repr__(self) -> str:
        return f"<Comparison of {short(self.a.graph)} and {short(self.b.graph)}: {self.peak_difference:+,} bytes>"

    @property
    def peak_difference(self) -> int:
        """b's peak less a's, in bytes."""
        return self.b.peak_bytes - self.a.peak_bytes

    @property
    def figures(self) -> tuple[ComparedFigure, ...]:
        """Each figure that both know, where an allocator is played or the process counted; else none."""
        if not any(e.figures.event is not None or e.recipe.target.process is not None for e in (self.a, self.b)):
            return ()
        pairs = [ComparedFigure(name, getattr(self.a, name), getattr(self.b, name)) for name in ("allocated", "reserved", "process")]
        return tuple(found for found in pairs if found.a.bytes is not None and found.b.bytes is not None)

    @property
    def standing_difference(self) -> int:
        """What b holds before the step less what a does, in bytes."""
        return self.b.standing_bytes - self.a.standing_bytes


def compare(a: Estimate, b: Estimate) -> Comparison:
    """What moves from ``a`` to ``b``: positive differences are bytes that ``b`` needs more."""
    for e in (a, b):
        if not isinstance(e, Estimate):
            raise UsageError(f"compare takes two estimates, got {kind_of(e)}; memest.estimate(graph, input_shape=...) gives one")
    return Comparison(
        a=a,
        b=b,
        categories=_rows(_filled(a, a.by_category()), _filled(b, b.by_category()), (*CATEGORIES, ROUNDING), (*CATEGORIES, ROUNDING)),
        layers=_rows(
            _filled(a, _by_layer(a)), _filled(b, _by_layer(b)), (*_owners(a).values(), ROUNDING), (*_owners(b).values(), ROUNDING)
        ),
    )


def _filled(estimate: Estimate, found: dict[str, int]) -> dict[str, int]:
    """What is alive by name, and what the allocator's blocks hold besides."""
    besides = estimate.peak_bytes - sum(found.values())
    return {**found, ROUNDING: besides} if besides else found


def _rows(a: Mapping[str, int], b: Mapping[str, int], in_a: Iterable[str], in_b: Iterable[str]) -> tuple[ComparedRow, ...]:
    """One row for each name with bytes on either side; equal differences stay in the order of ``a``, then of ``b``."""
    known_a, known_b = {*in_a, *a}, {*in_b, *b}
    rows = [
        ComparedRow(
            name=n, a_bytes=a.get(n, 0), b_bytes=b.get(n, 0), side="both" if n in known_a & known_b else "a" if n in known_a else "b"
        )
        for n in dict.fromkeys((*a, *b))
    ]
    return tuple(sorted(rows, key=lambda r: -abs(r.difference_bytes)))


def _by_layer(estimate: Estimate) -> dict[str, int]:
    """Bytes alive at the peak by layer, a parameter's under the layer that reads it first."""
    owners = _owners(estimate)
    totals: dict[str, int] = {}
    for h in estimate.holdings:
        owner = owners.get(h.layer, h.layer)
        totals[owner] = totals.get(owner, 0) + h.nbytes
    return totals


def _owners(estimate: Estimate) -> dict[str, str]:
    """Every layer, and the layer of every parameter and buffer."""
    graph = estimate.played
    parameters = {p.name for p in graph.parameters}
    owners = {layer.name: layer.name for layer in graph.layers}
    for layer in graph.layers:
        for name in layer.reads:
            if name in parameters:
                owners.setdefault(name, layer.name)
    return owners
