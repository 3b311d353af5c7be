"""MONAI's sliding windows: what was measured around its own function, and what its function refuses."""

from __future__ import annotations

from typing import Any

import pytest

import memest
from memest.errors import UsageError
from memest.machines.cpu import Cpu
from memest.sources import models
from validation.libraries.windows import CASES, stored

MEASURED = stored()


def ask(row: dict[str, Any], cpu: Cpu, **settings: Any) -> memest.Estimate:
    return memest.estimate(
        models.build(row["network"]),
        input_shape=tuple(row["shape"]),
        mode="infer",
        levers=[row["lever"]],
        machine=cpu,
        torch=MEASURED["torch"].rpartition(".")[0],
        **settings,
    )


@pytest.mark.parametrize("row", MEASURED["rows"], ids=lambda r: f"{r['network'].partition(':')[0]}-{r['lever'].partition(':')[2]}")
def test_windows_take_what_monai_took(row: dict[str, Any], cpu: Cpu) -> None:
    found = ask(row, cpu)
    assert (found.standing_bytes, found.peak_bytes) == (row["standing"], row["peak"])


def test_every_case_is_measured() -> None:
    assert [(r["network"], tuple(r["shape"]), r["lever"].partition(":")[2]) for r in MEASURED["rows"]] == list(CASES)


def test_the_peak_has_a_formula_that_holds_at_other_sizes(cpu: Cpu) -> None:
    graph, lever = models.build(MEASURED["rows"][0]["network"]), ["sliding_window_inference:roi_size=16,sw_batch_size=4"]
    for shape in ((1, 3, 64, 96), (1, 3, 80, 64)):
        found = memest.estimate(graph, input_shape=shape, mode="infer", levers=lever, machine=cpu)
        swept = memest.sweep(graph, batch=1, H=shape[2], W=shape[3], mode="infer", levers=lever, machine=cpu)
        assert list(swept["peak_bytes"]) == [found.peak_bytes]


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ("roi_size=16x16x16", (1, 3, 40, 40), "roi_size has 3 sizes, the input has 2"),
        ("roi_size=16,overlap=1", (1, 3, 40, 40), "at least 0 and below 1"),
        ("roi_size=16,overlap=0.5x0.5x0.5", (1, 3, 40, 40), "overlap has 3 sizes"),
        ("roi_size=16,buffer_steps=1,buffer_dim=2", (1, 3, 40, 40), "buffer_dim=2 is no axis"),
        ("roi_size=16,mode=hann", (1, 3, 40, 40), "expected one of constant, gaussian"),
        ("roi_size=0", (1, 3, 40, 40), "at least 1"),
        ("sw_batch_size=2", (1, 3, 40, 40), "needs option 'roi_size'"),
    ],
)
def test_what_cannot_be_asked_is_one_line(options: str, shape: tuple[int, ...], message: str) -> None:
    graph = models.build(MEASURED["rows"][0]["network"])
    with pytest.raises(UsageError, match=message):
        memest.estimate(graph, input_shape=shape, mode="infer", levers=[f"sliding_window_inference:{options}"])


def test_a_window_that_the_network_does_not_take_is_named() -> None:
    graph = models.build(MEASURED["rows"][5]["network"])
    with pytest.raises(memest.MemestError, match=r"sliding_window_inference: a window of 15x15x15: "):
        memest.estimate(graph, input_shape=(1, 1, 32, 32, 32), mode="infer", levers=["sliding_window_inference:roi_size=15"])


def test_on_a_card_volume_and_results_may_stay_on_the_host() -> None:
    graph = models.build(MEASURED["rows"][5]["network"])
    ask = {"input_shape": (1, 1, 64, 64, 64), "mode": "infer", "machine": "h100-80gb"}
    here, host, both = (
        memest.estimate(graph, levers=[f"sliding_window_inference:roi_size=32,{where}"], **ask)
        for where in ("device=cuda", "device=cpu", "inputs=cpu")
    )
    volume, result = 64**3 * 4, 64**3 * 4
    assert here.allocated.bytes - host.allocated.bytes == 2 * result
    assert host.standing_bytes - both.standing_bytes == volume
