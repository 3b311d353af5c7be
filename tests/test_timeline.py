"""The timeline's own promises: what is born dies, in torch's order of phases, and lifetimes follow the graph. Streams against torch
are in test_protocol."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from typing import Any

import pytest

from memest.errors import GraphError, UnknownNameError
from memest.estimate.estimate import Estimate, estimate
from memest.machines.cpu import Cpu
from memest.network.graph import Graph, Input, Layer, Parameter
from memest.sources.builder import Builder

CPU = Cpu()
SHAPE = (2, 3, 9, 8)
NAMES = ("conv2d", "relu", "conv2d_2")


def network(**conv: Any) -> Graph:
    """Two convolutions and a ReLU between them."""
    b = Builder("net")
    x = b.input("input", ("N", 3, "H", "W"))
    x = b.layer("conv2d", x, out_channels=4, kernel_size=3, padding=1, **conv)
    x = b.layer("relu", x)
    return b.build(b.layer("conv2d", x, out_channels=5, kernel_size=1))


def played(graph: Graph, **options: Any) -> Estimate:
    """One step on a described processor."""
    return estimate(graph, input_shape=SHAPE, machine=CPU, **options)


def parameter_bytes(graph: Graph) -> int:
    """Bytes of all trainable parameters."""
    total = 0
    for p in graph.parameters:
        n = 4
        for d in p.shape:
            n *= d
        total += n if p.trainable else 0
    return total


@pytest.mark.parametrize("options", [{"mode": "infer"}, {}, {"optimizer": "adam", "first_step": True}, {"hold_output": True}], ids=str)
def test_storages_are_born_once_and_die_once(options: dict[str, Any]) -> None:
    alive: set[int] = set()
    born: set[int] = set()
    for step in played(network(), **options).events:
        if step.delta > 0:
            assert step.storage.id not in born
            born.add(step.storage.id)
            alive.add(step.storage.id)
        else:
            assert step.delta == -step.storage.nbytes
            alive.remove(step.storage.id)


def test_only_gradients_outlive_a_training_step() -> None:
    graph = network()
    assert sum(s.delta for s in played(graph, optimizer="sgd:momentum=0.9").events) == parameter_bytes(graph)


def test_only_the_output_outlives_a_call() -> None:
    assert sum(s.delta for s in played(network(), mode="infer").events) == 2 * 5 * 9 * 8 * 4


def test_held_output_and_loss_live_through_backward() -> None:
    graph = network()
    held, dropped = (alive_at_end_of_phase(played(graph, hold_output=h), "backward") for h in (True, False))
    assert held - dropped == 2 * 5 * 9 * 8 * 4 + 4
    assert alive_at_end_of_phase(played(graph, hold_output=True), "optimizer_step") == parameter_bytes(graph)


def alive_at_end_of_phase(step: Estimate, phase: str) -> int:
    """Bytes on top of the resident ones after the last event of ``phase``."""
    totals = list(accumulate(s.delta for s in step.events))
    return totals[max(i for i, s in enumerate(step.events) if s.phase == phase)]


def test_phases_follow_one_another() -> None:
    phases = [s.phase for s in played(network(), optimizer="adam").events]
    assert list(dict.fromkeys(phases)) == ["forward", "loss", "backward", "optimizer_step"]
    assert phases == sorted(phases, key=["forward", "loss", "backward", "optimizer_step"].index)


def test_backward_runs_from_the_last_layer_to_the_first() -> None:
    layers = [s.layer for s in played(network()).events if s.phase == "backward" and s.layer in NAMES]
    assert list(dict.fromkeys(layers)) == list(reversed(NAMES))


def test_states_appear_in_the_first_step() -> None:
    graph = network()
    first, later = (played(graph, optimizer="adam", first_step=f) for f in (True, False))
    states = 2 * parameter_bytes(graph) + 4 * len(graph.parameters)
    assert later.standing_bytes - first.standing_bytes == states
    assert sum(s.delta for s in first.events) - sum(s.delta for s in later.events) == states


def test_frozen_parameters_take_no_gradient_and_no_state() -> None:
    whole, frozen = network(), network(trainable=False)
    weights = (4 * 3 * 9 + 4) * 4
    assert sum(s.delta for s in played(whole).events) - sum(s.delta for s in played(frozen).events) == weights
    assert played(whole, optimizer="adam").standing_bytes - played(frozen, optimizer="adam").standing_bytes == 2 * weights + 8


def test_nothing_is_kept_below_the_first_trainable_layer() -> None:
    kept = {s.storage.layer for s in played(network(trainable=False)).events if s.storage.category == "activation"}
    assert "conv2d" not in kept
    assert "relu" in kept


def test_shared_parameters_count_once() -> None:
    b = Builder("shared")
    x = b.input("input", ("N", 3, "H", "W"))
    x = b.layer("conv2d", x, name="conv", out_channels=3, kernel_size=3, padding=1)
    graph = b.build(b.layer("conv2d", x, name="again", shares="conv", padding=1))
    step = played(graph)
    assert len(graph.parameters) == 2
    assert sum(s.delta for s in step.events) == parameter_bytes(graph)
    assert Counter(s.category for s in step.timeline.residents) == {"parameter": 2, "input": 2}


def test_a_value_dies_after_its_last_reader() -> None:
    """Between the ReLU and its reader the convolution's output is gone, unless a frame holds it."""
    b = Builder("held")
    x = b.input("input", ("N", 3, "H", "W"))
    first = b.layer("conv2d", x, out_channels=4, kernel_size=3, padding=1)
    with b.holding(first):
        y = b.layer("conv2d", b.layer("relu", first), out_channels=5, kernel_size=1)
    held, free = played(b.build(y), mode="infer"), played(network(), mode="infer")
    size = 2 * 4 * 9 * 8 * 4
    assert alive_at_end_of(free, "relu") == size
    assert alive_at_end_of(held, "relu") == 2 * size
    assert sum(s.delta for s in held.events) == sum(s.delta for s in free.events)


def alive_at_end_of(step: Estimate, layer: str) -> int:
    """Bytes on top of the resident ones when ``layer`` has run and its dead are gone."""
    totals = list(accumulate(s.delta for s in step.events))
    return totals[max(i for i, s in enumerate(step.events) if s.layer == layer)]


def test_views_take_nothing() -> None:
    b = Builder("view")
    x = b.layer("relu", b.input("input", ("N", 3, "H", "W")))
    graph = b.build(b.layer("flatten", x, start_dim=1))
    assert [s.delta for s in played(graph, mode="infer").events] == [2 * 3 * 9 * 8 * 4]


def test_in_place_takes_nothing() -> None:
    b = Builder("inplace")
    x = b.layer("relu", b.input("input", ("N", 3, "H", "W")))
    graph = b.build(b.layer("relu", x, inplace=True))
    assert [s.delta for s in played(graph, mode="infer").events] == [2 * 3 * 9 * 8 * 4]


def test_inference_has_a_graph_of_its_own_where_control_flow_differs() -> None:
    one, other = network(), network(bias=False)
    step = played(one.with_(inference=other), mode="infer")
    assert [s.delta for s in step.events] == [s.delta for s in played(other, mode="infer").events]
    assert step.standing_bytes == played(other, mode="infer").standing_bytes


def test_an_untrainable_network_is_refused() -> None:
    b = Builder("nothing")
    graph = b.build(b.layer("relu", b.input("input", ("N", 3, "H", "W"))))
    with pytest.raises(GraphError, match="nothing to train"):
        played(graph)


def graph_of(*layers: Layer) -> Graph:
    """A graph put together by hand, without the builder's checks."""
    weight = Parameter(name="w", shape=(4, 3, 3, 3))
    return Graph(name="bare", inputs=(Input(name="x", shape=SHAPE),), parameters=(weight,), layers=layers, outputs=(layers[-1].outputs[0],))


def test_errors_name_the_layer() -> None:
    dangling = Layer(name="first", op="relu", tensors=("missing",), outputs=("first",))
    with pytest.raises(GraphError, match=r"layer 'first' \(relu\).*'missing'"):
        played(graph_of(dangling), mode="infer")
    unknown = Layer(name="first", op="rellu", tensors=("x",), outputs=("first",))
    with pytest.raises(UnknownNameError, match=r"layer 'first' \(rellu\).*did you mean 'relu'"):
        played(graph_of(unknown), mode="infer")
    many = Layer(name="first", op="relu", tensors=("x",), outputs=("a", "b"))
    with pytest.raises(GraphError, match=r"layer 'first' \(relu\).*gives 1 outputs, 2 are named"):
        played(graph_of(many), mode="infer")
