"""Sweeps of ResNet-50 in training over (batch, H, W) beside estimates of the same configurations made one by one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from memest.estimate.estimate import estimate
from memest.machines.cpu import Cpu
from memest.network.graph import Graph
from memest.planning.sweep import sweep
from memest.planning.swept import Sweep
from memest.sources import models
from validation.bench.probes import GRIDS, STEP, timed
from validation.bench.table import Claim, print_table

SAMPLE, ALONE = 50, 400


def equal_to_estimates_made_alone() -> Iterator[Claim]:
    """A sample of each sweep, estimated alone, has the same peaks; the table says what a configuration costs either way."""
    rows = []
    for grid, axes in GRIDS.items():
        graph = models.build("resnet50")
        seconds, found = timed(lambda graph=graph, axes=axes: sweep(graph, machine=Cpu(), **STEP, **axes))
        rows.append(_row(f"sweep, {grid}", found.points, seconds))
        differing = _differing(graph, found)
        yield Claim(f"sweep, {grid}: of {SAMPLE}, differing from estimates made alone", f"{differing}", "0", differing == 0)
    sample = random.Random(0).sample(list(found.rows()), ALONE)
    seconds, _ = timed(lambda: [_alone(graph, row) for row in sample])
    print_table(("configurations of (batch, H, W)", "asked", "a CPU second"), [*rows, _row("estimates one by one", ALONE, seconds)])


def _row(what: str, points: int, seconds: float) -> tuple[str, ...]:
    return what, f"{points:,}", f"{points / seconds:,.1f}"


def _alone(graph: Graph, row: dict[str, Any]) -> int:
    shape = (row["batch"], 3, row["H"], row["W"])
    return estimate(graph, input_shape=shape, machine=Cpu(), **STEP).peak_bytes


def _differing(graph: Graph, found: Sweep) -> int:
    rng = random.Random(1)
    places = [rng.randrange(found.points) for _ in range(SAMPLE)]
    rows = [{name: int(column[i]) for name, column in found.items()} for i in places]
    return sum(_alone(graph, row) != row["peak_bytes"] for row in rows)
