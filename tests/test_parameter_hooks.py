"""Hooks on parameters: gradients changed on their way, and optimizers in backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from test_contexts import SHAPE, Net, same  # noqa: E402
from torch import nn  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402
from validation.protocol import inputs_for, measure_training  # noqa: E402
from validation.steps import Case, compare  # noqa: E402


def plain(self: Any, x: Any) -> Any:
    return self.head(self.second(self.first(x)))


def hooked(hook: Callable[[Any, Any], Any]) -> Net:
    net = Net(plain)
    for p in net.parameters():
        p.register_hook(lambda g, p=p: hook(g, p))
    return net


HOOKS: tuple[Callable[[Any, Any], Any], ...] = (
    lambda g, p: g.clamp(-1, 1),
    lambda g, p: None,
    lambda g, p: g,
    lambda g, p: g + 0.01 * p,
    lambda g, p: g / (g.norm() + 1e-6),
    lambda g, p: g.mul_(2),
)


@pytest.mark.parametrize("hook", HOOKS, ids=["clamped", "looked_at", "given_back", "decayed", "normed", "in_place"])
@pytest.mark.parametrize("recipe", [{}, pytest.param({"levers": ["accumulate:steps=2"]}, marks=pytest.mark.slow)], ids=["once", "twice"])
def test_gradients_that_hooks_change(hook: Callable[[Any, Any], Any], recipe: dict[str, Any], cpu: Cpu) -> None:
    options: dict[str, Any] = {"optimizer": "adam", "loss": "mse_loss", **recipe}
    predicted = memest.estimate(from_torch(hooked(hook), SHAPE), input_shape=SHAPE, machine=cpu, **options)
    same(predicted, measure_training(hooked(hook), inputs_for([SHAPE]), **options))


def test_a_graph_with_them_reads_back_equal() -> None:
    for hook in HOOKS:
        graph = from_torch(hooked(hook), SHAPE)
        assert memest.loads(memest.dumps(graph)) == graph


def in_backward(make: Callable[[list[Any]], Any], after: Callable[[Any, Any], None], *, norm: bool = True) -> Case:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8) if norm else nn.Identity(), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 5))
    optimizers = {p: make([p]) for p in net.parameters()}
    for p in net.parameters():
        p.register_post_accumulate_grad_hook(lambda p: after(p, optimizers))

    def step(x: Any, y: Any) -> None:
        F.cross_entropy(net(x), y).backward()

    return Case(step, [torch.rand(2, 3, 10, 10), torch.zeros(2, dtype=torch.int64)], [net, *optimizers.values()])


def stepped(p: Any, optimizers: Any) -> None:
    optimizers[p].step()
    optimizers[p].zero_grad()


def by_hand(p: Any, optimizers: Any) -> None:
    with torch.no_grad():
        p.add_(p.grad, alpha=-0.1)
    p.grad = None


def zeroed(p: Any, optimizers: Any) -> None:
    optimizers[p].step()
    optimizers[p].zero_grad(set_to_none=False)


def clipped(p: Any, optimizers: Any) -> None:
    p.grad.clamp_(-1, 1)
    optimizers[p].step()
    p.grad = None


CASES: dict[str, Callable[[], Case]] = {
    "adam": lambda: in_backward(lambda p: torch.optim.Adam(p, foreach=False), stepped),
    "momentum": lambda: in_backward(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), stepped, norm=False),
    "by_hand": lambda: in_backward(lambda p: torch.optim.SGD(p, 0.1), by_hand),
    "zeroed": lambda: in_backward(lambda p: torch.optim.SGD(p, 0.1), zeroed),
    "clipped": lambda: in_backward(lambda p: torch.optim.AdamW(p), clipped),
}


@pytest.mark.parametrize("name", CASES)
def test_an_optimizer_in_backward(name: str, cpu: Cpu) -> None:
    outcome = compare(CASES[name](), cpu, before=2)
    assert not outcome.failed, f"{outcome.difference} {outcome.standing_bytes} {outcome.predicted.standing_bytes}"


def test_a_module_alone_has_no_optimizer_to_step() -> None:
    net = Net(plain)
    net.head.weight.register_post_accumulate_grad_hook(lambda p: None)
    with pytest.raises(UnsupportedError, match=r"give the whole step to memest\.step"):
        from_torch(net, SHAPE, mode="train")
    from_torch(net, SHAPE, mode="infer")
