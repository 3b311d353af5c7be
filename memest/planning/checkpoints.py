"""Which parts of a network to checkpoint so that a training step keeps to a budget.

>>> plan = plan_checkpoints(graph, budget="12GiB", input_shape=(8, 3, 224, 224), optimizer="adam")
>>> plan.fits, plan.recomputed_share, plan.lever

Every peak is played, none is modelled; the segments are found by a search, and others may be better still.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from memest.errors import MemestError, UsageError
from memest.estimate.estimate import Estimate, answer
from memest.estimate.inputs import InputShape
from memest.estimate.question import Settings, question
from memest.levers.checkpoints.choice import Option, choose
from memest.levers.checkpoints.survey import survey
from memest.network.graph import Graph, Segment, as_graph
from memest.shown import counted, short, visible
from memest.sizes import asked
from memest.sizes.units import format_bytes

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointPlan:
    """The segments to checkpoint and what they cost. Sizes are bytes, peaks those of the whole step."""

    plain: Estimate
    budget_bytes: int | None
    chosen: Option
    alternatives: tuple[Option, ...]

    def __repr__(self) -> str:
        return f"<CheckpointPlan {short(self.plain.graph)}: {counted(len(self.segments), 'segment')}, {self.peak_bytes:,} bytes>"

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Runs of layers by number, under the name of the module they are, or ``first..last``."""
        return self.chosen.segments

    @property
    def peak_bytes(self) -> int:
        """The peak with these segments."""
        return self.chosen.peak_bytes

    @property
    def recomputed_share(self) -> float:
        """Operations that run again, as a share of the forward's."""
        return self.chosen.recomputed_share

    @property
    def fits(self) -> bool:
        """True when the peak keeps to the budget (or there is none)."""
        return self.budget_bytes is None or self.peak_bytes <= self.budget_bytes

    @property
    def lever(self) -> str | None:
        """The lever that applies it; None when nothing needs to be checkpointed."""
        return f"checkpoint:modules={'+'.join(s.name for s in self.segments)}" if self.segments else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "graph": self.plain.graph,
            "budget_bytes": self.budget_bytes,
            "fits": self.fits,
            "plain_peak_bytes": self.plain.peak_bytes,
            **_option(self.chosen),
            "lever": self.lever,
            "alternatives": [_option(o) for o in self.alternatives],
        }

    def __str__(self) -> str:
        """One line a person reads."""
        least = "" if self.fits else " (no segments found keep to the budget; this is the least)"
        return (
            f"{visible(self.plain.graph)}: {format_bytes(self.peak_bytes)} instead of {format_bytes(self.plain.peak_bytes)},"
            f" {len(self.segments)} segments, {self.recomputed_share:.1%} of the forward again{least}"
        )


def plan_checkpoints(
    graph: Graph, *, budget: int | str | None = None, input_shape: InputShape | None = None, **settings: Unpack[Settings]
) -> CheckpointPlan:
    """The segments with which a training step of ``graph`` runs the fewest operations again and keeps to ``budget`` (bytes, or a text such
    as ``12GiB``); where none are found that do, or without a budget, those of the least memory.

    ``input_shape`` and ``settings`` are the keywords of :func:`memest.estimate`. ``alternatives`` are the options met on the way that
    none beats in both bytes and operations. Segments apply in torch by wrapping the module's forward in
    ``torch.utils.checkpoint.checkpoint`` with ``use_reentrant=False``. Raises UsageError for a budget that is no size and for a mode
    other than training, and what ``estimate`` raises.
    """
    graph = as_graph(graph, "plan_checkpoints")
    limit = None if budget is None else asked.budget(budget)
    asking = question(graph, settings, "plan_checkpoints")
    if not asking.training:
        raise UsageError("checkpoints are for training; inference keeps no activations")
    plain = answer(graph, asking, asked.shapes(input_shape))
    found = choose(plain.played, plain.input_shapes, plain.sizes, plain.recipe, limit)
    return CheckpointPlan(plain=plain, budget_bytes=limit, chosen=found.chosen, alternatives=found.front)


def _option(option: Option) -> dict[str, Any]:
    return {
        "peak_bytes": option.peak_bytes,
        "recomputed_share": option.recomputed_share,
        "segments": [{"name": s.name, "start": s.start, "end": s.end} for s in option.segments],
    }


def recomputed_share(e: Estimate) -> float | None:
    """Operations of an estimate's checkpointed segments that run again, as a share of the forward's; None where there are no segments,
    or where a step like it cannot be surveyed."""
    if not e.recipe.segments:
        return None
    try:
        found = survey(e.played, e.input_shapes, e.sizes, replace(e.recipe, segments=(), micro_batch=None, accumulate=None))
    except MemestError:
        return None
    again = set(e.timeline.ran_again)
    run = sum(n for layer, n in zip(e.played.layers, found.flops, strict=True) if layer.name in again)
    return run / max(1, sum(found.flops))
