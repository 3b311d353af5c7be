"""One inference call laid out in memory: what each planner takes, against no reuse at all.

>>> plan = plan_inference(graph, input_shape=(1, 1, 128, 128, 128))
>>> [(row.planner, row.nbytes, row.factor) for row in plan.rows]

The network's own tensors (parameters, buffers) and its inputs stand apart: a planner places what the call allocates. Every plan is
checked for overlaps before it is handed out, by code that no planner shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from memest.errors import UsageError, did_you_mean, kind_of
from memest.estimate.asked import machine
from memest.estimate.estimate import Estimate, answer
from memest.estimate.inputs import InputShape
from memest.estimate.question import Settings, question
from memest.machines.gpu import Gpu
from memest.memory.planners import PLANNERS
from memest.memory.planners.blocks import Block, Plan, blocks_of
from memest.memory.planners.check import overlaps
from memest.memory.planners.files import written
from memest.memory.planners.lower_bound import lower_bound
from memest.network.dtypes import ITEMSIZE
from memest.network.graph import Graph, as_graph
from memest.network.tensor import Shape, nbytes
from memest.planning.arena.ways import Reach
from memest.planning.arena.windows import reach_of
from memest.planning.cutting import checked_halo
from memest.shown import Shown, counted, short
from memest.sizes import asked

if TYPE_CHECKING:
    from typing_extensions import Unpack

NULL, FACTOR = "null", 16.0
ALIGNMENT = 64  # bytes: a cache line, and what most engines round a tensor up to


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a planner takes in bytes, and how many times less that is than without reuse. The lower bound is no planner: it has no plan."""

    planner: str
    nbytes: int
    factor: float
    plan: Plan | None


@dataclass(frozen=True, kw_only=True)
class InferencePlan(Shown):
    """The call (``estimate``), its ``blocks`` with the layer that made each, and a row a planner, no reuse first and the bound last."""

    estimate: Estimate
    alignment: int
    blocks: tuple[Block, ...]
    layers: tuple[str, ...]
    rows: tuple[Planned, ...]

    def __repr__(self) -> str:
        best = min((r for r in self.rows if r.plan is not None), key=lambda r: r.nbytes)
        return (
            f"<InferencePlan of {short(self.estimate.graph)}: {counted(len(self.blocks), 'block')}, {best.planner} {best.nbytes:,} bytes>"
        )

    @property
    def standing_bytes(self) -> int:
        """Parameters, buffers and inputs, which no planner places."""
        return self.estimate.standing_bytes

    def of(self, planner: str) -> Planned:
        """The row of a planner; UsageError for one that is none."""
        found = {r.planner: r for r in self.rows}
        if planner not in found:
            raise UsageError(f"unknown planner {planner!r}{did_you_mean(planner, found) or '; there are ' + ', '.join(found)}")
        return found[planner]

    def plan(self, planner: str) -> Plan:
        """The plan of a planner; UsageError for the bound, which is none."""
        found = self.of(planner).plan
        if found is None:
            raise UsageError(f"{planner} is a bound, not a plan; take one of {', '.join(PLANNERS)}")
        return found

    def to_csv(self, planner: str) -> str:
        """``id,lower,upper,size,offset``, a line a block: what minimalloc reads and writes."""
        return written(self.blocks, self.plan(planner))

    def reach(self, factor: float = FACTOR, halo: int | Sequence[int] | None = None) -> Reach:
        """How far the call's memory comes down against no reuse, by what, and the smallest change whose factor is ``factor`` or more.
        Windows drop a ``halo`` on each side (one number, or one a dim; None: all that the network sees, which keeps results the same).
        UsageError where another runtime than null was asked for, whose scratch these ways know nothing of."""
        if self.estimate.runtime != NULL:
            raise UsageError(f"how far a call's memory comes down is told of the runtime null, not of {self.estimate.runtime}")
        if not isinstance(factor, int | float) or isinstance(factor, bool) or not factor > 0:
            raise UsageError(f"factor is a number above 0, got {factor!r:.60}")
        return reach_of(self.estimate, self.alignment, factor, checked_halo(halo))


def plan_inference(
    graph: Graph, *, input_shape: InputShape | None = None, alignment: int = ALIGNMENT, **settings: Unpack[Settings]
) -> InferencePlan:
    """The plans of one inference call of ``graph``. ``settings`` are those of :func:`memest.estimate`; left out, ``mode`` is ``infer`` and
    ``runtime`` is ``null``, whose operators allocate their outputs and nothing else (``torch-cuda`` where ``machine`` is a card).
    ``alignment`` is what sizes are rounded up to, in bytes, a power of two. Raises UsageError for another mode or alignment, and what
    ``estimate`` raises."""
    graph = as_graph(graph, "plan_inference")
    whole = asked.whole(alignment)
    if whole is None or whole < 1 or whole & (whole - 1):
        raise UsageError(f"alignment is a power of two, in bytes, got {kind_of(alignment)}")
    on_card = isinstance(machine(settings.get("machine")), Gpu)
    given = {} if "device" in settings or on_card else {"runtime": NULL}
    asking = question(graph, {"mode": "infer", **given, **settings}, "plan_inference")
    if asking.training:
        raise UsageError("plan_inference plans inference: leave mode out, or give 'infer'")
    found = answer(graph, asking, asked.shapes(input_shape))
    made = blocks_of(found.timeline, whole)
    kinds = _kinds(found)
    blocks = tuple(replace(block, kind=kinds.get((storage.layer, storage.nbytes))) for block, storage in made)
    plans = {name: plan(blocks) for name, plan in PLANNERS.items()}
    for name, plan in plans.items():
        wrong = overlaps(blocks, plan)
        assert not wrong, f"{name}: {wrong[0]}"
    most = plans["no_reuse"].nbytes
    bytes_by = {**{name: p.nbytes for name, p in plans.items()}, "lower_bound": lower_bound(blocks)}
    return InferencePlan(
        estimate=found,
        alignment=whole,
        blocks=blocks,
        layers=tuple(storage.layer for _, storage in made),
        rows=tuple(Planned(planner=n, nbytes=b, factor=most / b if b else 1.0, plan=plans.get(n)) for n, b in bytes_by.items()),
    )


def _kinds(found: Estimate) -> dict[tuple[str, int], tuple[Shape, int]]:
    """Shape and bytes an element of what layers give, by layer and bytes."""
    values = found.timeline.values
    specs = [(layer.name, values[name]) for layer in found.played.layers for name in layer.outputs if name in values]
    return {(layer, nbytes(s.shape, s.dtype)): (tuple(s.shape), ITEMSIZE[s.dtype]) for layer, s in specs}


def planner_named(name: str) -> str:
    """A planner's name; UsageError for one that is none."""
    if name not in PLANNERS:
        raise UsageError(f"unknown planner {name!r}{did_you_mean(name, PLANNERS) or '; there are ' + ', '.join(PLANNERS)}")
    return name
