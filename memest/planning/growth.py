"""The peak as the input grows: one network at many sides and batches, and what still fits a capacity.

Every spatial size of the input is set to the side (a cube for a volume, a square for an image); sizes that are numbers in the graph, such
as channels, stay as they are. Promises the same bytes as one estimate after the other; a size that the network cannot run at (a U-Net
at a side that does not halve often enough) is kept as refused, with the reason. Refuses a network whose sizes are all fixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memest.errors import MemestError, UsageError
from memest.estimate.estimate import answer
from memest.estimate.question import Settings, question
from memest.machines.claims import Source
from memest.machines.versions import Torch
from memest.network.graph import Graph
from memest.network.tensor import Shape
from memest.planning.progress import tell
from memest.runtimes.table import runtime_named
from memest.sizes.dims import Expr

if TYPE_CHECKING:
    from typing_extensions import Unpack

MAX_POINTS = 10_000
ORIGIN_SIDES = (32, 64, 128, 144, 200, 240, 320)
ORIGIN_BATCHES = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The peak at one side and batch; ``input_shape`` is the first input's."""

    side: int
    batch: int
    input_shape: Shape
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A side at which the network cannot run, and why."""

    side: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Points by batch, then side, both ascending; the sides that were refused; what was asked, and of which torch."""

    graph: str
    how: str
    torch: Torch
    source: Source
    points: tuple[Point, ...]
    refused: tuple[Refusal, ...] = ()

    @property
    def figure(self) -> str:
        """What the points are: the ``peak``, or what is ``allocated`` where an allocator is played."""
        return "allocated" if self.source.accelerator else "peak"

    @property
    def sides(self) -> tuple[int, ...]:
        """All sides."""
        return tuple(dict.fromkeys(p.side for p in self.points))

    @property
    def batches(self) -> tuple[int, ...]:
        """All batches."""
        return tuple(dict.fromkeys(p.batch for p in self.points))

    def peak_bytes(self, side: int, batch: int) -> int | None:
        """The peak at a side and batch; None where there is no point."""
        return next((p.peak_bytes for p in self.points if (p.side, p.batch) == (side, batch)), None)

    def largest_side(self, batch: int, capacity: int) -> int | None:
        """The largest side asked for whose peak is at most ``capacity`` bytes; None when none is."""
        return max((p.side for p in self.points if p.batch == batch and p.peak_bytes <= capacity), default=None)


def growth(
    graph: Graph, sides: Sequence[int] = ORIGIN_SIDES, batches: Sequence[int] = ORIGIN_BATCHES, **settings: Unpack[Settings]
) -> Growth:
    """The peaks of ``graph`` over sides x batches; ``settings`` are those of :func:`memest.estimate`.

    Raises UsageError for too many points or a graph of fixed sizes, and what the estimate raises when no size can be run."""
    sides, batches = sorted(set(sides)), sorted(set(batches))
    if not sides or not batches:
        raise UsageError("no sizes are given: name at least one side and one batch")
    if len(sides) * len(batches) > MAX_POINTS:
        raise UsageError(f"{len(sides):,} sides x {len(batches):,} batches are more than {MAX_POINTS:,} points; name fewer")
    asking = question(graph, settings, "growth")
    points: list[Point] = []
    refused: dict[int, MemestError] = {}
    for batch in batches:
        for side in sides:
            tell("sizes", len(points) + len(refused), len(sides) * len(batches))
            shapes = cube(graph, side, batch)
            try:
                found = answer(graph, asking, shapes)
            except MemestError as e:
                refused.setdefault(side, e)
                continue
            points.append(Point(side=side, batch=batch, input_shape=next(iter(shapes.values())), peak_bytes=found.peak_bytes))
    if not points:
        side, error = next(iter(refused.items()))
        raise error.at(f"{graph.name} at side {side}") from error.__cause__
    return Growth(
        graph=graph.name,
        how=f"{found.how}, {found.dtype}, {found.where}",
        torch=found.torch,
        source=runtime_named(found.runtime).source,
        points=tuple(points),
        refused=tuple(Refusal(side=s, reason=str(e)) for s, e in sorted(refused.items())),
    )


def cube(graph: Graph, side: int, batch: int) -> dict[str, Shape]:
    """The shape of each input with the first symbol of its first size as ``batch`` and every other symbol as ``side``."""
    first = graph.inputs[0].shape[0] if graph.inputs[0].shape else 1
    symbols = {d.text for i in graph.inputs for d in i.shape if isinstance(d, Expr) and d.op == "symbol"}
    head = first.text if isinstance(first, Expr) else None
    if not symbols - {head}:
        raise UsageError(f"{graph.name}: the sizes of its input are numbers, there is no side to vary")
    if head is None and first != batch:
        raise UsageError(f"{graph.name}: its batch is fixed at {first}, got {batch}")
    sizes = {s: batch if s == head else side for s in symbols}
    return {i.name: tuple(d.evaluate(sizes) if isinstance(d, Expr) else d for d in i.shape) for i in graph.inputs}
