"""Two estimates side by side: differences that add up to the byte, and a command that says them alike in every format."""

from __future__ import annotations

import csv
import json
from dataclasses import fields
from functools import cache
from io import StringIO
from itertools import pairwise
from typing import Any

import pytest

import memest
from memest.cli.app import main
from memest.cli.request import SETTINGS, Request, changed
from memest.errors import UsageError
from memest.estimate.estimate import Estimate
from memest.estimate.question import Question
from memest.sizes.units import format_bytes

CPU = memest.Cpu.detect().with_(isa="avx2", threads=1)
RUN = ["--input", "3x64x64", "--batch", "2", "--isa", "avx2", "--threads", "1"]


def _estimate(model: str, batch: int = 2, **options: object) -> Estimate:
    return memest.estimate(memest.model(model), input_shape=(batch, 3, 64, 64), machine=CPU, **options)  # type: ignore[arg-type]


SIDES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("resnet18", {}),
    "adam": ("resnet18", {"optimizer": "adam"}),
    "first step": ("resnet18", {"optimizer": "adam", "first_step": True}),
    "batch": ("resnet18", {"batch": 5}),
    "channels_last": ("resnet18", {"levers": ["channels_last"]}),
    "inference": ("resnet18", {"mode": "infer"}),
    "deeper": ("resnet34", {}),
    "other family": ("mobilenet_v2", {"mode": "infer"}),
}
PAIRS = [(a, b) for a in SIDES for b in SIDES]


@cache
def side(name: str) -> Estimate:
    model, options = SIDES[name]
    return _estimate(model, **options)


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_what_moved_adds_up(a: str, b: str) -> None:
    left, right = side(a), side(b)
    c = memest.compare(left, right)
    assert c.peak_difference == right.peak_bytes - left.peak_bytes
    for rows in (c.categories, c.layers):
        assert sum(r.a_bytes for r in rows) == left.peak_bytes
        assert sum(r.b_bytes for r in rows) == right.peak_bytes
        assert sum(r.difference_bytes for r in rows) == c.peak_difference
        assert all(abs(x.difference_bytes) >= abs(y.difference_bytes) for x, y in pairwise(rows))
        assert len({r.name for r in rows}) == len(rows)
    assert {r.name: r.a_bytes for r in c.categories if r.a_bytes} == left.by_category()
    if a == b:
        assert not any(r.difference_bytes for r in (*c.categories, *c.layers)) and {r.side for r in c.layers} == {"both"}


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_the_other_way_round_is_the_opposite(a: str, b: str) -> None:
    there, back = memest.compare(side(a), side(b)), memest.compare(side(b), side(a))
    swap = {"a": "b", "b": "a", "both": "both"}
    assert {(r.name, r.a_bytes, r.b_bytes, r.side) for r in there.layers} == {
        (r.name, r.b_bytes, r.a_bytes, swap[r.side]) for r in back.layers
    }
    assert there.peak_difference == -back.peak_difference and there.standing_difference == -back.standing_difference


def test_a_layer_is_on_the_sides_whose_network_has_it() -> None:
    rows = {r.name: r for r in memest.compare(side("plain"), side("deeper")).layers}
    mine, theirs = ({layer.name for layer in side(s).played.layers} for s in ("plain", "deeper"))
    named = [r for r in rows.values() if r.name in mine | theirs]
    assert {r.name for r in named if r.side == "b"} == {r.name for r in named} - mine
    assert rows["layer1.2.conv1"].side == "b" and rows["layer1.2.conv1"].a_bytes == 0
    assert rows["conv1"].side == "both"


def test_a_layer_holds_its_parameters_and_their_state() -> None:
    """fc.weight and fc.bias under fc: Adam adds two moments each and a step count of 4 bytes."""
    resident = {s.layer: 0 for s in side("adam").timeline.residents}
    for s in side("adam").timeline.residents:
        resident[s.layer] += s.nbytes
    row = next(r for r in memest.compare(side("plain"), side("adam")).layers if r.name == "fc")
    assert resident["fc.weight"] + resident["fc.bias"] == 3 * 4 * (1000 * 512 + 1000) + 8
    assert row.difference_bytes >= 2 * 4 * (1000 * 512 + 1000) + 8
    assert not [r for r in memest.compare(side("plain"), side("adam")).layers if r.name.endswith((".weight", ".bias"))]


def test_adam_costs_its_state() -> None:
    c = memest.compare(side("plain"), side("adam"))
    state = next(r for r in c.categories if r.name == "optimizer_state")
    assert (state.a_bytes, state.b_bytes, state.side) == (0, c.standing_difference, "both")


# the command line --------------------------------------------------------------------------------------------------------


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["compare", *arguments]) == 0, capsys.readouterr().err
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


@pytest.mark.parametrize(
    ("arguments", "b"),
    [
        (["--versus", "optimizer=adam"], "adam"),
        (["--versus", "optimizer=adam", "--versus", "first-step=true"], "first step"),
        (["--versus", "batch=5"], "batch"),
        (["--versus", " mode = infer "], "inference"),
        (["--versus", "lever=channels_last"], "channels_last"),
        (["resnet34"], "deeper"),
        (["mobilenet_v2", "--versus", "mode=infer"], "other family"),
        (["resnet18"], "plain"),
    ],
)
def test_every_way_to_name_the_other_side(arguments: list[str], b: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(_run(capsys, "resnet18", *arguments, *RUN, "--format", "json"))
    expected = memest.compare(side("plain"), side(b))
    assert data["peak_difference_bytes"] == expected.peak_difference
    assert data["b"]["peak_bytes"] == side(b).peak_bytes and data["a"]["peak_bytes"] == side("plain").peak_bytes
    assert [(r["name"], r["difference_bytes"]) for r in data["layers"]] == [(r.name, r.difference_bytes) for r in expected.layers]


def test_the_four_formats_agree(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["resnet18", *RUN, "--versus", "optimizer=adam", "--top", "3"]
    text, data, sheet, markdown = (_run(capsys, *given, "--format", f) for f in ("text", "json", "csv", "markdown"))
    difference = json.loads(data)["peak_difference_bytes"]
    rows = list(csv.DictReader(StringIO(sheet)))
    assert int(rows[0]["difference_bytes"]) == difference > 0
    for what in ("category", "layer"):
        assert sum(int(r["difference_bytes"]) for r in rows if r["what"] == what) == difference
    for shown in (text, markdown):
        assert f"+{difference:,} bytes" in shown and "others" in shown


def test_inputs_of_the_other_side_replace_all(capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(_run(capsys, "resnet18", *RUN, "--versus", "input=3x96x96", "--format", "json"))
    assert data["b"]["input_shapes"] == {"input": [2, 3, 96, 96]}
    both = changed(Request(model="m", inputs=["x=1"], batch=1), ["input=x=2", "input=y=3"])
    assert both.inputs == ["x=2", "y=3"]


def test_every_setting_is_a_field_of_a_question_or_a_request() -> None:
    before = Request(model="m", settings={"mode": "infer"})
    words = {"batch": "3", "mode": "train", "device": "cpu", "threads": "7", "isa": "avx2"}
    of_a_question = {f.name.replace("_", "-") for f in fields(Question)} - {"levers", "machine"}
    assert of_a_question | {"batch", "device", "on", "threads", "isa"} == set(SETTINGS)
    for name in SETTINGS:
        after = changed(before, [f"{name}={words.get(name, 'true')}"])
        assert after != before and changed(before, []) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--versus"),
        (["--versus", "optimzer=adam"], "did you mean 'optimizer'"),
        (["--versus", "zzz=1"], "settings are input, lever, batch"),
        (["--versus", "adam"], "SETTING=VALUE"),
        (["--versus", "batch="], "SETTING=VALUE"),
        (["--versus", "batch=0"], "whole number from 1"),
        (["--versus", "batch=-2"], "whole number from 1"),
        (["--versus", "batch=two"], "'two'"),
        (["--versus", "batch=²"], "whole number from 1"),
        (["--versus", "batch=" + "9" * 5000], "whole number from 1"),
        (["--versus", "mode=eval"], "train or infer"),
        (["--versus", "hold-output=maybe"], "true or false"),
        (["--versus", "isa=sse"], "avx2 or avx512"),
        (["--versus", "batch=2", "--versus", "batch=3"], "twice"),
        (["--versus", "optimizer=adm"], "did you mean 'adam'"),
        (["--versus", "loss=cross_entrpy"], "did you mean 'cross_entropy'"),
        (["--versus", "input=a lot"], "'a lot'"),
        (["resnet19"], "did you mean 'resnet18'"),
    ],
)
def test_bad_usage(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "resnet18", *RUN, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and words in captured.err and captured.err.count("\n") == 1


def test_settings_are_applied_by_name() -> None:
    with pytest.raises(UsageError):
        changed(Request(model="m"), ["model=x"])


UPGRADE = ["compare", "densenet121", "--input", "3x224x224", "--batch", "16", "--on", "h100-80gb", "--torch", "2.11", "--torch", "2.14"]


def test_two_versions_of_torch_are_the_two_sides_each_with_its_cudnn(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*UPGRADE, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    graph = memest.model("densenet121")
    asked: dict[str, Any] = {"input_shape": (16, 3, 224, 224), "machine": "h100-80gb"}
    old, new = (memest.estimate(graph, **asked, torch=t) for t in ("2.11", "2.14"))
    assert (old.recipe.target.settings.cudnn, new.recipe.target.settings.cudnn) == ((9, 19), (9, 24))
    assert [found[side]["torch"]["modelled"] for side in "ab"] == ["2.11", "2.14"]
    assert found["peak_difference_bytes"] == new.peak_bytes - old.peak_bytes != 0
    assert old.reserved.bytes is not None
    assert new.reserved.bytes is not None
    assert found["reserved_difference_bytes"] == new.reserved.bytes - old.reserved.bytes != 0
    for rows in ("categories", "layers"):
        assert sum(row["difference_bytes"] for row in found[rows]) == found["peak_difference_bytes"]


def test_figures_of_an_allocator_are_compared_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(UPGRADE) == 0
    out = capsys.readouterr().out
    assert all(f" {name} " in out for name in ("allocated", "reserved", "process"))
    assert "block rounding" in out
    assert "cuDNN 9.19" in " ".join(out.split())
    assert main([*UPGRADE, "--format", "csv"]) == 0
    assert "total,reserved," in capsys.readouterr().out


def test_a_torch_given_once_is_that_of_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["compare", "resnet18", "--input", "3x64x64", "--batch", "2", "--format", "json", "--torch", "2.11"]
    assert main([*asked, "--versus", "batch=4"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["a"]["torch"]["modelled"] == found["b"]["torch"]["modelled"] == "2.11"
    assert main(asked) == 2
    assert "--torch, --on or --runtime twice" in capsys.readouterr().err
    assert main([*asked, "--torch", "2.13", "--torch", "2.14"]) == 2
    assert "at most twice" in capsys.readouterr().err
    assert main([*asked, "--torch", "2.11"]) == 2
    assert "--torch is 2.11 for a and for b" in capsys.readouterr().err
    assert main([*asked, "--torch", "2.13", "--versus", "torch=2.14"]) == 2
    assert "given twice" in capsys.readouterr().err


CARDS = ["compare", "vgg11", "--input", "3x64x64", "--batch", "4"]


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["--on", "t4", "--on", "h100-80gb"], ("t4", "h100-80gb")),
        (["--on", "t4", "--versus", "on=h100-80gb"], ("t4", "h100-80gb")),
        (["--on", "t4", "--versus", "device=cpu"], ("t4", None)),
        (["--versus", "on=t4"], (None, "t4")),
    ],
)
def test_one_network_on_two_cards_each_figure_with_its_range(
    arguments: list[str], where: tuple[str | None, str | None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*CARDS, *arguments, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    sides = [memest.estimate(memest.model("vgg11"), input_shape=(4, 3, 64, 64), machine=card) for card in where]
    assert [found[side].get("card") for side in "ab"] == list(where)
    assert [found[side]["peak_bytes"] for side in "ab"] == [e.peak_bytes for e in sides]
    for name in ("allocated", "reserved"):
        figures = [getattr(e, name) for e in sides]
        assert [found[side][name] for side in "ab"] == [f.to_dict() for f in figures]
        assert found[f"{name}_difference_bytes"] == figures[1].bytes - figures[0].bytes


def test_modelled_figures_have_their_ranges_in_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    on = [*CARDS, "--on", "t4", "--on", "h100-80gb"]
    a, b = (memest.estimate(memest.model("vgg11"), input_shape=(4, 3, 64, 64), machine=card) for card in ("t4", "h100-80gb"))
    assert main(on) == 0
    text = " ".join(capsys.readouterr().out.split())
    low, high = (format_bytes(n) for n in (b.process.low, b.process.high))
    assert a.process.low != a.process.high and f"(modelled: {low} to {high})" in text
    assert main([*on, "--format", "csv"]) == 0
    rows = {(r["what"], r["name"]): r for r in csv.DictReader(StringIO(capsys.readouterr().out))}
    assert [int(rows["low", "process"][f"{side}_bytes"]) for side in "ab"] == [a.process.low, b.process.low]
    assert [int(rows["high", "process"][f"{side}_bytes"]) for side in "ab"] == [a.process.high, b.process.high]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--on", "t4"], "--torch, --on or --runtime twice"),
        (["--on", "t4", "--on", "t4", "--on", "t4"], "--on is given at most twice"),
        (["--on", "t4", "--on", "t4x"], "did you mean 't4'"),
        (["--on", "t4", "--on", "mi300x"], "mi300x"),
        (["--on", "t4", "--on", "h100-80gb", "--versus", "on=t4"], "on is given twice"),
    ],
)
def test_cards_that_cannot_be_compared(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CARDS, *arguments]) == 2
    assert words in capsys.readouterr().err


def test_two_engines_are_the_two_sides(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["compare", "resnet18", "--input", "3x64x64", "--batch", "2", "--infer", "--runtime", "onnxruntime"]
    assert main([*asked, "--runtime", "openvino"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "a resnet18: inference, input 2x3x64x64, float32, onnxruntime 1.32" in shown and "openvino 2026.4" in shown
    assert main(asked) == 2 and "--torch, --on or --runtime twice" in capsys.readouterr().err
    assert main([*asked, "--runtime", "openvino", "--runtime", "torch-cpu"]) == 2
    assert "--runtime is given at most twice" in capsys.readouterr().err
