"""Tensors that a forward makes on the host: outside of the card's allocator, their copies on it, and torch's own errors said beforehand."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

import memest
from memest.network.graph import Graph
from tests.on_host import MEASURED, SHAPE, USES, Network, number
from validation.rows import normalized

FOUND: dict[str, list[int] | None] = json.loads(MEASURED.read_text(encoding="utf-8"))
ASKED: dict[str, Any] = {"input_shape": SHAPE, "loss": "cross_entropy", "torch": "2.14"}


def _graph(use: Any) -> Graph:
    return memest.from_torch(Network(use), SHAPE)


def test_every_network_was_measured() -> None:
    assert list(FOUND) == list(USES)
    assert {name for name, deltas in FOUND.items() if deltas is None} == {
        "added whole", "joined", "multiplied", "selected", "into a number",
    }  # fmt: skip


@pytest.mark.parametrize("name", USES)
def test_a_step_asks_the_card_for_what_torch_asks_it_for(name: str) -> None:
    graph, measured = _graph(USES[name]), FOUND[name]
    if measured is None:
        with pytest.raises(memest.UnsupportedError, match=r"on_host\.py:\d+\): .* on the host .*make tensors on x\.device"):
            memest.estimate(graph, machine="t4", **ASKED)
    else:
        found = memest.estimate(graph, machine="t4", **ASKED)
        assert normalized([e.delta for e in found.events]) == normalized(measured)
        assert found.allocated.claim == "exact"


@pytest.mark.parametrize("name", USES)
def test_a_file_keeps_where_tensors_lie(name: str) -> None:
    graph = _graph(USES[name])
    again = memest.loads(memest.dumps(graph))
    assert again.on_host == graph.on_host and again.refused == graph.refused
    if not graph.refused:
        here, there = (memest.estimate(g, machine="t4", **ASKED) for g in (graph, again))
        assert [e.delta for e in here.events] == [e.delta for e in there.events]
    assert bool(graph.on_host) is (name != "on the card")


@pytest.mark.parametrize("name", USES)
def test_on_the_processor_it_makes_no_difference_where_they_lie(name: str) -> None:
    """The same network whose every tensor is made on ``x.device``: there only one device is."""
    graph = _graph(USES[name])
    here = memest.estimate(graph, **ASKED)
    bare = memest.estimate(graph.with_(on_host=(), refused=()), **ASKED)
    assert [e.delta for e in here.events] == [e.delta for e in bare.events]


def test_a_constant_that_is_no_buffer_stays_on_the_host_and_a_cache_too() -> None:
    def kept(net: Network) -> Any:
        def use(y: torch.Tensor) -> torch.Tensor:
            if net.cache is None:
                net.cache = torch.arange(70_000.0)
            return y + net.cache.to(y.device)[:32] + net.constant.to(y.device)[:32]

        return use

    net = Network(lambda y: y)
    net.use = kept(net)
    graph = memest.from_torch(net, SHAPE)
    assert set(graph.on_host) >= {"kept", "constant"}
    found = memest.estimate(graph, machine="t4", **ASKED)
    assert found.standing_bytes < 70_000 * 4
    assert [e.delta for e in found.events].count(280_000) == 2
    assert memest.estimate(graph, **ASKED).unregistered_bytes == 2 * 70_000 * 4


def test_a_buffer_is_the_cards() -> None:
    class Buffered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 1, 1))
            self.register_buffer("shift", torch.zeros(32))

        def forward(self, x: torch.Tensor) -> Any:
            return (x * self.weight + self.shift).mean((2, 3))

    graph = memest.from_torch(Buffered(), SHAPE)
    assert graph.on_host == () and graph.refused == ()


def test_a_result_on_the_host_takes_nothing_of_the_card() -> None:
    graph = memest.from_torch(Network(lambda y: y.cpu()), SHAPE, mode="infer")
    found = memest.estimate(graph, input_shape=SHAPE, mode="infer", machine="t4")
    assert [e.delta for e in found.events if e.delta > 0] == [2 * 3 * 32 * 32 * 4]


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda y: y.cpu().to(y.device), "a gradient that flows through the host"),
        (lambda y: y[:, torch.arange(2), torch.arange(2, device=y.device)].sum() * y, "index tensors on the card and on the host"),
        (lambda y: y + torch.zeros(32, device="cpu"), "add of tensors on the card and on the host (zeros)"),
        (lambda y: torch.pow(y, number()), "pow of tensors on the card and on the host"),
    ],
)
def test_what_is_not_modelled_between_host_and_card_is_named(use: Any, words: str) -> None:
    with pytest.raises(memest.UnsupportedError) as caught:
        memest.estimate(_graph(use), machine="t4", **ASKED)
    assert words in str(caught.value) and "test_on_host.py:" in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_written_into_a_tensor_of_the_host_is_its_own() -> None:
    def use(y: torch.Tensor) -> torch.Tensor:
        table = torch.zeros(32, 1000, dtype=torch.float64)
        table[:, ::2] = torch.arange(500)
        table[0] = 1
        return y + table[:, 0].float().to(y.device)

    found = memest.estimate(_graph(use), machine="t4", **ASKED)
    assert max(e.delta for e in found.events) == 2 * 3 * 32 * 32 * 4


def test_the_device_of_a_tensor_is_torchs_cpu_to_the_code_around() -> None:
    seen: list[Any] = []

    def use(y: torch.Tensor) -> torch.Tensor:
        seen.extend([y.device == torch.device("cpu"), str(y.device), y.device.type, torch.zeros(1).device == y.device])
        return y

    _graph(use)
    assert seen[:4] == [True, "cpu", "cpu", True]


def test_autocast_leaves_what_lies_on_the_host_alone() -> None:
    graph = _graph(lambda y: y * torch.matmul(torch.eye(32), torch.eye(32)).to(y.device))
    found = memest.estimate(graph, machine="t4", levers="autocast:dtype=float16", **ASKED)
    assert 32 * 32 * 4 in [e.delta for e in found.events] and 32 * 32 * 2 not in [e.delta for e in found.events]
