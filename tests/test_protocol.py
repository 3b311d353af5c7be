"""End to end: tiny networks imported and estimated, and the same step measured in torch. Every event must be the same."""

from __future__ import annotations

from typing import Any

import pytest

from memest.estimate.estimate import estimate
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

from tiny import NETWORKS, built  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402
from validation.protocol import Measurement, inputs_for, measure_inference, measure_training  # noqa: E402
from validation.streams import first_difference  # noqa: E402

TRAININGS: tuple[dict[str, Any], ...] = (
    {"optimizer": "sgd:momentum=0.9", "loss": "cross_entropy"},
    {"optimizer": "adam", "loss": "cross_entropy", "first_step": True},
    {"optimizer": "adamw:foreach=true", "loss": "mse_loss", "hold_output": True},
)
every_network = pytest.mark.parametrize("name", NETWORKS)


def same(predicted: Any, measured: Measurement) -> None:
    """Resident bytes, every event and the peak agree."""
    assert predicted.standing_bytes == measured.standing_bytes
    difference = first_difference(predicted.events, measured.events)
    assert difference is None, f"\n{difference}"
    assert predicted.peak_bytes == measured.peak_bytes
    assert measured.events, "a step that allocates nothing shows nothing"


@every_network
@pytest.mark.parametrize("recipe", TRAININGS, ids=["sgd", "adam-first-step", "adamw-foreach-held"])
def test_training_step_is_that_of_torch(name: str, recipe: dict[str, Any], cpu: Cpu) -> None:
    module, shape = built(name)
    predicted = estimate(from_torch(module, shape), input_shape=shape, mode="train", machine=cpu, **recipe)
    same(predicted, measure_training(module, inputs_for([shape]), **recipe))


@every_network
def test_inference_is_that_of_torch(name: str, cpu: Cpu) -> None:
    module, shape = built(name)
    predicted = estimate(from_torch(module, shape), input_shape=shape, mode="infer", machine=cpu)
    same(predicted, measure_inference(module, inputs_for([shape])))


@pytest.mark.parametrize("name", ["plain", "residual", "skip", "volume"])
def test_channels_last_is_that_of_torch(name: str, cpu: Cpu) -> None:
    module, shape = built(name)
    layout = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    module = module.to(memory_format=layout)
    inputs = inputs_for([shape], channels_last=True)
    predicted = estimate(from_torch(module, inputs[0]), input_shape=shape, mode="train", optimizer="adam", machine=cpu)
    same(predicted, measure_training(module, inputs, "adam", "cross_entropy"))


def test_measuring_repeats_itself() -> None:
    """The oracle is deterministic: two measurements give one stream."""
    module, shape = built("residual")
    first, second = (measure_training(module, inputs_for([shape]), "adam", "cross_entropy") for _ in range(2))
    assert [e.delta for e in first.events] == [e.delta for e in second.events]


@pytest.mark.parametrize(("layers", "refused"), [(["conv2d", "exp", "relu_"], True), (["conv2d", "relu_"], False)])
def test_a_random_network_counts_as_refused_only_where_torch_refuses_it(layers: list[str], refused: bool, cpu: Cpu) -> None:
    from memest.sources.builder import Builder
    from validation.fuzz import Trial, run

    b = Builder("drawn")
    x = b.input("input", ("N", 3, "H", "W"))
    settings: dict[str, dict[str, Any]] = {"conv2d": {"out_channels": 4, "kernel_size": 1}, "relu_": {"inplace": True}}
    for name in layers:
        x = b.layer(name.rstrip("_"), x, **settings.get(name, {}))
    trial = Trial(graph=b.build(x), shape=(2, 3, 8, 8), mode="train", optimizer="sgd", loss="mse_loss", hold_output=False)
    outcome = run(trial, cpu)
    assert outcome is None if refused else outcome is not None and not outcome.failed
