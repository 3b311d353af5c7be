"""One volume in every way: what parts read, what they take, and what there is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

import memest
from memest.cli.app import main
from memest.errors import UnsupportedError
from memest.machines.cpu import Cpu
from memest.planning.cutting import partition

CPU = Cpu(isa="avx512", threads=2)
SHAPE = (1, 1, 48, 64, 40)


GRAPH = memest.model("unet3d", base_filters=4, levels=2)


@pytest.fixture(scope="module")
def plan() -> memest.VolumePlan:
    return memest.plan_volume(
        GRAPH, input_shape=SHAPE, window=[(32, 32, 32), (24, 24, 24)], workers=(2, 3, 4), machine=CPU, on=["server-1.5tb"]
    )


def way(plan: memest.VolumePlan, name: str, part: str = "") -> Any:
    return next(w for w in plan.ways if w.name == name and part in w.how)


def test_every_way_is_the_estimate_of_its_lever(plan: memest.VolumePlan) -> None:
    ask: dict[str, Any] = {"input_shape": SHAPE, "mode": "infer", "machine": CPU}
    assert way(plan, "whole").held_bytes == memest.estimate(GRAPH, **ask).peak_bytes
    for name, option in (("tiles", "size"), ("sliding_window", "size"), ("sliding_window_inference", "roi_size")):
        found = way(plan, name, "32x32x32")
        assert found.held_bytes == memest.estimate(GRAPH, levers=[f"{name}:{found.how}"], **ask).peak_bytes
        assert found.how.startswith(f"{option}=32x32x32")


def test_a_worker_takes_what_its_part_takes_with_halos(plan: memest.VolumePlan) -> None:
    assert plan.halo == (10, 10, 10)
    found = way(plan, "2 workers")
    assert found.how == "1x2x1 parts, 48x42x40 with halos" and found.result == "same"
    assert found.recomputed == pytest.approx(20 / 64)
    alone = memest.estimate(GRAPH, input_shape=(1, 1, 48, 42, 40), mode="infer", machine=CPU)
    assert found.held_bytes == alone.peak_bytes


def test_calls_and_more_work_are_those_of_the_windows(plan: memest.VolumePlan) -> None:
    nnunet, monai = way(plan, "sliding_window", "32"), way(plan, "sliding_window_inference", "32")
    assert nnunet.calls == 2 * 3 * 2 and monai.calls == 2 * 3 * 2
    assert nnunet.recomputed == pytest.approx(12 * 32**3 / (48 * 64 * 40) - 1)
    assert way(plan, "sliding_window", "24").calls == 3 * 5 * 3


def test_parts_cover_the_volume_and_begin_where_the_network_steps() -> None:
    found = partition((48, 64, 40), 4, (4, 4, 4), (4, 4, 4))
    assert found.parts == (2, 2, 1) and found.largest == (28, 36, 40)
    with pytest.raises(UnsupportedError, match="7 workers: the volume cannot be cut so often at multiples of 16"):
        partition((32, 32), 7, (0, 0), (16, 16))


def test_what_there_is_not_is_said(plan: memest.VolumePlan) -> None:
    deep = memest.plan_volume(
        memest.model("unet3d", base_filters=4, levels=4), input_shape=(1, 1, 64, 64, 64), window=32, workers=(2,), machine=CPU
    )
    assert any("take 89 or more, or a shorter --halo" in line or "nothing is left" in line for line in deep.refused)
    assert any(line.startswith("2 workers: with a halo of") for line in deep.refused)
    short = memest.plan_volume(
        memest.model("unet3d", base_filters=4, levels=4), input_shape=(1, 1, 64, 64, 64), window=32, halo=8, workers=(2,), machine=CPU
    )
    assert {w.result for w in short.ways} == {"same", "approximate", "blended"}


def test_a_halo_of_a_worker_is_a_multiple_of_the_networks_step() -> None:
    found = memest.plan_volume(memest.model("unet3d", base_filters=4), input_shape=(1, 1, 64, 64, 64), window=32, halo=8, machine=CPU)
    assert way(found, "2 workers").how == "1x1x2 parts, 64x64x48 with halos" and not any("concatenate" in line for line in found.refused)


def test_a_classifier_has_no_parts_that_could_be_joined() -> None:
    found = memest.plan_volume(memest.model("resnet18"), input_shape=(1, 3, 64, 64), machine=CPU)
    assert [w.name for w in found.ways] == ["whole"] and any("avgpool" in line for line in found.refused)


def test_statistics_of_a_part_are_not_those_of_the_whole() -> None:
    graph = memest.model("plain_conv_unet", dims=3, features_per_stage=(4, 8))
    found = memest.plan_volume(graph, input_shape=(1, 1, 64, 32, 32), window=16, workers=(2,), machine=CPU)
    assert way(found, "2 workers").result == "own statistics"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"window": 0}, "window: sizes are positive"),
        ({"window": (16, 16)}, "window has 2 sizes, the input has 3"),
        ({"workers": (0,)}, "workers: sizes are positive"),
        ({"workers": 2}, r"workers: give values in a row, such as \[2, 4, 8\], got 2"),
        ({"on": None}, r"on: give values in a row, such as \['a100-40gb'\], got None"),
        ({"halo": -1}, "halo is a number of at least 0"),
        ({"mode": "train"}, "plans inference"),
        ({"levers": ["sliding_window:size=32"]}, "plan_volume tries windows itself"),
        ({"on": ["a100-41gb"]}, "a100-40gb"),
    ],
)
def test_what_cannot_be_asked_is_one_line(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(memest.MemestError, match=message):
        memest.plan_volume(memest.model("unet3d", base_filters=4, levels=2), input_shape=SHAPE, **asked)


def test_the_command_shows_all_ways_and_says_whether_one_fits(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "plan-volume",
        "unet3d:base_filters=4,levels=2",
        "--input",
        "1x48x64x40",
        "--batch",
        "1",
        "--window",
        "32",
        "--workers",
        "2",
        "--isa",
        "avx512",
    ]
    assert main([*words, "--budget", "1GiB", "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [w["way"] for w in data["ways"]] == ["whole", "tiles", "sliding_window", "sliding_window_inference", "2 workers"]
    assert main([*words, "--budget", "1MiB"]) == 1
    assert "does not fit" in capsys.readouterr().out
    assert main([*words, "--window", "abc"]) == 2
    assert capsys.readouterr().err.startswith("memest: --window")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_around_an_engine_the_loop_is_ones_own(runtime: str) -> None:
    asked: dict[str, Any] = {"input_shape": (1, 1, 64, 64, 64), "window": 32, "workers": (2,), "halo": 8, "runtime": runtime}
    plan = memest.plan_volume(memest.model("unet3d"), **asked)
    assert [way.name for way in plan.ways] == ["whole", "2 workers"]
    assert plan.refused == (f"windows, tiles: around {runtime}'s calls the loop is your own; ask for one of 32x32x32, and add your arrays",)
