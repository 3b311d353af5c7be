"""A network in another dtype: what is converted and what stays, and tiny networks against torch's ``module.to(dtype)``."""

from __future__ import annotations

from typing import Any

import pytest

from memest.errors import MemestError, UnknownNameError, UsageError
from memest.estimate.estimate import estimate
from memest.machines.cpu import Cpu
from memest.network.conversion import converted, dtype_of, floating_dtype
from memest.network.dtypes import ALIASES, FLOATING, ITEMSIZE
from memest.network.graph import Graph
from memest.network.tensor import numel
from memest.sources.builder import Builder

CPU = Cpu()
SHAPE = (2, 3, 8, 8)
every_dtype = pytest.mark.parametrize("dtype", sorted(FLOATING))


def network() -> Graph:
    """Parameters, floating buffers, an integer buffer, and a layer that names a dtype."""
    b = Builder("net")
    x = b.layer("batch_norm", b.input("input", ("N", 3, "H", "W")))
    return b.build(b.layer("to", b.layer("relu", x), dtype="float32"))


@every_dtype
def test_floating_tensors_are_converted_and_others_stay(dtype: str) -> None:
    before, after = network(), converted(network(), dtype)
    assert {p.dtype for p in before.parameters} == {"float32", "int64"}
    assert [p.dtype for p in after.parameters] == [dtype if p.dtype in FLOATING else p.dtype for p in before.parameters]
    assert [i.dtype for i in after.inputs] == [dtype]
    assert after.layers == before.layers
    assert dtype_of(after) == dtype


def test_conversion_is_remembered_and_undone() -> None:
    graph = network()
    assert converted(graph, "bfloat16") is converted(graph, "bfloat16")
    assert converted(graph, "float32") is graph
    assert converted(converted(graph, "float64"), "float32") == graph


def test_a_graph_in_several_dtypes_says_so() -> None:
    graph = network()
    (given,) = converted(graph, "float64").inputs
    assert dtype_of(graph.with_(inputs=(given,))) == "mixed"


@every_dtype
def test_bytes_follow_the_element(dtype: str) -> None:
    graph = network()
    e = estimate(graph, input_shape=SHAPE, mode="infer", dtype=dtype, machine=CPU)
    floats = numel(SHAPE) + sum(numel(p.shape) for p in graph.parameters if p.dtype in FLOATING)
    others = sum(ITEMSIZE[p.dtype] * numel(p.shape) for p in graph.parameters if p.dtype not in FLOATING)
    assert e.standing_bytes == floats * ITEMSIZE[dtype] + others
    assert e.dtype == e.to_dict()["dtype"] == dtype
    assert e.timeline.values[graph.outputs[0]].dtype == "float32", "a layer that names a dtype keeps it"


def test_left_out_the_graph_stays_as_described() -> None:
    graph = converted(network(), "float64")
    described, asked = (estimate(graph, input_shape=SHAPE, mode="infer", machine=CPU, dtype=d) for d in (None, "float64"))
    assert described.peak_bytes == asked.peak_bytes
    assert described.dtype == "float64"


@pytest.mark.parametrize("name", sorted(FLOATING))
def test_names_of_torch_are_accepted(name: str) -> None:
    assert floating_dtype(name) == name


@pytest.mark.parametrize(("name", "meant"), ALIASES.items())
def test_other_spellings_are_understood(name: str, meant: str) -> None:
    assert floating_dtype(name) == floating_dtype(name.upper()) == floating_dtype(f"torch.{name}") == meant


@pytest.mark.parametrize(("name", "meant"), [("bfloat", "bfloat16"), ("flaot64", "float64")])
def test_other_names_are_told_torchs(name: str, meant: str) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean '{meant}'"):
        floating_dtype(name)


@pytest.mark.parametrize("name", sorted(set(ITEMSIZE) - FLOATING))
def test_dtypes_a_network_cannot_have_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="converted to"):
        floating_dtype(name)


def test_what_torch_has_no_kernel_for_is_refused() -> None:
    b = Builder("net")
    graph = b.build(b.layer("avg_pool3d", b.input("input", (1, 2, 4, 4, 4)), kernel_size=2))
    estimate(graph, mode="infer", dtype="float64", machine=CPU)
    with pytest.raises(MemestError, match="avg_pool3d in bfloat16"):
        estimate(graph, mode="infer", dtype="bfloat16", machine=CPU)


# against torch -------------------------------------------------------------------------------------------------------------

RECIPES: tuple[dict[str, Any], ...] = (
    {"optimizer": "sgd:momentum=0.9", "loss": "cross_entropy"},
    {"optimizer": "adam", "loss": "binary_cross_entropy_with_logits", "first_step": True},
)


def normalizing() -> Any:
    """Norms, activations, poolings and resizing, without a matrix product."""
    from torch import nn

    return nn.Sequential(
        nn.BatchNorm2d(6), nn.Hardswish(), nn.MaxPool2d(2), nn.GroupNorm(3, 6), nn.GELU(), nn.AvgPool2d(3, 2, 1), nn.InstanceNorm2d(6),
        nn.Upsample(scale_factor=2, mode="bilinear"), nn.PReLU(6), nn.LayerNorm(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


@every_dtype
@pytest.mark.parametrize("recipe", RECIPES, ids=["sgd", "adam-first-step"])
def test_training_step_is_that_of_torch(dtype: str, recipe: dict[str, Any], cpu: Cpu) -> None:
    torch = pytest.importorskip("torch")
    from memest.sources.importers.torch.network import from_torch
    from validation.protocol import inputs_for, measure_training
    from validation.streams import first_difference

    module, shape = normalizing(), (3, 6, 16, 16)
    predicted = estimate(from_torch(module, shape), input_shape=shape, dtype=dtype, machine=cpu, **recipe)
    measured = measure_training(module.to(getattr(torch, dtype)), inputs_for([shape], dtype=dtype), **recipe)
    assert predicted.standing_bytes == measured.standing_bytes
    difference = first_difference(predicted.events, measured.events)
    assert difference is None, f"\n{difference}"
    assert predicted.peak_bytes == measured.peak_bytes
