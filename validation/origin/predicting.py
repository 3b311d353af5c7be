"""What is predicted of a cell: the tensors' peak, exact, and the process around it, a range, where a runtime models it."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import memest
from memest.errors import MemestError
from memest.memory.figure import Figure, unknown
from memest.network.graph import Graph
from validation.origin.cells import LOSS, MODEL, OPTIMIZER, Cell

RUNTIMES: dict[str, dict[str, Any]] = {
    "torch": {"runtime": "torch-cpu", "torch": "2.13", "malloc": "glibc"},
    "tensorflow": {"runtime": "tensorflow-cpu", "onednn": "on"},
    "tensorflow without oneDNN": {"runtime": "tensorflow-cpu", "onednn": "off"},
}


class Predicted(NamedTuple):
    """What the step asks for, and what the process is predicted to hold."""

    allocated: Figure
    process: Figure


@cache
def graph(base_filters: int) -> Graph:
    """The network."""
    return memest.model(MODEL, base_filters=base_filters)


def tensors_bytes(cell: Cell) -> int | None:
    """The peak of torch's tensors, whichever the framework; None where the network cannot run."""
    try:
        return memest.estimate(graph(16), input_shape=cell.shape, mode=cell.mode, **_step(cell.mode)).peak_bytes
    except MemestError:
        return None


def predicted(cell: Cell) -> Predicted:
    """The figures of a cell."""
    return predicted_at(cell.shape, cell.framework, mode=cell.mode)


def predicted_at(
    shape: tuple[int, ...], framework: str, *, mode: str = "train", base_filters: int = 16, dtype: str | None = None
) -> Predicted:
    """The figures at any shape; unknown ones say why."""
    try:
        found = memest.estimate(graph(base_filters), input_shape=shape, mode=mode, dtype=dtype, **_step(mode), **RUNTIMES[framework])
        return Predicted(found.allocated, found.process)
    except MemestError as e:
        return Predicted(unknown(str(e)), unknown(str(e)))


def _step(mode: str) -> dict[str, Any]:
    return {"optimizer": OPTIMIZER, "loss": LOSS} if mode == "train" else {}
