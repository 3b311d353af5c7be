"""Planners by name: blocks in, an offset for each out. Whether a plan holds is said by :mod:`memest.memory.planners.check`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memest.memory.planners.best_fit import best_fit
from memest.memory.planners.blocks import Block, Plan
from memest.memory.planners.greedy_by_breadth import greedy_by_breadth
from memest.memory.planners.greedy_by_size import greedy_by_size, openvino_solver, tflite_arena
from memest.memory.planners.hill_climb import hill_climb
from memest.memory.planners.no_reuse import no_reuse
from memest.memory.planners.same_shape import same_shape

PLANNERS: dict[str, Callable[[Sequence[Block]], Plan]] = {
    "no_reuse": no_reuse,
    "same_shape": same_shape,
    "best_fit": best_fit,
    "greedy_by_breadth": greedy_by_breadth,
    "greedy_by_size": greedy_by_size,
    "tflite_arena": tflite_arena,
    "openvino_solver": openvino_solver,
    "hill_climb": hill_climb,
}
