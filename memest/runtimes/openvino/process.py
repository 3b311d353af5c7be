"""What the system shows of a process that has compiled a model and runs it."""

from __future__ import annotations

from memest.machines.cpu import Cpu
from memest.machines.engines import OpenVinoSettings
from memest.memory.figure import Figure, unknown
from memest.memory.stream import Stream


def process_of(stream: Stream, pool: int, cpu: Cpu, settings: OpenVinoSettings, precision: str) -> Figure:
    """Not modelled yet."""
    return unknown("not counted: the plugin, packed weights, and generated code")
