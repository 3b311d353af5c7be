"""The estimate's own promises: its parts add up, sizes are bound or refused, numbers stay exact at any size."""

from __future__ import annotations

import json
from itertools import accumulate
from typing import Any

import pytest

import memest
from memest.errors import MemestError, ShapeError, UsageError
from memest.estimate.estimate import Estimate, estimate
from memest.estimate.peak import CATEGORIES
from memest.machines.cpu import Cpu
from memest.network.graph import Graph
from memest.sources.builder import Builder
from memest.sources.models import build

CPU = Cpu()
MODES: tuple[dict[str, Any], ...] = (
    {"mode": "infer"},
    {"optimizer": "adam"},
    {"optimizer": "adam", "first_step": True},
    {"optimizer": "sgd", "hold_output": True},
)


def network() -> Graph:
    """A small classifier with symbolic sizes."""
    b = Builder("net")
    x = b.input("input", ("N", 3, "H", "W"))
    x = b.layer("conv2d", x, out_channels=8, kernel_size=3, padding=1, bias=False)
    x = b.layer("relu", b.layer("batch_norm", x), inplace=True)
    return b.build(b.layer("conv2d", x, out_channels=4, kernel_size=1))


def pair() -> Graph:
    """Two inputs that share a batch."""
    b = Builder("pair")
    left, right = b.input("left", ("N", 3, "H", "W")), b.input("right", ("N", 3, "2*H", "W"))
    return b.build(b.layer("cat", [left, right], dim=2))


def played(**options: Any) -> Estimate:
    """One step on a described processor."""
    return estimate(network(), **{"input_shape": (2, 3, 16, 12), "machine": CPU, **options})


@pytest.mark.parametrize("options", MODES, ids=str)
def test_parts_add_up_to_the_peak(options: dict[str, Any]) -> None:
    e = played(**options)
    running = list(accumulate(s.delta for s in e.events))
    assert e.peak_bytes == e.standing_bytes + max(0, *running)
    assert e.standing_bytes == sum(s.nbytes for s in e.timeline.residents)
    assert sum(h.nbytes for h in e.holdings) == e.peak_bytes
    assert sum(e.by_category().values()) == e.peak_bytes
    assert sum(e.by_layer().values()) == e.peak_bytes
    assert set(e.by_category()) <= set(CATEGORIES)
    assert [h.nbytes for h in e.holdings] == sorted((h.nbytes for h in e.holdings), reverse=True)


@pytest.mark.parametrize("options", MODES, ids=str)
def test_moment_is_where_the_peak_is_first_reached(options: dict[str, Any]) -> None:
    e = played(**options)
    running = list(accumulate(s.delta for s in e.events))
    assert e.moment.index == running.index(max(running))
    step = e.events[e.moment.index]
    assert (e.moment.phase, e.moment.layer, e.moment.op) == (step.phase, step.layer, step.op)


def test_of_equal_peaks_the_first_counts() -> None:
    e = estimate(relus(), input_shape=(2, 3, 16, 12), mode="infer", machine=CPU)
    running = list(accumulate(s.delta for s in e.events))
    assert running.count(max(running)) > 1
    assert e.moment.index == running.index(max(running))


def test_what_is_kept_says_why() -> None:
    kept = [h for h in played(optimizer="adam").holdings if h.category == "activation"]
    assert kept
    assert all(h.reason and h.layer for h in kept)


def test_report_is_plain_data() -> None:
    e = played(optimizer="adam")
    data = json.loads(json.dumps(e.to_dict()))
    assert data["peak_bytes"] == e.peak_bytes
    assert data["input_shapes"] == {"input": [2, 3, 16, 12]}


@pytest.mark.parametrize(
    ("model", "loss", "noted"),
    [
        ("unet3d:levels=2", "cross_entropy", "cross_entropy over one channel"),
        ("unet3d:levels=2", "dice", "dice_loss over one channel"),
        ("vnet", "nll_loss", "nll_loss over one channel"),
        ("unet3d:levels=2", "binary_cross_entropy + dice:activation=sigmoid", ""),
        ("vnet", "binary_cross_entropy_with_logits", ""),
        ("unet3d:levels=2,out_channels=2", "cross_entropy", ""),
    ],
)
def test_a_loss_that_cannot_teach_one_channel_is_noted(model: str, loss: str, noted: str) -> None:
    e = estimate(build(model), input_shape=(1, 1, 32, 32, 32), loss=loss, machine=CPU)
    assert [noted in note for note in e.notes if "torch" not in note] == ([True] if noted else [])
    assert e.to_dict()["notes"] == list(e.notes)
    silent = estimate(build(model), input_shape=(1, 1, 32, 32, 32), mode="infer", machine=CPU)
    assert [note for note in silent.notes if "torch" not in note] == []


def test_batch_and_size_are_free() -> None:
    graph = network()
    small, large = (estimate(graph, input_shape=(n, 3, 16, 12), mode="infer", machine=CPU).standing_bytes for n in (1, 9))
    assert large - small == 8 * 3 * 16 * 12 * 4


def test_remembering_changes_nothing() -> None:
    """An estimate from a graph that was used before is the estimate from a fresh one."""
    used, shape = network(), (3, 3, 20, 11)
    for n in (1, 2, 5):
        estimate(used, input_shape=(n, 3, 16, 12), optimizer="adam", machine=CPU)
    again, fresh = (estimate(g, input_shape=shape, optimizer="adam", machine=CPU) for g in (used, network()))
    assert [s.delta for s in again.events] == [s.delta for s in fresh.events]
    assert (again.peak_bytes, again.moment, again.by_layer()) == (fresh.peak_bytes, fresh.moment, fresh.by_layer())


def test_peak_does_not_depend_on_what_is_asked_first() -> None:
    first, second = played(optimizer="adam"), played(optimizer="adam")
    peak = first.peak_bytes
    events = second.events
    assert peak == second.peak_bytes
    assert events == events and second.moment == first.moment


def test_sizes_far_beyond_64_bits_are_exact() -> None:
    """One image more costs the same bytes, whatever the number of images."""

    def infer(n: int) -> int:
        return estimate(relus(), input_shape=(n, 3, 16, 12), mode="infer", machine=CPU).peak_bytes

    assert infer(2**70) - infer(2**70 - 1) == infer(2) - infer(1) == 3 * 3 * 16 * 12 * 4
    assert estimate(network(), input_shape=(2**40, 3, 2**20, 2**20), optimizer="adam", machine=CPU).peak_bytes > 2**80


def relus() -> Graph:
    """Elementwise only: every size grows evenly."""
    b = Builder("relus")
    x = b.input("input", ("N", 3, "H", "W"))
    for _ in range(4):
        x = b.layer("relu", x)
    return b.build(x)


def test_several_inputs_come_as_a_list_or_by_name() -> None:
    shapes = {"left": (2, 3, 4, 5), "right": (2, 3, 8, 5)}
    listed = estimate(pair(), input_shape=list(shapes.values()), mode="infer", machine=CPU)
    named = estimate(pair(), input_shape=dict(reversed(shapes.items())), mode="infer", machine=CPU)
    assert listed.peak_bytes == named.peak_bytes == 2 * 2 * 3 * 12 * 5 * 4


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (None, "symbolic dims"),
        ((2, 3, 16), "4 dims"),
        ((2, 4, 16, 12), "says 3, got 4"),
        ((0, 3, 16, 12), "positive"),
        ((-2, 3, 16, 12), "positive"),
        ((2, 3, 1.5, 12), "positive integers"),
        ((True, 3, 16, 12), "positive integers"),
        ([(2, 3, 16, 12), (2, 3, 16, 12)], "1 inputs"),
        ({"inputt": (2, 3, 16, 12)}, "did you mean 'input'"),
        ({}, "no shape is given for input 'input'"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shape: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        played(input_shape=shape)


@pytest.mark.parametrize("shapes", [[(2, 3, 4, 5), (3, 3, 8, 5)], [(2, 3, 4, 5), (2, 3, 9, 5)]])
def test_inputs_that_contradict_each_other_are_refused(shapes: Any) -> None:
    with pytest.raises(UsageError, match="'right', dim"):
        estimate(pair(), input_shape=shapes, mode="infer", machine=CPU)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mode": "trian"}, UsageError, "did you mean 'train'"),
        ({"device": "cuda"}, UsageError, "name one"),
        ({"dtype": "int8"}, UsageError, "converted to float64"),
        ({"dtype": "flaot32"}, MemestError, "did you mean 'float32'"),
        ({"optimizer": "adamm"}, MemestError, "did you mean 'adam'"),
        ({"loss": "cross_entrop"}, MemestError, "did you mean 'cross_entropy'"),
    ],
)
def test_unknown_words_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        played(**options)


def test_threads_and_instruction_set_count() -> None:
    """The processor is part of the question: convolutions take other scratch under AVX2 or with one thread."""
    shape = (4, 3, 64, 64)
    peaks = {
        (isa, threads): [s.delta for s in played(input_shape=shape, machine=CPU.with_(isa=isa, threads=threads)).events]
        for isa in ("avx2", "avx512")
        for threads in (1, 2)
    }
    assert peaks["avx2", 2] != peaks["avx512", 2]
    assert peaks["avx512", 1] != peaks["avx512", 2]


@pytest.mark.parametrize(
    ("model", "shape", "said"),
    [
        ("unet3d:base_filters=2", (1, 1, 250, 250, 250), "; use multiples of 16: 240 or 256"),
        ("unet2d:base_filters=2", (1, 3, 64, 95), "; use multiples of 16: W=80 or 96"),
        ("unet2d:base_filters=2,levels=3", (1, 3, 30, 41), "; use multiples of 4: H=28 or 32, W=40 or 44"),
        ("vnet:base_filters=2", (1, 1, 40, 40, 40), "; use multiples of 16: 32 or 48"),
        ("resnet18", (1, 3, 1, 1), "; use a batch of 2 or more"),
        ("unet2d:base_filters=2", (1, 3, 16, 16), "; use a batch of 2 or more"),
        ("vgg11", (2, 3, 8, 8), "; use H = 32, W = 32 or more"),
        ("densenet121", (1, 3, 4, 4), "; use H = 61, W = 61 or more"),
        ("unet2d:base_filters=2", (2, 3, 8, 8), "; use multiples of 16: 16"),
        ("plain_conv_unet:features_per_stage=4-8-8,strides=1-2-1x2x2", (1, 1, 7, 10, 12), "; use multiples of 4: D=4 or 8, H=8 or 12"),
    ],
)
def test_sizes_a_network_does_not_run_at_come_with_those_it_does(model: str, shape: tuple[int, ...], said: str) -> None:
    graph = memest.model(model)
    with pytest.raises(ShapeError) as raised:
        estimate(graph, input_shape=shape)
    assert str(raised.value).endswith(said)


def test_a_failure_that_no_size_mends_gets_no_sizes() -> None:
    b = Builder("net")
    x = b.input("x", ("N", 2, "H", "W"))
    graph = b.build(b.layer("max_pool2d", b.layer("conv2d", x, out_channels=2, kernel_size=1), kernel_size=200))
    with pytest.raises(ShapeError) as raised:
        estimate(graph, input_shape=(1, 2, 8, 9))
    assert "multiples" not in str(raised.value)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((3, 64, 64), "the shape given has 3; the batch is missing: 1x3x64x64"),
        ((4, 64, 64), "the shape given has 3"),
        ((2, 64, 64, 3), "the graph says 3, got 64 (the graph's shape is Nx3xHxW); put the channels first"),
        ((2, 4, 64, 64), "the graph says 3, got 4 (the graph's shape is Nx3xHxW)"),
    ],
)
def test_a_missing_batch_and_channels_at_the_end_are_told(shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        estimate(memest.model("resnet18"), input_shape=shape)
    assert str(raised.value).endswith(said)
