"""The resident peak of a process with a session, above what it has after importing onnxruntime."""

from __future__ import annotations

from memest.memory.figure import Figure, unknown


def process_of() -> Figure:
    """Not yet."""
    return unknown("not modelled yet")
