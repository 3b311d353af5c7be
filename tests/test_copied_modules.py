"""``copy.deepcopy`` of modules inside a training step: averages that begin there, snapshots, copies that are trained."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from validation.steps import Case, compare  # noqa: E402


def training(after: Any, *, frozen: bool = False) -> Case:
    """A step that ends with what ``after(net, kept, x, y)`` does."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
    net[0].requires_grad_(not frozen)
    optimizer, kept = torch.optim.AdamW(net.parameters()), {}

    def step(x: Any, y: Any) -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
        after(net, kept, x, y)

    return Case(step, [torch.rand(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)], [net, optimizer, kept])


def averaged(net: Any, kept: Any, x: Any, y: Any) -> None:
    if not kept:
        kept["average"] = copy.deepcopy(net).eval().requires_grad_(False)
    with torch.no_grad():
        for mean, p in zip(kept["average"].parameters(), net.parameters(), strict=True):
            mean.mul_(0.9).add_(p, alpha=0.1)


def best(net: Any, kept: Any, x: Any, y: Any) -> None:
    kept["best"] = copy.deepcopy(net)


def looked_ahead(net: Any, kept: Any, x: Any, y: Any) -> None:
    fast = copy.deepcopy(net)
    F.cross_entropy(fast(x), y).backward()
    with torch.no_grad():
        for p, q in zip(net.parameters(), fast.parameters(), strict=True):
            if q.grad is not None:
                p.sub_(q.grad, alpha=0.1)


def taught(net: Any, kept: Any, x: Any, y: Any) -> None:
    """The copy of the first call goes on requiring gradients in those that follow."""
    if not kept:
        kept["teacher"] = copy.deepcopy(net)
    (kept["teacher"](x) - net(x)).square().mean().backward()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("after", [averaged, best, looked_ahead, taught])
def test_a_copy_made_in_a_step(after: Any, frozen: bool, cpu: Cpu) -> None:
    outcome = compare(training(after, frozen=frozen), cpu, before=2)
    assert not outcome.failed, outcome.difference
