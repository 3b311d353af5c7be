"""Optimizers of the user's own in a training step: their code is played, and what they keep stands from call to call."""

from __future__ import annotations

from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from validation.steps import Case, compare  # noqa: E402


class Lion(torch.optim.Optimizer):
    """One momentum; the sign of a mix is the step."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 1e-4})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                update = state["momentum"] * 0.9 + p.grad * 0.1
                p.add_(update.sign_(), alpha=-group["lr"])
                state["momentum"].mul_(0.99).add_(p.grad, alpha=0.01)
        return loss


class Rectified(Lion):
    """Takes another way after the fourth call, by a number in its state."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                state["step"] = state.get("step", 0) + 1
                if state["step"] > 4:
                    p.data.addcdiv_(p.grad.data, p.grad.data.square().sqrt_().add_(1e-8), value=-group["lr"])
                else:
                    p.data.add_(p.grad.data, alpha=-group["lr"])


class Scaled(torch.optim.SGD):
    """Scales gradients by a ratio of norms before torch's own step."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                p.grad.mul_(0.001 * p.norm() / (p.grad.norm() + 1e-8))
        return super().step(closure)


class Sharp(torch.optim.Optimizer):
    """Two backward passes a step, around another optimizer of torch's (SAM)."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"rho": 0.05})
        self.base = torch.optim.Adam(self.param_groups)
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def first_step(self) -> None:
        norms = [p.grad.norm() for group in self.param_groups for p in group["params"]]
        scale = 0.05 / (torch.stack(norms).norm() + 1e-12)
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["away"] = away = p.grad * scale
                p.add_(away)
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(self.state[p]["away"])
        self.base.step()
        self.zero_grad()


class Aware(Sharp):
    """The same that puts the old weights back as they lay (davda54/sam): they stay in its state, too."""

    @torch.no_grad()
    def first_step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["old"] = p.data.clone()
                p.add_(p.grad, alpha=0.05)
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.data = self.state[p]["old"]
        self.base.step()
        self.zero_grad()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))


def training(make: Any, calls: int = 0) -> Case:
    """A step of a small network, after so many real ``calls``."""
    net = network()
    optimizer = make(net.parameters())

    def step(x: Any, y: Any) -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        if isinstance(optimizer, Sharp):
            optimizer.first_step()
            F.cross_entropy(net(x), y).backward()
            optimizer.second_step()
        else:
            optimizer.step()

    arguments = [torch.rand(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)]
    for _ in range(calls):
        step(*arguments)
    return Case(step, arguments, [net, optimizer, *([optimizer.base] if isinstance(optimizer, Sharp) else [])])


@pytest.mark.parametrize("calls", [0, 2])
@pytest.mark.parametrize("kind", [Lion, Scaled, Sharp, Aware])
def test_its_code_is_played(kind: Any, calls: int, cpu: Cpu) -> None:
    make = (lambda p: Scaled(p, 0.1, momentum=0.9)) if kind is Scaled else kind
    outcome = compare(training(make, calls), cpu, before=2)
    assert not outcome.failed, outcome.difference


def test_what_it_keeps_is_state_of_the_parameter() -> None:
    case = training(Lion)
    found = memest.step(case.function, *case.arguments)
    assert found.by_category()["optimizer_state"] == sum(p.nbytes for p in case.objects[0].parameters())
    assert "0.weight" in {h.layer for h in found.holdings if h.category == "optimizer_state"}


def test_one_that_changes_its_way_is_taken_as_it_goes_on(cpu: Cpu) -> None:
    outcome = compare(training(Rectified), cpu, before=8)
    assert not outcome.failed, outcome.difference


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch before 2.9 has no Muon")
def test_one_of_torchs_without_a_row_is_played_by_its_code(cpu: Cpu) -> None:
    net = nn.Sequential(nn.Linear(12, 16, bias=False), nn.ReLU(), nn.Linear(16, 8, bias=False))
    optimizer = torch.optim.Muon(net.parameters())

    def step(x: Any) -> None:
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()

    outcome = compare(Case(step, [torch.rand(4, 12)], [net, optimizer]), cpu)
    assert not outcome.failed, outcome.difference


def test_what_it_keeps_is_left_as_it_was() -> None:
    case = training(Lion, 1)
    optimizer = case.objects[1]
    before = {id(p): (id(state), dict(state)) for p, state in optimizer.state.items()}
    memest.step(case.function, *case.arguments)
    after = {id(p): (id(state), dict(state)) for p, state in optimizer.state.items()}
    assert {key: (n, {k: id(t) for k, t in state.items()}) for key, (n, state) in before.items()} == {
        key: (n, {k: id(t) for k, t in state.items()}) for key, (n, state) in after.items()
    }
    assert "step" not in vars(optimizer)


def test_one_that_goes_by_a_counter_forever_is_refused() -> None:
    class Alternating(Lion):
        def step(self, closure: Any = None) -> Any:
            self.count = getattr(self, "count", 0) + 1
            if self.count % 3 == 0:
                super().step()

    case = training(Alternating)
    with pytest.raises(UnsupportedError, match="no call is like the one before"):
        memest.step(case.function, *case.arguments)
