"""The moment at which a step holds most, and what is alive then."""

from __future__ import annotations

from dataclasses import dataclass

from memest.memory.stream import Storage, Stream

CATEGORIES = ("parameter", "buffer", "gradient", "optimizer_state", "input", "activation", "temporary", "workspace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Where in the step something happens: number of the event, phase, layer and operator."""

    index: int
    phase: str
    layer: str
    op: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A storage alive at the peak: its bytes, category, the layer that made it and why it is still there."""

    nbytes: int
    category: str
    layer: str
    op: str
    reason: str


def moment_of(timeline: Stream, event: int) -> Moment:
    """The moment of the event of that number; of -1, before any."""
    if event < 0:
        return Moment(index=-1, phase="standing", layer="", op="")
    step = timeline.events[event]
    return Moment(index=event, phase=step.phase, layer=step.layer, op=step.op)


def held_at(timeline: Stream, event: int) -> tuple[Holding, ...]:
    """What is alive after the event of that number, largest first."""
    alive: dict[int, Storage] = {s.id: s for s in timeline.residents}
    for step in timeline.events[: event + 1]:
        if step.delta > 0:
            alive[step.storage.id] = step.storage
        else:
            alive.pop(step.storage.id, None)
    found = [Holding(nbytes=s.nbytes, category=s.category, layer=s.layer, op=s.op, reason=s.reason) for s in alive.values() if s.nbytes]
    return tuple(sorted(found, key=lambda h: -h.nbytes))
