"""The caching allocator played over the steps of a job."""

from __future__ import annotations

from memest.machines.target import Target
from memest.memory.figure import Figures, unknown
from memest.runtimes.runtime import Steps


def figures_of(steps: Steps, target: Target) -> Figures:
    """What the allocator hands out and takes."""
    nothing = unknown("not counted yet")
    return Figures(allocated=nothing, reserved=nothing, process=nothing)
