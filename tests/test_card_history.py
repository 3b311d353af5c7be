"""A step on a card as a snapshot for torch's viewer: the allocator's own addresses, and its figures."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

import memest
from memest.cli.app import main
from memest.render import history
from memest.runtimes.torch.script import script

CARD: dict[str, Any] = {"machine": "a100-40gb", "torch": "2.14", "optimizer": "adam"}


def _asked(**more: Any) -> memest.Estimate:
    return memest.estimate(memest.model("resnet18"), input_shape=(4, 3, 64, 64), **{**CARD, **more})


def _highest(found: dict[str, Any], up: str, down: str, begin: int = 0) -> int:
    total = most = 0
    for row in found["device_traces"][0]:
        total += row["size"] if row["action"] == up else -row["size"] if row["action"] == down else 0
        most = max(most, total) if row["time_us"] >= begin else most
    return most


@pytest.mark.parametrize(
    "more",
    [{}, {"first_step": True}, {"keep_grads": True}, {"alloc_conf": "expandable_segments:True"}, {"mode": "infer"}, {"dtype": "bfloat16"}],
)
def test_the_snapshot_reserves_what_the_estimate_says(more: dict[str, Any]) -> None:
    estimate = _asked(**more)
    found = pickle.loads(history.render(estimate))
    kind = "map" if "alloc_conf" in more else "alloc"
    assert _highest(found, f"segment_{kind}", "segment_unmap" if kind == "map" else "segment_free") == estimate.reserved.bytes
    events, begins = script(estimate.steps)
    assert _highest(found, "alloc", "free_completed", begins[-1] + 1) == estimate.requested_bytes
    assert sum(e.delta != 0 for e in events) == sum(row["action"] in ("alloc", "free_requested") for row in found["device_traces"][0])


def test_steps_are_marked() -> None:
    found = pickle.loads(history.render(_asked()))
    names = [(row["name"], row["stage"]) for row in found["external_annotations"]]
    assert names == [(f"step {n}", stage) for n in (1, 2, 3) for stage in ("START", "END")]
    times = [row["time_us"] for row in found["external_annotations"]]
    assert times == sorted(times)


def test_no_two_blocks_of_the_snapshot_overlap() -> None:
    alive: dict[int, int] = {}
    for row in pickle.loads(history.render(_asked()))["device_traces"][0]:
        if row["action"] == "alloc":
            assert all(row["addr"] + row["size"] <= a or a + n <= row["addr"] for a, n in alive.items())
            alive[row["addr"]] = row["size"]
        elif row["action"] == "free_completed":
            del alive[row["addr"]]


def test_a_snapshot_of_a_step_that_runs_out_ends_there() -> None:
    estimate = memest.estimate(memest.model("vgg16"), input_shape=(512, 3, 224, 224), **{**CARD, "machine": "t4"})
    rows = pickle.loads(history.render(estimate))["device_traces"][0]
    assert "oom" in [row["action"] for row in rows[-3:]]


def test_the_command_exports_it_and_says_what_the_list_adds_up_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "snapshot.pickle"
    assert main(["timeline", "resnet18", "--input", "3x64x64", "--batch", "4", "--on", "a100-40gb", "--export", str(path)]) == 0
    out = capsys.readouterr().out
    assert "asked for" in out
    assert "reserved" in out
    assert pickle.loads(path.read_bytes())["allocator_settings"]["written_by"] == "memest"


def test_a_call_on_a_card_is_planned() -> None:
    found = memest.plan_inference(memest.model("resnet18"), input_shape=(2, 3, 64, 64), machine="a100-40gb")
    assert found.estimate.runtime == "torch-cuda"
    assert main(["plan-inference", "resnet18", "--input", "3x64x64", "--batch", "2", "--on", "a100-40gb"]) == 0
    assert memest.plan_inference(memest.model("resnet18"), input_shape=(2, 3, 64, 64)).estimate.runtime == "null"


@pytest.mark.parametrize("kind", ["timeline", "treemap"])
def test_pictures_of_a_step_on_a_card_say_what_is_drawn(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", kind, "resnet18", "--input", "3x64x64", "--batch", "4", "--on", "a100-40gb"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "allocated " in out
    assert "asked for are drawn" in out


def test_growth_on_a_card_is_what_is_allocated(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["plot", "sizes", "resnet18", "--sides", "64", "--batches", "2", "--on", "a100-40gb"]
    assert main(asked) == 0
    assert "Allocated, by replay" in capsys.readouterr().out
    assert main([*asked, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["figure"] == "allocated"
    assert (
        found["points"][0]["peak_bytes"]
        == memest.estimate(memest.model("resnet18"), input_shape=(2, 3, 64, 64), machine="a100-40gb").peak_bytes
    )


@pytest.mark.slow
def test_fit_and_advise_name_the_figure_that_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "resnet18", "--input", "3x64x64", "--on", "a100-40gb", "--budget", "1GiB"]) == 0
    assert "next process" in capsys.readouterr().out
    given = ["--input", "3x128x128", "--batch", "48", "--optimizer", "adam", "--budget", "1GiB", "--on", "a100-40gb"]
    assert main(["advise", "resnet18", *given]) == 0
    assert "process after" in capsys.readouterr().out
