"""What the system shows of a process that reads a model, compiles it and runs it from Python: at most, resident.

A model, calibrated over all measured networks at once and never for one (``process.json`` has its numbers, how many measurements they rest
on, and how far off it is). Two moments can be the largest: reading a file with the weights in it, which holds it twice, and running, which
holds the weights, their packed copies, the pool, what goes in and out, the plugin's own pages, and code and objects for each node.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from memest.machines.engines import OpenVinoSettings
from memest.memory.figure import Figure, modelled
from memest.memory.stream import Stream
from memest.sizes.units import format_bytes

DATA = Path(__file__).with_name("process.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled(Stream):
    """The call of a compiled model, and what stands around it: bytes of ``weights`` as the file has them, of ``packed`` copies, of what is
    read and returned (``caller``), and how many ``nodes`` run."""

    weights: int
    packed: int
    caller: int
    nodes: int


@cache
def measured() -> dict[str, Any]:
    """The numbers of the model, in bytes."""
    found: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return found


def expected(stream: Compiled, pool: int, settings: OpenVinoSettings) -> int:
    """Bytes resident at most, where nothing is off."""
    numbers = measured()
    reading = numbers["reading"] + 2 * stream.weights if settings.weights == "onnx" else 0
    caller = stream.caller * max(settings.requests, settings.streams or 1)
    running = stream.weights + stream.packed + pool + caller + numbers["running"] + numbers["node"] * stream.nodes
    return round(float(numbers["base"] + max(reading, running)))


def process_of(stream: Compiled, pool: int, settings: OpenVinoSettings) -> Figure:
    """The resident peak with its range."""
    numbers, nbytes = measured(), expected(stream, pool, settings)
    low, high = nbytes - numbers["below"], nbytes + numbers["above"]
    if settings.weights != "onnx" or (settings.streams or 1) > 1 or settings.requests > 1:
        low, high = low - numbers["below"], high + numbers["above"]
    reason = (
        f"a Python process with numpy and openvino ({format_bytes(numbers['base'])}), weights, their packed copies, the pool, the plugin, "
        f"and {stream.nodes} nodes with their code; modelled from {numbers['cases']} measurements, of which half are within "
        f"{numbers['median']:.1%} and all within {numbers['worst']:.1%}"
    )
    return modelled(nbytes, max(low, 0), high, reason)
