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
from memest.memory.stream import Stream
from memest.runtimes.tensorflow.memory import arena_of
from memest.sizes.units import format_bytes

DATA = Path(__file__).with_name("process.json")
WIDE = 1.25  # how much wider a range is than what was the worst of those measured


@cache
def measured() -> dict[str, Any]:
    """The numbers of the model, in bytes and shares."""
    found: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return found


def touched_of(stream: Stream, allocated: Figure, onednn: str) -> int:
    """Bytes of tensors that are resident at most: what was handed out of the arena, which never goes back, or what is alive at once."""
    assert allocated.bytes is not None
    if onednn == "off":
        return allocated.bytes
    arena = arena_of(stream)
    return arena.touched + arena.small + sum(s.nbytes for s in stream.residents if s.category == "input")


def process_of(stream: Stream, nodes: int, allocated: Figure, mode: str, onednn: str) -> Figure:
    """The resident peak with its range."""
    numbers = measured()
    assert allocated.bytes is not None and allocated.low is not None and allocated.high is not None
    own = numbers[f"{mode}_{onednn}"]
    tensors, around = touched_of(stream, allocated, onednn), own["base"] + own["node"] * nodes
    low, high = tensors - (allocated.bytes - allocated.low), tensors + (allocated.high - allocated.bytes)
    share = WIDE * numbers["worst"]
    reason = (
        f"a Python process with numpy, keras and tensorflow ({format_bytes(own['base'])}), {nodes:,} nodes with their kernels, and "
        f"{format_bytes(tensors)} of tensors; modelled from {numbers['cases']} measurements, of which half are within "
        f"{numbers['median']:.1%} and all within {numbers['worst']:.1%}"
    )
    return modelled(tensors + around, round((low + around) * (1 - share)), round((high + around) * (1 + share)), reason)
