"""What the system shows of a Python process that builds a Keras model and runs it: at most, resident.

A model, calibrated over all measured networks at once and never for one (``process.json`` has its numbers, how many measurements they rest
on, and how far off it is). Around the tensors there are Python with its libraries and, for each node of the graph, what tracing, grappler
and the kernels keep; that is taken while the graph is made, and stays.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from memest.memory.figure import Figure, modelled
from memest.runtimes.tensorflow.heap import resident_of
from memest.runtimes.tensorflow.memory import Step, arena_of
from memest.sizes.units import format_bytes

DATA = Path(__file__).with_name("process.json")
WIDE = 1.25  # how much wider a range is than what was the worst of those measured


@cache
def measured() -> dict[str, Any]:
    """The numbers of the model, in bytes and shares."""
    found: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return found


def kind_of(step: Step, onednn: str) -> str:
    """Which of the numbers are a step's."""
    return f"{'train' if step.trained else 'infer'}_{onednn}"


def terms_of(step: Step, onednn: str) -> dict[str, int]:
    """What the numbers are multiplied by, by their names."""
    terms = {"base": 1, "node": step.nodes}
    return {**terms, "filter": step.filters} if step.trained and onednn == "on" else terms


def touched_of(step: Step, onednn: str) -> int:
    """Bytes of tensors that are resident at most: what was handed out of the arena, which never goes back, and the largest weight again,
    which oneDNN reorders; or what malloc holds at once, in a step or while the largest weight is drawn, scaled and moved."""
    inputs = sum(s.nbytes for s in step.residents if s.category == "input")
    weights = [s.nbytes for s in step.residents if s.category == "parameter"]
    largest = max(weights, default=0)
    if onednn == "off":
        return inputs + max(resident_of(step), sum(weights) + 2 * largest)
    arena = arena_of(step)
    return arena.touched + arena.small + inputs + largest


def process_of(step: Step, allocated: Figure, onednn: str) -> Figure:
    """The resident peak with its range."""
    numbers = measured()
    assert allocated.bytes is not None and allocated.low is not None and allocated.high is not None
    own = numbers[kind_of(step, onednn)]
    tensors = touched_of(step, onednn)
    around = round(sum(own[name] * times for name, times in terms_of(step, onednn).items()))
    low, high = tensors - (allocated.bytes - allocated.low), tensors + (allocated.high - allocated.bytes)
    share = WIDE * numbers["worst"]
    reason = (
        f"a Python process with numpy, keras and tensorflow ({format_bytes(round(own['base']))}), {step.nodes:,} nodes with their kernels, "
        f"and {format_bytes(tensors)} of tensors; modelled from {numbers['cases']} measurements, of which half are within "
        f"{numbers['median']:.1%} and all within {numbers['worst']:.1%}"
    )
    return modelled(tensors + around, round((low + around) * (1 - share)), round((high + around) * (1 + share)), reason)
