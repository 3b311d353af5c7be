"""Optimizers that a training step makes itself: inner loops, local clients, images that are optimized."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from validation.steps import Case, compare  # noqa: E402


def net() -> Any:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


def inputs() -> list[Any]:
    return [torch.rand(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)]


def inner_loop(make: Callable[[Any], Any]) -> Case:
    """Reptile: a copy is trained for two steps, and the weights follow it."""
    model = net()

    def step(x: Any, y: Any) -> None:
        fast = copy.deepcopy(model)
        optimizer = make(fast.parameters())
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(fast(x), y).backward()
            optimizer.step()
        with torch.no_grad():
            for p, q in zip(model.parameters(), fast.parameters(), strict=True):
                p.add_(q - p, alpha=0.1)

    return Case(step, inputs(), [model])


def first_order_maml() -> Case:
    model = net()
    outer = torch.optim.Adam(model.parameters())

    def step(x: Any, y: Any) -> None:
        outer.zero_grad()
        clone = copy.deepcopy(model)
        inner = torch.optim.SGD(clone.parameters(), lr=0.01)
        inner.zero_grad()
        F.cross_entropy(clone(x), y).backward()
        inner.step()
        grads = torch.autograd.grad(F.cross_entropy(clone(x), y), list(clone.parameters()))
        for p, g in zip(model.parameters(), grads, strict=True):
            p.grad = g
        outer.step()

    return Case(step, inputs(), [model, outer])


def federated() -> Case:
    model = net()

    def step(x: Any, y: Any) -> None:
        states = []
        for _ in range(2):
            local = copy.deepcopy(model)
            optimizer = torch.optim.SGD(local.parameters(), lr=0.01, momentum=0.9)
            F.cross_entropy(local(x), y).backward()
            optimizer.step()
            states.append(local.state_dict())
        average = copy.deepcopy(states[0])
        for key in average:
            average[key] += states[1][key]
            average[key] = torch.div(average[key], 2)
        model.load_state_dict(average)

    return Case(step, inputs(), [model])


def style(make: Callable[[Any], Any]) -> Case:
    """An image is optimized by a closure."""
    features = nn.Conv2d(3, 4, 3).requires_grad_(False)

    def step(x: Any, target: Any) -> Any:
        image = x.clone().requires_grad_(True)
        optimizer = make([image])

        def closure() -> Any:
            optimizer.zero_grad()
            loss = (features(image) - target).pow(2).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        return image.detach()

    return Case(step, [torch.rand(2, 3, 8, 8), torch.rand(2, 4, 6, 6)], [features])


CASES = {
    "sgd": lambda: inner_loop(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True)),
    "radam": lambda: inner_loop(torch.optim.RAdam),
    "amsgrad": lambda: inner_loop(lambda p: torch.optim.Adam(p, amsgrad=True, weight_decay=0.1)),
    "maml": first_order_maml,
    "federated": federated,
    "lbfgs": lambda: style(lambda p: torch.optim.LBFGS(p, max_iter=3, lr=1e-3)),
}
MORE = {"nadam": torch.optim.NAdam, "adagrad": torch.optim.Adagrad, "adamax": torch.optim.Adamax, "adadelta": torch.optim.Adadelta}


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_torch_allocates(name: str, cpu: Cpu) -> None:
    outcome = compare(CASES[name](), cpu)
    assert not outcome.failed, str(outcome.difference)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_others_are_what_torch_allocates(name: str, cpu: Cpu) -> None:
    outcome = compare(inner_loop(MORE[name]), cpu)
    assert not outcome.failed, str(outcome.difference)


def test_what_is_assumed_of_a_search_is_said() -> None:
    case = style(lambda p: torch.optim.LBFGS(p, max_iter=2))
    notes = memest.step(case.function, *case.arguments).notes
    assert any("assumed of LBFGS: its first gradient sums up to more than 1" in note for note in notes)


@pytest.mark.parametrize("option", ["fused", "foreach"])
def test_kernels_for_many_tensors_are_refused(option: str) -> None:
    case = inner_loop(lambda p: torch.optim.Adam(p, **{option: True}))
    with pytest.raises(UnsupportedError, match=rf"Adam\({option}=True\) that is made in the step: leave {option} out there"):
        memest.step(case.function, *case.arguments)


def test_a_card_is_refused() -> None:
    case = inner_loop(lambda p: torch.optim.SGD(p, 0.1))
    with pytest.raises(UnsupportedError, match="an optimizer made in the step, whose code is played as on a CPU"):
        memest.step(case.function, *case.arguments, machine="h100-80gb")
