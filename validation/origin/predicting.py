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
def graph() -> Graph:
    """The network."""
    return memest.model(MODEL)


def tensors_bytes(cell: Cell) -> int | None:
    """The peak of torch's tensors, whichever the framework; None where the network cannot run."""
    try:
        return memest.estimate(graph(), input_shape=cell.shape, **_asked(cell)).peak_bytes
    except MemestError:
        return None


def predicted(cell: Cell) -> Predicted:
    """The figures; unknown ones say why."""
    settings = RUNTIMES[cell.framework]
    for left_out in ((), ("malloc",)):
        try:
            found = memest.estimate(
                graph(), input_shape=cell.shape, **_asked(cell), **{k: v for k, v in settings.items() if k not in left_out}
            )
            return Predicted(found.allocated, found.process)
        except MemestError as e:
            nothing = unknown(str(e))
    return Predicted(nothing, nothing)


def _asked(cell: Cell) -> dict[str, Any]:
    return {"mode": "train", "optimizer": OPTIMIZER, "loss": LOSS} if cell.mode == "train" else {"mode": "infer"}
