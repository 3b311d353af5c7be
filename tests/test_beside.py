"""A predicted step beside a recorded one: how much is equal in order, and where the two part."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

import memest
from memest.cli.app import main
from memest.estimate.estimate import Estimate
from memest.planning.beside import REACH, Beside, Parting, aligned, beside
from memest.sources.snapshots.reading import read_histories

STEP = Path(__file__).parent / "data" / "step.pickle.gz"


def step() -> bytes:
    """Four training steps of :func:`network` that torch 2.14.1's CUDA build recorded as a V100 over a runtime that computes nothing. In the
    last of them the scores go to the CPU in float64 besides."""
    return gzip.decompress(STEP.read_bytes())


def network() -> memest.Graph:
    """Two convolutions, a batch norm, a linear layer."""
    b = memest.Builder("small")
    x = b.layer("conv2d", b.input("x", ("N", 3, "H", "W")), name="0", out_channels=8, kernel_size=3, padding=1, bias=False)
    x = b.layer("relu", b.layer("batch_norm", x, name="1"), name="2", inplace=True)
    x = b.layer("conv2d", x, name="3", out_channels=16, kernel_size=3, stride=2, padding=1)
    x = b.layer("adaptive_avg_pool2d", b.layer("relu", x, name="4"), name="5", output_size=1)
    return b.build(b.layer("linear", b.layer("flatten", x, name="6", start_dim=1), name="7", out_features=10))


def predicted(**settings: Any) -> Estimate:
    """Its step on that card."""
    given = {"input_shape": (4, 3, 32, 48), "optimizer": "sgd:momentum=0.9", "machine": "v100-32gb", "torch": "2.14", **settings}
    return memest.estimate(network(), **given)


def laid(estimate: Estimate) -> Beside:
    (history,) = read_histories(step(), "step")
    return beside(history, estimate.events)


def test_the_last_step_is_found_and_what_it_has_besides_is_told() -> None:
    found = laid(predicted())
    assert found.equal == len(found.predicted) == len(found.recorded) - 1
    (parting,) = found.partings
    (extra,) = found.recorded[slice(*parting.recorded)]
    assert found.history.entries[extra].size == 4 * 10 * 8
    assert found.recorded[0] > len(found.history.entries) / 2


def test_another_batch_parts_almost_everywhere() -> None:
    found = laid(predicted(input_shape=(3, 3, 32, 48)))
    assert found.equal < len(found.predicted) / 2


def test_the_peak_is_that_of_the_record() -> None:
    """In the first recorded step cuBLAS takes its workspaces: they stand through all others."""
    from memest.memory.allocators.retracing import retrace

    (history,) = read_histories(step(), "step")
    found, estimate = retrace(history), predicted()
    assert found.reserved == estimate.reserved.bytes
    assert abs(found.allocated - estimate.peak_bytes) <= 1024


def checked(recorded: list[int], wanted: list[int]) -> list[Parting]:
    """The stretches, held against what they say."""
    *partings, end = aligned(recorded, wanted)
    i = j = 0
    for parting in [*partings, end]:
        (a, b), (c, d) = parting
        assert recorded[i:a] == wanted[j:c]
        i, j = b, d
    assert j == len(wanted) and end == ((i, i), (j, j))
    return partings


@pytest.mark.parametrize("seed", range(20))
def test_outside_the_stretches_all_sizes_are_equal(seed: int) -> None:
    dice = random.Random(seed)
    wanted = [dice.randrange(40) for _ in range(dice.randrange(1, 3000))]
    recorded: list[int] = []
    edits = 0
    for size in wanted:
        turn = dice.random()
        edits += turn < 0.02
        recorded += [] if turn < 0.01 else [size, 1000 + size] if turn < 0.02 else [size]
    partings = checked(recorded, wanted)
    assert sum(b - a + d - c for (a, b), (c, d) in partings) <= 6 * edits
    assert checked(wanted, wanted) == []


def test_what_never_agrees_again_is_one_stretch_a_reach() -> None:
    n = 5 * REACH
    partings = checked([1] * n, [2] * n)
    assert len(partings) <= 6
    assert checked([], [2, 3]) == [((0, 0), (0, 2))]
    assert checked([1, 2, 3], []) == []


def test_the_command_lays_a_prediction_beside_the_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, model = tmp_path / "step.pickle", tmp_path / "small.json"
    record.write_bytes(step())
    memest.save(network(), model)
    asked = ["--model", str(model), "--input", "3x32x48", "--batch", "4", "--on", "v100-32gb", "--optimizer", "sgd:momentum=0.9"]
    assert main(["snapshot", str(record), *asked]) == 0
    text = capsys.readouterr().out
    for words in (
        "Where record and prediction part",
        "27 of 27 predicted, 28 recorded; 1 place where they part",
        "22.00 MiB predicted, +0.00%",
        "step.py",
    ):
        assert words in text
    assert main(["snapshot", str(record), *asked, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)["prediction"]
    assert (found["equal"], [p["recorded"] for p in found["partings"]]) == (27, [[320]])


def test_settings_without_a_model_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = tmp_path / "step.pickle"
    record.write_bytes(step())
    assert main(["snapshot", str(record), "--batch", "4", "--optimizer", "adam"]) == 2
    assert "batch, optimizer: settings of a prediction; say of what by --model" in capsys.readouterr().err
