"""What the system shows of a Python process that builds a Keras model and runs it: at most, resident.

A model, calibrated over all measured networks at once and never for one (``process.json`` has its numbers, and how far off they are).
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from memest.machines.engines import TensorFlowSettings
from memest.memory.figure import Figure, modelled
from memest.memory.stream import Stream
from memest.runtimes.tensorflow.memory import Arena
from memest.sizes.units import format_bytes

DATA = Path(__file__).with_name("process.json")


@cache
def measured() -> dict[str, Any]:
    """The numbers of the model, in bytes and shares."""
    found: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return found


def process_of(stream: Stream, allocated: Figure, arena: Arena, settings: TensorFlowSettings, inputs: int) -> Figure:
    """The resident peak with its range."""
    numbers = measured()
    nodes = getattr(stream, "nodes", 0)
    assert allocated.bytes is not None and allocated.low is not None and allocated.high is not None
    tensors = arena.touched + arena.small + inputs if settings.onednn == "on" else allocated.bytes
    around = numbers["base"] + numbers["node"] * nodes
    nbytes = round(tensors + around)
    low = round((min(tensors, allocated.low) + around) * (1 - numbers["below"]))
    high = round((max(tensors, allocated.high) + around) * (1 + numbers["above"]))
    reason = (
        f"a Python process with numpy, keras and tensorflow ({format_bytes(round(numbers['base']))}), {nodes:,} nodes with their kernels, "
        f"and {format_bytes(tensors)} of tensors; modelled from {numbers['cases']} measurements, of which half are within "
        f"{numbers['median']:.1%} and all within {numbers['worst']:.1%}"
    )
    return modelled(nbytes, max(low, 0), high, reason)
