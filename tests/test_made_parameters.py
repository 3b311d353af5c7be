"""Parameters and whole networks that a training step makes itself: probes, prompts, perturbations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402
from torch.autograd import Variable  # noqa: E402

from validation.steps import Case, compare  # noqa: E402


def net() -> Any:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


def inputs() -> list[Any]:
    return [torch.rand(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)]


def perturbation() -> Case:
    model = net().requires_grad_(False)

    def step(x: Any, y: Any) -> None:
        delta = nn.Parameter(torch.zeros_like(x))
        optimizer = torch.optim.SGD([delta], lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(model(x + delta), y).backward()
            optimizer.step()
            delta.data.clamp_(-0.1, 0.1)

    return Case(step, inputs(), [model])


def probe() -> Case:
    model = net().eval()

    def step(x: Any, y: Any) -> None:
        with torch.no_grad():
            features = model[:5](x)
        head = nn.Linear(4, 5)
        nn.init.kaiming_normal_(head.weight, mode="fan_out", nonlinearity="relu")
        optimizer = torch.optim.SGD(head.parameters(), 0.1)
        F.cross_entropy(head(features), y).backward()
        optimizer.step()

    return Case(step, inputs(), [model])


def network() -> Case:
    def step(x: Any, y: Any) -> None:
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    return Case(step, inputs(), [])


def prompt() -> Case:
    """The newest one stands in the next step, with its gradient."""
    model, box = net().requires_grad_(False), {}

    def step(x: Any, y: Any) -> None:
        made = nn.Parameter(torch.randn(1, 3, 8, 8))
        optimizer = torch.optim.Adam([made], lr=0.1)
        F.cross_entropy(model(x + made), y).backward()
        optimizer.step()
        box["prompt"] = made

    return Case(step, inputs(), [model, box])


def variables() -> Case:
    """Old code puts ``Variable`` around all."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step(x: Any, y: Any) -> Any:
        x, y = Variable(x), Variable(y)
        noise = Variable(x * 2, requires_grad=True)
        optimizer.zero_grad()
        (F.cross_entropy(model(x), y) + model(noise).sum()).backward()
        optimizer.step()
        return noise.grad.sum()

    return Case(step, inputs(), [model, optimizer])


CASES: dict[str, Callable[[], Case]] = {make.__name__: make for make in (perturbation, probe, network, prompt, variables)}


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_torch_allocates(name: str, cpu: Cpu) -> None:
    outcome = compare(CASES[name](), cpu)
    assert not outcome.failed, str(outcome.difference)


def test_others_are_made_as_ever_meanwhile() -> None:
    made: list[Any] = []

    def step(x: Any) -> None:
        made.append(isinstance(nn.Parameter(x), nn.Parameter))
        x.sum()

    memest.step(step, torch.rand(2, 3))
    assert all(made)
    assert type(nn.Parameter(torch.rand(3))) is nn.Parameter


def test_what_draws_until_it_fits_is_refused() -> None:
    def step(x: Any) -> None:
        head = nn.Linear(3, 5)
        nn.init.trunc_normal_(head.weight, std=0.02)
        head(x).sum().backward()

    if "any" not in nn.init._no_grad_trunc_normal_.__code__.co_names:
        pytest.skip("this torch draws once")
    with pytest.raises(UnsupportedError, match="trunc_normal_, which draws until all numbers fit"):
        memest.step(step, torch.rand(2, 3))
