"""Estimates of one batch after another: what compiling a graph costs beside one play of its step, and a batch never asked before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from memest.estimate.estimate import estimate
from memest.machines.cpu import Cpu
from memest.network.graph import Graph
from memest.runtimes.compiling import compile_program
from memest.runtimes.torch.step import play

NETWORKS = ("resnet50", "densenet121", "mobilenet_v2", "swin_t")
MOST_PLAYS = 5
MOST_SECONDS = 1e-4
IMAGE = (3, 224, 224)
BATCHES = range(10, 110)
Row = tuple[str, ...]
HEAD = ("CPU ms", "a play", "compiling", "in plays", "third batch asked", "a new batch, median", "the longest", "asked again")


def measured(
    module: Callable[[str], Any], import_: Callable[[Any, tuple[int, ...]], Graph], cpu: Cpu
) -> Iterator[tuple[Row, float, float]]:
    """(a line of the table, plays that compiling costs, seconds of a batch never asked before) for each network."""
    for name in NETWORKS:
        yield _line(name, import_(module(f"torchvision.models:{name}()"), (2, *IMAGE)), cpu)


def _line(name: str, graph: Graph, cpu: Cpu) -> tuple[Row, float, float]:
    *_, third = [_timed(lambda n=n: _peak(graph, n, cpu)) for n in (2, 3, 4)]
    e = estimate(graph, input_shape=(4, *IMAGE), optimizer="adam", cpu=cpu)
    played = min(_timed(lambda: play(e.played, e.input_shapes, e.sizes, e.recipe)) for _ in range(5))
    compiled = min(_timed(lambda: compile_program(e.played, e.input_shapes, e.sizes, e.recipe)) for _ in range(5))
    fresh = [_timed(lambda n=n: _peak(graph, n, cpu)) for n in BATCHES]
    again = median(_timed(lambda n=n: _peak(graph, n, cpu)) for n in BATCHES)
    times = played, compiled, compiled / played / 1000, third, median(fresh), max(fresh), again
    return (name, *(f"{1000 * t:,.3g}" for t in times)), compiled / played, median(fresh)


def _peak(graph: Graph, batch: int, cpu: Cpu) -> int:
    return estimate(graph, input_shape=(batch, *IMAGE), optimizer="adam", cpu=cpu).peak_bytes


def _timed(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start
