"""Autocast: calls and whole steps as torch makes them within the context."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError, UsageError
from memest.machines.cpu import Cpu
from memest.ops.composite import Composite
from memest.ops.facts import FALLS_THROUGH, FLOAT32, LOWER, PROMOTE, REFUSED, Policy
from memest.ops.operator import Example, Operator
from memest.ops.table import COMPOSITES, OPERATORS
from memest.runtimes.runtime import AS_DESCRIBED
from memest.runtimes.torch.losses import loss_named
from memest.runtimes.torch.step import Autocast

Row = Operator | Composite
ROWS: dict[str, Row] = {**OPERATORS, **COMPOSITES}
CALLS = [(row, i) for row in ROWS.values() for i in range(len(row.examples)) if row.facts.autocast is not REFUSED]


INSIDE = ("nll_loss", "einsum", "pad", "local_response_norm", "instance_norm", "max_pool1d", "dice_loss")  # made of calls, some listed


def example(row: Row, number: int) -> Any:
    """A parameter of the tests: one example of a row. The first of each row that autocast reaches is quick, the others are slow ones."""
    quick = (row.facts.autocast is not FALLS_THROUGH or row.name in INSIDE) and number == 0
    return pytest.param(row, row.examples[number], id=f"{row.name}-{number}", marks=() if quick else pytest.mark.slow)


# policies ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "attributes", "policy"),
    [
        ("conv2d", {}, LOWER),
        ("batch_norm", {}, FALLS_THROUGH),
        ("cat", {}, PROMOTE),
        ("max_pool3d", {"return_indices": False}, FLOAT32),
        ("max_pool3d", {"return_indices": True}, FALLS_THROUGH),
        ("_border_pad", {"mode": "reflect", "pad": (1,) * 4}, FLOAT32),
        ("_border_pad", {"mode": "reflect", "pad": (1,) * 6}, FALLS_THROUGH),
        ("_border_pad", {"mode": "replicate", "pad": (1,) * 6}, FLOAT32),
    ],
)
def test_policies_by_overload(op: str, attributes: dict[str, Any], policy: Policy) -> None:
    assert AS_DESCRIBED.policy(ROWS[op], attributes.items()) is policy


@pytest.mark.parametrize(
    ("loss", "policy"),
    [
        ("cross_entropy", FLOAT32),
        ("ce:label_smoothing=0.1", FLOAT32),
        ("nll_loss", FALLS_THROUGH),
        ("dice", FALLS_THROUGH),
        ("0.5*cross_entropy", FALLS_THROUGH),
        ("cross_entropy + dice", FALLS_THROUGH),
    ],
)
def test_a_loss_of_one_term_is_cast_as_that_term(loss: str, policy: Policy) -> None:
    """What is scaled or summed falls through, and its calls are looked at one by one."""
    assert AS_DESCRIBED.policy(loss_named(loss).composite, ()) is policy


# calls ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("row", "example"), [example(row, i) for row, i in CALLS])
def test_calls_in_the_context_are_those_of_torch(row: Row, example: Example, cpu: Cpu) -> None:
    """Every row's examples, called within the context and differentiated outside."""
    pytest.importorskip("torch")
    from validation.rows import measure, normalized, predict

    if row.name == "_euclidean_dist":  # what torch keeps is of two types, and its backward refuses them
        with pytest.raises(RuntimeError, match="BFloat16"):
            measure(row, example, autocast=Autocast())
        return
    try:
        predicted = predict(row, example, cpu, autocast=Autocast())
    except UnsupportedError as e:
        assert row.name == "bilinear" or (
            row.name in ("lstm", "packed_lstm", "mkldnn_rnn_layer") and "LSTM is modelled in float32" in str(e)
        )
        return
    measured = measure(row, example, autocast=Autocast())
    assert normalized(predicted) == normalized([e.delta for e in measured]), "\n".join(f"{e.delta:>12} {e.where}" for e in measured)


MIXED = ("batch_norm", "group_norm", "layer_norm", "instance_norm", "add", "mul")


@pytest.mark.parametrize("half", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("row", "example"),
    [
        pytest.param(ROWS[n], e, id=f"{n}-{i}", marks=() if i < 2 else pytest.mark.slow)
        for n in MIXED
        for i, e in enumerate(ROWS[n].examples)
    ],
)
def test_what_falls_through_mixes_half_activations_and_float32(row: Row, example: Example, half: str, cpu: Cpu) -> None:
    """Norms of a half input with float32 parameters, and sums and products of half and float32."""
    pytest.importorskip("torch")
    from validation.rows import measure, normalized, predict

    mixed = replace(example, dtypes=(half, *(example.dtypes[1:] or ("float32",) * len(example.shapes[1:]))))
    measured = measure(row, mixed)
    assert normalized(predict(row, mixed, cpu)) == normalized([e.delta for e in measured])


# steps ---------------------------------------------------------------------------------------------------------------------


def networks() -> dict[str, tuple[Any, tuple[int, ...]]]:
    """What casts can do: be shared by uses of a weight, belong to a frozen weight, meet float32 in a norm, a pool, a sum and a cat."""
    import torch
    from torch import nn

    def frozen(module: Any) -> Any:
        module.requires_grad_(False)
        return module

    class Asking(nn.Module):
        """Asks its tensors for their dtype, as stochastic depth and many norms do."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 4)

        def forward(self, x: Any) -> Any:
            y = self.first(x)
            noise = torch.empty([y.shape[0], 1], dtype=y.dtype, device=y.device).bernoulli_(0.5)
            y = y * noise + torch.full((16,), 2.0, dtype=y.dtype)
            return self.second(torch.exp(y).to(y.dtype) + x.type_as(y))

    tied = nn.Linear(16, 16)
    unit = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(inplace=True), nn.MaxPool3d(2))
    return {
        "asking": (Asking(), (4, 16)),
        "linear": (nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10)), (4, 20)),
        "tied": (nn.Sequential(tied, nn.ReLU(), tied, nn.ReLU(), tied), (4, 16)),
        "frozen": (nn.Sequential(nn.Linear(16, 16), frozen(nn.Linear(16, 16)), nn.Linear(16, 5)), (4, 16)),
        "norms": (
            nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.GELU(), nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 5)),
            (3, 4, 16),
        ),
        "volume": (nn.Sequential(*unit, nn.Conv3d(8, 4, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten()), (2, 1, 8, 8, 8)),
        "image": (
            nn.Sequential(
                nn.Conv2d(3, 16, 3, bias=False),
                nn.BatchNorm2d(16),
                nn.ReLU(inplace=True),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(16, 4),
            ),
            (2, 3, 12, 12),
        ),
    }


LEVERS = ("autocast", "autocast:loss=outside", "autocast:cache=false")
NAMES = ("asking", "linear", "tied", "frozen", "norms", "volume", "image")


def step(name: str, lever: str) -> Any:
    """A parameter of the tests: the plain context is tried on every network, the others on one."""
    return pytest.param(name, lever, marks=() if lever == "autocast" or name == "tied" else pytest.mark.slow)


@pytest.mark.parametrize(("name", "lever"), [step(name, lever) for name in NAMES for lever in LEVERS])
def test_a_training_step_is_that_of_torch(name: str, lever: str, cpu: Cpu) -> None:
    pytest.importorskip("torch")
    from memest.sources.importers.torch.network import from_torch
    from validation.protocol import inputs_for, measure_training

    module, shape = networks()[name]
    recipe: dict[str, Any] = {"optimizer": "sgd:momentum=0.9", "loss": "cross_entropy", "hold_output": lever == "autocast:cache=false"}
    predicted = memest.estimate(from_torch(module.train(), shape), input_shape=shape, mode="train", machine=cpu, levers=[lever], **recipe)
    same(predicted, measure_training(module, inputs_for([shape]), levers=[lever], **recipe))


@pytest.mark.parametrize(("name", "lever"), [step(name, lever) for name in NAMES for lever in LEVERS if "loss" not in lever])
def test_an_inference_call_is_that_of_torch(name: str, lever: str, cpu: Cpu) -> None:
    pytest.importorskip("torch")
    from memest.sources.importers.torch.network import from_torch
    from validation.protocol import inputs_for, measure_inference

    module, shape = networks()[name]
    predicted = memest.estimate(from_torch(module.eval(), shape), input_shape=shape, mode="infer", machine=cpu, levers=[lever])
    same(predicted, measure_inference(module, inputs_for([shape]), levers=[lever]))


def same(predicted: Any, measured: Any) -> None:
    """Resident bytes, every event and the peak agree."""
    from validation.streams import first_difference

    difference = first_difference(predicted.events, measured.events)
    assert difference is None, f"\n{difference}"
    assert predicted.standing_bytes == measured.standing_bytes
    assert predicted.peak_bytes == measured.peak_bytes


def test_a_compiled_step_says_what_a_played_one_says(cpu: Cpu) -> None:
    """From the third size on an estimate comes from the compiled program."""
    known = memest.model("resnet18")
    for batch, side in ((2, 64), (3, 64), (2, 96), (4, 80), (5, 128)):
        options: dict[str, Any] = {"input_shape": (batch, 3, side, side), "levers": ["autocast"], "machine": cpu}
        assert memest.estimate(known, **options).summary == memest.estimate(memest.model("resnet18"), **options).summary


# the context ---------------------------------------------------------------------------------------------------------------


def test_parameters_stay_float32_and_activations_do_not() -> None:
    graph, shape = memest.model("resnet18"), (16, 3, 128, 128)
    plain, cast = (memest.estimate(graph, input_shape=shape, levers=levers) for levers in ((), ("autocast",)))
    assert cast.standing_bytes == plain.standing_bytes
    assert cast.by_category()["activation"] < plain.by_category()["activation"]


def test_an_operator_that_casts_inside_is_refused() -> None:
    b = memest.Builder("net")
    graph = b.build(b.layer("affine_grid", b.input("theta", (2, 2, 3)), size=(2, 3, 4, 5)))
    with pytest.raises(UnsupportedError, match=r"affine_grid.*autocast"):
        memest.estimate(graph, mode="infer", levers=["autocast"])


@pytest.mark.parametrize("text", ["autocast:dtype=int8", "autocast:loss=somewhere", "autocast:cache=maybe"])
def test_a_wrong_option_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        memest.estimate(memest.model("resnet18"), input_shape=(2, 3, 64, 64), levers=[text])
