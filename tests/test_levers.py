"""Levers: reading them, contradictions, and that each says what it is."""

from __future__ import annotations

import pytest

import memest
from memest.errors import UnknownNameError, UsageError
from memest.estimate.estimate import estimate
from memest.estimate.summary import read_peak
from memest.levers.table import LEVERS, setting, settings
from memest.runtimes.compiling import DIRECT_PLAYS, programs_of
from memest.runtimes.table import play

EXAMPLES: dict[str, str] = {
    "freeze": "freeze:modules=encoder.0,eval=true",
    "inplace": "inplace",
    "channels_last": "channels_last",
    "micro_batch": "micro_batch:size=2",
    "accumulate": "accumulate:steps=3",
    "offload_optimizer": "offload_optimizer",
    "autocast": "autocast",
    "clip": "clip:norm=1",
    "ema": "ema:buffers=true",
    "tiles": "tiles:size=16,halo=2",
    "sliding_window": "sliding_window:size=16,mirror=0+1",
    "sliding_window_inference": "sliding_window_inference:roi_size=16,sw_batch_size=2",
    "ddp": "ddp:gradient_as_bucket_view=true",
    "fsdp": "fsdp:blocks=encoder.0+decoder.0,world=3",
    "zero": "zero:stage=1",
    "checkpoint": "checkpoint:modules=encoder.0+decoder.0",
}
NET = {"base_filters": 4, "levels": 2, "inplace": False}
SHAPES = [(n, 3, h, w) for n, h, w in ((2, 16, 24), (3, 32, 16), (4, 32, 32), (5, 24, 40), (5, 48, 40), (6, 48, 40))]


@pytest.mark.parametrize("name", LEVERS)
def test_every_lever_says_what_it_does_what_it_costs_and_where_its_rule_was_read(name: str) -> None:
    lever = LEVERS[name]
    assert lever.summary and lever.price and lever.source and lever.modes
    assert set(lever.excludes) <= set(LEVERS)
    assert all(option.summary for option in lever.options.values())


def test_a_wrong_name_is_met_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="channels_last"):
        setting("chanels_last")


def test_a_lever_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="twice"):
        settings(["channels_last", "channels_last"], "train")


def test_an_estimate_says_which_levers_it_was_made_with() -> None:
    est = memest.estimate(memest.model("resnet18"), input_shape=(2, 3, 64, 64), levers=["channels_last"])
    assert est.levers == ("channels_last",) and est.to_dict()["levers"] == ["channels_last"]


def test_every_lever_has_an_example() -> None:
    assert set(EXAMPLES) == set(LEVERS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_estimates_at_many_sizes_are_what_playing_them_says(name: str) -> None:
    """The compiled step of a graph with a lever pulled, against playing the same step."""
    graph = memest.model("unet2d", **NET)
    mode = LEVERS[name].modes[0]
    found = [estimate(graph, input_shape=shape, mode=mode, optimizer="adam", levers=[EXAMPLES[name]]) for shape in SHAPES]
    for est in found:
        assert est.summary == read_peak(play(est.played, est.input_shapes, est.sizes, est.recipe))
    assert len(SHAPES) > DIRECT_PLAYS + 1
    assert any(programs_of(e.played, e.recipe).known for e in found)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_lever_moves_the_step(name: str) -> None:
    """Without an effect on the events or on what is resident a lever would be a word only."""
    graph = memest.model("unet2d", **NET)
    mode = LEVERS[name].modes[0]
    plain = estimate(graph, input_shape=(4, 3, 32, 32), mode=mode, optimizer="adam")
    pulled = estimate(graph, input_shape=(4, 3, 32, 32), mode=mode, optimizer="adam", levers=[EXAMPLES[name]])
    assert (plain.standing_bytes, [e.delta for e in plain.events]) != (pulled.standing_bytes, [e.delta for e in pulled.events])


def test_inplace_is_what_writing_it_into_the_network_gives() -> None:
    plain, written = (memest.model("unet2d", **{**NET, "inplace": inplace}) for inplace in (False, True))
    for mode in ("train", "infer"):
        pulled = estimate(plain, input_shape=(2, 3, 16, 24), mode=mode, levers=["inplace"])
        assert [e.delta for e in pulled.events] == [e.delta for e in estimate(written, input_shape=(2, 3, 16, 24), mode=mode).events]


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        ("freeze:modules=encodr.0", "train", "did you mean 'encoder.0'"),
        ("tiles:size=16,halo=2", "train", "means nothing in mode 'train'"),
        ("tiles:size=16,halo=8", "infer", "use more than 16"),
        ("tiles:size=16x16x16,halo=0", "infer", "3 sizes, the input has 2"),
        ("sliding_window:size=16", "train", "means nothing in mode 'train'"),
        ("sliding_window", "infer", "needs option 'size'"),
        ("sliding_window:size=16x16x16", "infer", "sliding_window: size has 3 sizes, the input has 2"),
        ("sliding_window:size=16,step=1.5", "infer", "expected a number above 0, at most 1"),
        ("sliding_window:size=16,mirror=2", "infer", "mirror=2 is no axis of an input with 2 spatial dims"),
        ("sliding_window:size=16,mirror=0+0", "infer", "expected spatial axes joined by +"),
        ("sliding_window:size=16,ahead=100", "infer", "expected a whole number up to 64"),
        ("accumulate:steps=0", "train", "at least 1"),
        ("micro_batch", "train", "needs option 'size'"),
        ("clip:norm=-1", "train", "above 0"),
        ("ema:buffers=perhaps", "train", "true or false"),
    ],
)
def test_what_cannot_be_is_refused_in_words(text: str, mode: str, message: str) -> None:
    with pytest.raises(memest.MemestError, match=message):
        estimate(memest.model("unet2d", **NET), input_shape=(2, 3, 32, 32), mode=mode, levers=[text])


def test_a_batch_of_fixed_size_is_not_split() -> None:
    graph = memest.loads("inputs: {x: [4, 3, 8, 8]}\nlayers: [conv2d: {in: x, out_channels: 2, kernel_size: 3}]")
    with pytest.raises(UsageError, match="described for batch 4"):
        estimate(graph, levers=["micro_batch:size=2"])


def test_a_batch_in_too_many_slices_is_refused() -> None:
    with pytest.raises(UsageError, match="larger ones"):
        memest.estimate(memest.model("resnet18"), input_shape=(65536, 3, 32, 32), levers=["micro_batch:size=4"])
