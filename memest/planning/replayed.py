"""The figures of one question at many sizes where an allocator is played: each size is an estimate of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memest.errors import MemestError
from memest.estimate.estimate import Estimate, answer
from memest.estimate.question import Question
from memest.network.graph import Graph
from memest.planning.grids import Grid
from memest.planning.peaks import Peaks, Refused

MOST_REPLAYED = 2_000  # points of a sweep at which the allocator is played
NAMES = ("allocated", "reserved", "process")
COLUMNS = tuple(f"{name}{end}_bytes" for name in NAMES for end in ("", "_low", "_high"))
WORDS = (
    "peak_bytes is allocated_bytes; requested_bytes is before the allocator rounds blocks",
    "reserved_bytes and process_bytes are by replay; from low to high where they are modelled",
)
Column = NDArray[Any]


def said_of_more(points: int) -> str:
    """Which figure a sweep shows of more points than the allocator is played at."""
    return (
        f"{points:,} points are more than the allocator is played at ({MOST_REPLAYED:,}): requested_bytes alone, before blocks are "
        "rounded; narrow an axis for allocated, reserved and process"
    )


def replayed(graph: Graph, asking: Question, grid: Grid, tell: Callable[[int], None]) -> tuple[Peaks, Mapping[str, Column]]:
    """What is asked for at each configuration, and what the allocator makes of it by name (see ``COLUMNS``); -1 for those refused.
    ``tell`` is called with how many are done."""
    standing, requested = (np.full(grid.points, -1, dtype=np.int64) for _ in range(2))
    figures = {name: np.full(grid.points, -1, dtype=np.int64) for name in COLUMNS}
    refused: list[Refused] = []
    for row in range(grid.points):
        tell(row)
        at = grid.row(row)
        try:
            found = answer(
                graph, asking, {i.name: tuple(d if isinstance(d, int) else d.evaluate(at) for d in i.shape) for i in graph.inputs}
            )
            numbers = _numbers(found)
        except MemestError as e:
            refused.append(Refused(row, e))
            continue
        standing[row], requested[row] = found.standing_bytes, found.requested_bytes
        for name, number in numbers.items():
            figures[name][row] = number
    return Peaks(standing, requested, tuple(refused)), figures


def _numbers(found: Estimate) -> dict[str, int]:
    """Every figure's bytes, the least and the most."""
    numbers: dict[str, int] = {}
    for name in NAMES:
        figure = getattr(found, name)
        for end, number in (("", figure.bytes), ("_low", figure.low), ("_high", figure.high)):
            assert number is not None, "an allocator that is played gives every figure"
            numbers[f"{name}{end}_bytes"] = number
    return numbers
