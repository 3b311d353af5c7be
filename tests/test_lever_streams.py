"""Every lever against torch: the same step, with what a user would write, measured and predicted event by event."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from memest.estimate.estimate import estimate
from memest.levers.table import LEVERS
from memest.machines.cpu import Cpu
from memest.sources.builder import Builder

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from memest.sources import models  # noqa: E402
from memest.sources.importers.torch.network import from_torch  # noqa: E402
from validation import levers as torch_levers  # noqa: E402
from validation.execute import GraphModule  # noqa: E402
from validation.protocol import Measurement, inputs_for, measure_inference, measure_training  # noqa: E402
from validation.streams import first_difference  # noqa: E402

NETWORKS: dict[str, tuple[str, tuple[int, ...]]] = {
    "image": ("unet2d:base_filters=4,levels=2,inplace=false", (3, 3, 16, 24)),
    "volume": ("plain_conv_unet:dims=3,features_per_stage=4-8", (3, 1, 8, 8, 12)),
}
FROZEN = {"image": "encoder.0", "volume": "encoder.stages.0"}
TRAININGS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("accumulate:steps=4",), {}),
    (("accumulate:steps=2,mean=false",), {"hold_output": True}),
    (("micro_batch:size=2",), {}),
    (("micro_batch:size=1", "accumulate:steps=2"), {"hold_output": True}),
    (("clip:norm=1",), {}),
    (("clip:norm=1,foreach=false",), {"optimizer": "sgd:momentum=0.9"}),
    (("ema",), {"first_step": True}),
    (("ema:buffers=true",), {}),
    (("offload_optimizer",), {}),
    (("offload_optimizer",), {"first_step": True}),
    (("freeze:modules=FROZEN",), {}),
    (("freeze:modules=FROZEN,eval=true",), {}),
    (("inplace",), {}),
    (("autocast",), {}),
    (("channels_last",), {}),
    (("freeze:modules=FROZEN", "inplace", "micro_batch:size=2", "clip:norm=1", "ema", "offload_optimizer"), {"optimizer": "adamw"}),
)
INFERENCES = (
    ("inplace",),
    ("channels_last",),
    ("tiles:size=8,halo=2",),
    ("tiles:size=8x8,halo=0x2", "channels_last"),
    ("sliding_window:size=16x16",),
    ("sliding_window:size=16x16,mirror=1", "autocast"),
    ("sliding_window:size=16x32,step=0.75,mirror=0+1,gaussian=false,ahead=0",),
)
MEASURED_ELSEWHERE = {
    "checkpoint": "test_checkpointing.py",
    "autocast": "test_autocast.py",
    "ddp": "test_distributed.py",
    "fsdp": "test_distributed.py",
    "sliding_window_inference": "test_sliding_window_inference.py",
    "zero": "test_distributed.py",
}
every_network = pytest.mark.parametrize("network", ["image", pytest.param("volume", marks=pytest.mark.slow)])


def same(predicted: Any, measured: Measurement) -> None:
    """Resident bytes, every event and the peak agree."""
    difference = first_difference(predicted.events, measured.events)
    assert difference is None, f"\n{difference}"
    assert predicted.standing_bytes == measured.standing_bytes
    assert predicted.peak_bytes == measured.peak_bytes


@every_network
@pytest.mark.parametrize(
    ("levers", "recipe"),
    [pytest.param(*training, marks=pytest.mark.slow if i % 2 else ()) for i, training in enumerate(TRAININGS)],
    ids=lambda v: "+".join(v) if isinstance(v, tuple) else "-".join(v),
)
def test_training_with_levers_is_that_of_torch(network: str, levers: tuple[str, ...], recipe: dict[str, Any], cpu: Cpu) -> None:
    model, shape = NETWORKS[network]
    pulled = [text.replace("FROZEN", FROZEN[network]) for text in levers]
    options: dict[str, Any] = {"optimizer": "adam", "loss": "cross_entropy", **recipe}
    graph = models.build(model)
    predicted = estimate(graph, input_shape=shape, mode="train", machine=cpu, levers=pulled, **options)
    same(predicted, measure_training(GraphModule(graph).train(), inputs_for([shape]), levers=pulled, **options))


@every_network
@pytest.mark.parametrize("levers", INFERENCES, ids="+".join)
def test_inference_with_levers_is_that_of_torch(network: str, levers: tuple[str, ...], cpu: Cpu) -> None:
    model, shape = NETWORKS[network]
    if len(shape) == 5:
        shape = (1, *shape[1:]) if "sliding" in levers[0] else shape
        levers = tuple(text.replace("16x", "8x8x").replace("8x8,", "8x8x8,").replace("0x2", "0x2x1") for text in levers)
    graph = models.build(model)
    predicted = estimate(graph, input_shape=shape, mode="infer", machine=cpu, levers=levers)
    same(predicted, measure_inference(GraphModule(graph), inputs_for([shape]), levers=levers))


def test_windows_in_the_middle_hold_what_their_neighbours_hold(cpu: Cpu) -> None:
    """45 windows, of which memest plays 7: the same bytes are there before, and at the highest moment."""
    graph, shape, levers = models.build(NETWORKS["image"][0]), (3, 3, 16, 24), ["sliding_window:size=8"]
    predicted = estimate(graph, input_shape=shape, mode="infer", machine=cpu, levers=levers)
    measured = measure_inference(GraphModule(graph), inputs_for([shape]), levers=levers)
    assert (predicted.standing_bytes, predicted.peak_bytes) == (measured.standing_bytes, measured.peak_bytes)
    assert len(predicted.events) < len(measured.events) / 5


def test_every_lever_is_measured() -> None:
    """Here, or in the file of its own that a lever needs."""
    pulled = {text.partition(":")[0] for levers, _ in TRAININGS for text in levers} | {t.partition(":")[0] for ts in INFERENCES for t in ts}
    assert pulled | set(MEASURED_ELSEWHERE) >= set(torch_levers.LEVERS) and list(torch_levers.LEVERS) == list(LEVERS)
    for lever, name in MEASURED_ELSEWHERE.items():
        assert lever in (Path(__file__).parent / name).read_text(encoding="utf-8")


def test_dropout_in_place_behind_a_pool_that_turns_its_result(cpu: Cpu) -> None:
    """Global pooling of channels_last makes its result channels_last in place (as_strided_): a node that what follows hangs on."""
    b = Builder("classifier")
    x = b.layer("conv2d", b.input("x", ("N", 3, "H", "W")), out_channels=8, kernel_size=3)
    x = b.layer("flatten", b.layer("adaptive_avg_pool2d", x, output_size=1), start_dim=1)
    graph, shape = b.build(b.layer("linear", b.layer("dropout", x, inplace=True), out_features=4)), (2, 3, 9, 8)
    predicted = estimate(graph, input_shape=shape, levers=["channels_last"], machine=cpu)
    same(predicted, measure_training(GraphModule(graph).train(), inputs_for([shape]), "sgd", "cross_entropy", levers=["channels_last"]))


def test_a_flatten_that_copies_in_other_layouts(cpu: Cpu) -> None:
    """Recorded as a view, run as a copy: the copy is nobody's view, and what it was made from dies as Python lets go of it."""
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.LeakyReLU(inplace=True), nn.Linear(8 * 7 * 6, 4))
    graph, shape = from_torch(module, (2, 3, 9, 8)), (2, 3, 9, 8)
    for levers in ([], ["channels_last"]):
        predicted = estimate(graph, input_shape=shape, levers=levers, machine=cpu)
        same(predicted, measure_training(copy.deepcopy(module).train(), inputs_for([shape]), "sgd", "cross_entropy", levers=levers))
