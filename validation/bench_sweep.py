"""Sweeps beside one-by-one estimates and MemTracker: configurations of (batch, H, W) a second of CPU time, ResNet-50 training."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from memest.estimate.estimate import estimate
from memest.machines.cpu import Cpu
from memest.network.graph import Graph
from memest.planning.sweep import sweep, sweeps
from memest.planning.swept import Sweep

A_SECOND = 1_000_000  # of a sweep that compiles its step first
A_SECOND_IN_PARTS = 10_000_000  # of one so large that this hardly counts
SWEPT, ALONE, TRACKED = 3, 400, 3
AT_ONCE = 4_000_000
LARGE = {"batch": range(1, 1025), "H": range(161, 289), "W": range(161, 289)}
GRIDS: dict[str, dict[str, Any]] = {
    "crops of every size": {"batch": range(1, 65), "H": range(161, 289), "W": range(161, 289)},
    "multiples of 32": {"batch": range(1, 1025), "H": range(64, 1025, 32), "W": range(64, 1025, 32)},
}
Row = tuple[str, str, str, str]


class Line(NamedTuple):
    """A line of the table: its cells, configurations a CPU second, how many there should be (0: no claim), and how many of a sample
    differ from estimates made alone."""

    row: Row
    rate: float
    least: int = 0
    differing: int = 0


def measured(build: Callable[[], Graph], optimizer: str, loss: str, cpu: Cpu, track: Callable[[], Any]) -> Iterator[Line]:
    """Each grid in turn, swept some times, each time of a graph never asked before; a large one in parts; estimates one by one, and
    ``track``, MemTracker on one configuration."""
    found: dict[str, Sweep] = {}
    graph = build()
    for name, axes in GRIDS.items():
        seconds = 0.0
        for _ in range(SWEPT):
            graph = build()
            start = time.process_time()
            found[name] = sweep(graph, optimizer=optimizer, loss=loss, cpu=cpu, **axes)
            seconds += time.process_time() - start
        points = SWEPT * found[name].points
        differing = _differing(graph, found[name], optimizer, loss, cpu)
        yield Line(_row(f"sweep, {name}", points, seconds), points / seconds, A_SECOND, differing)
    graph = build()
    start, points = time.process_time(), 0
    for part in sweeps(graph, optimizer=optimizer, loss=loss, cpu=cpu, at_once=AT_ONCE, **LARGE):
        points += part.points
    seconds = time.process_time() - start
    differing = _differing(graph, part, optimizer, loss, cpu)
    yield Line(_row("sweep, crops in large batches", points, seconds), points / seconds, A_SECOND_IN_PARTS, differing)
    rows = random.Random(0).sample(list(found["multiples of 32"].rows()), ALONE)
    start = time.process_time()
    for row in rows:
        _alone(graph, row, optimizer, loss, cpu)
    seconds = time.process_time() - start
    yield Line(_row("estimates one by one", ALONE, seconds), ALONE / seconds)
    start = time.process_time()
    for _ in range(TRACKED):
        track()
    seconds = time.process_time() - start
    yield Line(_row("torch MemTracker, from three runs", TRACKED, seconds), TRACKED / seconds)


def _row(what: str, points: int, seconds: float) -> Row:
    whole = GRIDS["multiples of 32"]
    count = len(whole["batch"]) * len(whole["H"]) * len(whole["W"])
    return what, f"{points:,}", f"{points / seconds:,.1f}", f"{count * seconds / points:,.1f} s"


def _alone(graph: Graph, row: dict[str, Any], optimizer: str, loss: str, cpu: Cpu) -> int:
    shape = (row["batch"], 3, row["H"], row["W"])
    return estimate(graph, input_shape=shape, optimizer=optimizer, loss=loss, cpu=cpu).peak_bytes


def _differing(graph: Graph, found: Sweep, optimizer: str, loss: str, cpu: Cpu) -> int:
    rng = random.Random(1)
    places = [rng.randrange(found.points) for _ in range(50)]
    columns = dict(found)
    rows = [{name: int(column[i]) for name, column in columns.items()} for i in places]
    return sum(_alone(graph, row, optimizer, loss, cpu) != row["peak_bytes"] for row in rows)
