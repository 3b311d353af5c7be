"""Ranks of data-parallel runs that were measured as processes, beside what is said of them."""

from __future__ import annotations

import pytest

from validation.cluster.comparing import BUILT_IN, rows, stored

WITHIN = 0.03
RUNS = {key: run for key, run in stored().items() if run["world"] > 1 and run["malloc"] == "fixed" and run["case"]["model"] in BUILT_IN}
QUICK = [key for key in RUNS if key.startswith(("resnet50", "UNet3d 1x1x96"))]


@pytest.mark.parametrize("key", [pytest.param(key, marks=() if key in QUICK else pytest.mark.slow) for key in RUNS])
def test_a_rank_and_its_node_are_within_three_percent(key: str) -> None:
    (row,) = rows({key: RUNS[key]})
    assert max(map(abs, row.errors)) <= WITHIN, row
