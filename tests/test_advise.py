"""Advice: every number is an estimate of the real combination, the path goes down, and nothing is left unsaid."""

from __future__ import annotations

import csv
import json
from functools import cache
from io import StringIO
from itertools import pairwise
from typing import Any

import pytest

import memest
from memest.cli.app import main
from memest.errors import UsageError
from memest.levers.table import LEVERS
from memest.planning import advice as table
from memest.planning.advice import CANDIDATES, KINDS, Situation, choices

CPU = memest.Cpu.detect().with_(isa="avx2", threads=1)
RUN = ["--input", "1x16x16x16", "--batch", "4", "--isa", "avx2", "--threads", "1"]
MODEL = "unet3d:base_filters=4,levels=3"
MODES: dict[str, dict[str, Any]] = {
    "training": {"mode": "train", "optimizer": "adam:foreach=true", "hold_output": True},
    "inference": {"mode": "infer"},
}
SHARES = (0.95, 0.7, 0.4, 0.001)


@cache
def _start(mode: str) -> memest.Estimate:
    return memest.estimate(memest.model(MODEL), input_shape=(4, 1, 16, 16, 16), machine=CPU, **MODES[mode])


@cache
def _advice(mode: str, share: float) -> memest.Advice:
    budget = max(1, int(_start(mode).peak_bytes * share))
    return memest.advise(memest.model(MODEL), budget, input_shape=(4, 1, 16, 16, 16), machine=CPU, **MODES[mode])


QUICK = (0.7,)
CASES = [
    pytest.param(mode, share, marks=() if mode == "inference" or share in QUICK else pytest.mark.slow) for mode in MODES for share in SHARES
]


@pytest.mark.parametrize(("mode", "share"), CASES)
def test_the_end_of_the_path_is_its_estimate(mode: str, share: float) -> None:
    advice = _advice(mode, share)
    fresh = memest.estimate(memest.model(MODEL), **advice.keywords)
    assert fresh.peak_bytes == advice.reached.peak_bytes
    assert fresh.levers == advice.reached.levers
    assert advice.fits == (fresh.peak_bytes <= advice.budget_bytes)
    assert advice.missing_bytes == max(0, fresh.peak_bytes - advice.budget_bytes)


@pytest.mark.parametrize(("mode", "share"), CASES)
def test_each_step_lowers_the_peak(mode: str, share: float) -> None:
    advice = _advice(mode, share)
    peaks = [advice.start.peak_bytes, *(o.peak_bytes for o in advice.combined)]
    assert all(a > b for a, b in pairwise(peaks))
    assert [o.saved_bytes for o in advice.combined] == [a - b for a, b in pairwise(peaks)]


@pytest.mark.parametrize(("mode", "share"), CASES)
def test_no_change_of_a_combination_can_be_left_out(mode: str, share: float) -> None:
    advice = _advice(mode, share)
    if advice.fits and len(advice.combined) == 1:
        assert advice.start.peak_bytes > advice.budget_bytes
    if advice.fits:
        assert all(o.peak_bytes > advice.budget_bytes for o in advice.combined[:-1])


@pytest.mark.parametrize("mode", [pytest.param(m, marks=pytest.mark.slow if m == "training" else ()) for m in MODES])
def test_changes_alone_are_ranked_and_none_is_dropped(mode: str) -> None:
    advice = _advice(mode, 0.4)
    assert [o.saved_bytes for o in advice.alone] == sorted((o.saved_bytes for o in advice.alone), reverse=True)
    assert all(o.saved_bytes == advice.start.peak_bytes - o.peak_bytes for o in advice.alone)
    situation = Situation(
        graph=memest.model(MODEL), shapes=advice.start.input_shapes, sizes=advice.start.sizes, step=MODES[mode], limit=advice.budget_bytes
    )
    proposed, refused = choices(situation)
    said = {c for o in advice.alone for c in o.changes} | {r.change for r in advice.refused}
    assert said == {c.change.text for c in proposed} | {name for name, _ in refused}
    assert all(r.reason for r in advice.refused)


@pytest.mark.parametrize(("mode", "share"), CASES)
def test_dearer_kinds_are_left_alone_while_a_cheaper_change_fits(mode: str, share: float) -> None:
    advice = _advice(mode, share)
    order = list(KINDS)
    cheapest = min((order.index(o.kind) for o in advice.alone if o.peak_bytes <= advice.budget_bytes), default=None)
    if cheapest is not None and advice.combined:
        assert max(order.index(o.kind) for o in advice.combined) <= cheapest


def test_what_fits_as_it_is_needs_nothing() -> None:
    start = _start("training")
    advice = memest.advise(memest.model(MODEL), start.peak_bytes, input_shape=(4, 1, 16, 16, 16), machine=CPU, **MODES["training"])
    assert advice.fits and not advice.combined and advice.missing_bytes == 0


@pytest.mark.slow
def test_one_free_change_is_taken_before_all_others() -> None:
    start = memest.estimate(memest.model("resnet18"), input_shape=(2, 3, 32, 32), optimizer="adam:foreach=true", machine=CPU)
    advice = memest.advise(
        memest.model("resnet18"), start.peak_bytes - 2**20, input_shape=(2, 3, 32, 32), optimizer="adam:foreach=true", machine=CPU
    )
    assert [(o.changes, o.kind) for o in advice.combined] == [(("optimizer=adam:foreach=false",), "free")]


@pytest.mark.slow
def test_a_lever_that_is_pulled_stays_and_is_not_proposed() -> None:
    advice = memest.advise(memest.model(MODEL), "1KiB", input_shape=(2, 1, 16, 16, 16), levers=("inplace",), machine=CPU)
    assert "inplace" in advice.keywords["levers"]
    assert not any("inplace" in o.changes for o in advice.alone)
    assert not any(r.change == "inplace" for r in advice.refused)


def test_the_largest_batch_is_that_of_fit() -> None:
    graph, peak = memest.model(MODEL), _start("inference").peak_bytes
    advice = memest.advise(graph, peak - 1, input_shape=(4, 1, 16, 16, 16), mode="infer", machine=CPU, largest_batch=True)
    assert advice.largest_batch == 3
    after = {**advice.keywords, "input_shape": (advice.largest_batch_combined, *next(iter(advice.keywords["input_shape"].values()))[1:])}
    assert memest.estimate(graph, **after).peak_bytes <= advice.budget_bytes


@pytest.mark.slow
def test_checkpointing_says_what_runs_again() -> None:
    advice = memest.advise(memest.model("resnet18"), "1KiB", input_shape=(2, 3, 64, 64), machine=CPU)
    (every,) = (o for o in advice.alone if o.changes == ("checkpoint:every=1",))
    share = float(every.price.rpartition(": ")[2].partition(" %")[0])
    assert every.kind == "time" and 50 < share < 100


# the table ---------------------------------------------------------------------------------------------------------------


def test_rows_stand_in_the_order_they_are_resorted_to() -> None:
    ranks = [c.rank for c in CANDIDATES]
    assert ranks == sorted(ranks)
    assert {c.kind for c in CANDIDATES} == set(KINDS)


def test_a_row_has_a_price_and_a_lever_that_is_missing_proposes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(c.price or LEVERS[c.lever].price for c in CANDIDATES if not c.lever or c.lever in LEVERS)
    assert not any("freeze" in c.name for c in CANDIDATES)
    monkeypatch.setattr(table, "LEVERS", {})
    advice = memest.advise(memest.model(MODEL), "1KiB", input_shape=(2, 1, 16, 16, 16), machine=CPU)
    assert not advice.keywords["levers"] and not any(o.estimate.levers for o in advice.alone)


# bad input and the command -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [0, -1, True, "24", "0GiB", "much"])
def test_a_budget_that_is_none_is_refused(budget: Any) -> None:
    with pytest.raises(UsageError):
        memest.advise(memest.model(MODEL), budget, input_shape=(2, 1, 16, 16, 16), machine=CPU)


def test_the_command_says_it_fits_already(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", MODEL, *RUN, "--budget", "4GiB"]) == 0
    assert "fits as it is" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_says_when_nothing_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", MODEL, *RUN, "--budget", "1KiB"]) == 1
    text = capsys.readouterr().out
    assert "nothing fits" in text and "What binds" in text


def test_every_format_says_the_same(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    budget = f"{_start('inference').peak_bytes // 2}B"
    found: dict[str, str] = {}
    for form in ("text", "json", "csv", "markdown"):
        assert main(["advise", MODEL, *RUN, "--infer", "--budget", budget, "--format", form]) == 0
        found[form] = capsys.readouterr().out
    data = json.loads(found["json"])
    rows = list(csv.DictReader(StringIO(found["csv"])))
    for part in ("combined", "alone"):
        said = [(r["change"], int(r["peak_bytes"])) for r in rows if r["part"] == part]
        assert said == [(", ".join(o["changes"]), o["peak_bytes"]) for o in data[part]]
    assert data["fits"] and not data["fits_as_it_is"] and data["reached"]["peak_bytes"] <= data["budget_bytes"]
    for o in data["combined"]:
        assert o["changes"][0] in found["text"] and o["changes"][0] in found["markdown"].replace("\\", "")


@pytest.mark.parametrize("arguments", [[], ["--budget", "1GiB", "--on", "a100-40gb"], ["--budget", "12"], ["--on", "nowhere"]])
def test_the_command_wants_one_limit(arguments: list[str]) -> None:
    assert main(["advise", MODEL, *RUN, *arguments]) == 2


# measured ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_measured_step_keeps_to_the_budget() -> None:
    pytest.importorskip("torch")
    from validation.execute import GraphModule
    from validation.protocol import inputs_for, measure_training

    graph = memest.model(MODEL)
    start = memest.estimate(graph, input_shape=(4, 1, 16, 16, 16), optimizer="adam")
    advice = memest.advise(graph, start.peak_bytes // 2, input_shape=(4, 1, 16, 16, 16), optimizer="adam")
    assert advice.fits and not any(o.kind == "machines" for o in advice.combined)
    how = advice.keywords
    segments = "+".join(s.name for s in advice.reached.recipe.segments)
    levers = [f"checkpoint:modules={segments}" if text.startswith("checkpoint") else text for text in how["levers"]]
    (shape,) = how["input_shape"].values()
    taken = measure_training(GraphModule(graph).train(), inputs_for([shape]), how["optimizer"], "cross_entropy", levers=levers)
    assert taken.peak_bytes == advice.reached.peak_bytes <= advice.budget_bytes < start.peak_bytes


CARD: dict[str, Any] = {"runtime": "torch-cuda", "machine": "a100-40gb", "torch": "2.14"}


SMALL = "unet2d:base_filters=8,levels=2"


@cache
def _on_a_card(card: str = "a100-40gb", model: str = "resnet18", **settings: Any) -> memest.Advice:
    asked = {**CARD, "machine": card, "optimizer": "adam", "input_shape": (48, 3, 128, 128), **settings}
    start = memest.estimate(memest.model(model), **asked)
    return memest.advise(memest.model(model), start.held_bytes - start.requested_bytes // 5, **asked)


@pytest.mark.slow
def test_on_a_card_its_own_levers_are_tried() -> None:
    changes = {o.changes[0] for o in _on_a_card().alone}
    own = {"alloc_conf=expandable_segments:True", "autocast:dtype=float16", "autocast:dtype=bfloat16", "channels_last"}
    assert own <= changes
    assert {"optimizer=adam:foreach=false", "optimizer=adam:fused=true"} <= changes
    assert any(c.startswith("checkpoint:budget=") for c in changes)
    assert not [r for r in _on_a_card().refused if "processor" in r.reason]


def test_on_a_card_what_counts_is_the_whole_process() -> None:
    advice = _on_a_card(model=SMALL, loss="binary_cross_entropy")
    assert advice.start.held_bytes == advice.start.process.bytes
    for option in advice.alone:
        assert option.peak_bytes == option.estimate.process.bytes
        assert option.saved_bytes == advice.start.held_bytes - option.peak_bytes
    fresh = memest.estimate(memest.model(SMALL), **advice.keywords)
    assert fresh.figures == advice.reached.figures
    assert advice.combined


def test_expandable_segments_go_beside_other_settings_of_the_allocator() -> None:
    def proposed(**settings: Any) -> list[str]:
        start = memest.estimate(memest.model("resnet18"), input_shape=(2, 3, 64, 64), **CARD, **settings)
        step = start.question.asked()
        found, _ = choices(
            Situation(graph=memest.model("resnet18"), shapes=start.input_shapes, sizes=start.sizes, step=step, limit=1 << 30)
        )
        return [c.change.text for c in found if c.candidate.name == "expandable segments"]

    assert proposed() == ["alloc_conf=expandable_segments:True"]
    assert proposed(alloc_conf="max_split_size_mb:64") == ["alloc_conf=max_split_size_mb:64,expandable_segments:True"]
    assert proposed(alloc_conf="expandable_segments:False") == []


@pytest.mark.slow
def test_bfloat16_is_proposed_to_cards_that_multiply_it() -> None:
    changes = {o.changes[0] for o in _on_a_card("t4").alone}
    assert "autocast:dtype=float16" in changes
    assert "autocast:dtype=bfloat16" not in changes


ON_ENGINES = [
    ("onnxruntime", {}, {"ort_pattern=false", "ort_mmap_threshold=262144", "ort_shrinkage=true", "threads=1"}),
    ("onnxruntime", {"ort_external": False, "ort_pattern": False}, {"ort_external=true", "ort_mmap_threshold=262144", "threads=1"}),
    ("openvino", {"ov_hint": "throughput"}, {"ov_hint=latency", "dtype=bfloat16", "threads=1"}),
]


@pytest.mark.parametrize(("runtime", "told", "tried"), ON_ENGINES)
def test_an_engines_own_settings_are_tried_and_torchs_levers_are_not(runtime: str, told: dict[str, Any], tried: set[str]) -> None:
    asked: dict[str, Any] = {"mode": "infer", "runtime": runtime, "machine": memest.Cpu(isa="avx512", threads=2), **told}
    advice = memest.advise(memest.model("unet3d"), "1MiB", input_shape=(2, 1, 32, 32, 32), **asked)
    found = {o.changes[0] for o in advice.alone}
    assert tried <= found and not found & {"inplace", "channels_last", "autocast"}
    assert not any(word in refusal.change for refusal in advice.refused for word in ("tiles", "inplace", "autocast"))
    assert not any("torch 2" in note for note in advice.notes)


def test_without_its_pattern_the_second_run_of_a_volume_takes_half() -> None:
    """The first thing to try on ONNX Runtime, by measurement (``shared/ENGINES.md``: 1.98 times)."""
    asked: dict[str, Any] = {"mode": "infer", "runtime": "onnxruntime", "machine": memest.Cpu(isa="avx512", threads=1)}
    graph = memest.model("unet3d")
    start = memest.estimate(graph, input_shape=(1, 1, 64, 64, 64), **asked)
    advice = memest.advise(graph, start.held_bytes - 1, input_shape=(1, 1, 64, 64, 64), **asked)
    assert [o.changes for o in advice.combined] == [("ort_pattern=false",)]
    assert advice.combined[0].saved_bytes > 60 << 20
