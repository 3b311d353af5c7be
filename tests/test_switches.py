"""Contexts that turn gradients off in what runs in backward (a custom function's, a hook), where ``create_graph=True`` has them on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

from test_contexts import same  # noqa: E402
from torch import nn  # noqa: E402

from validation.protocol import inputs_for, measure_training  # noqa: E402
from validation.steps import Case, compare  # noqa: E402

Hook = Callable[[Any], Any]


class Squared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x


class Scaled(Squared):
    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        (x,) = ctx.saved_tensors
        with torch.no_grad():
            scale = torch.sigmoid(x)
        return grad * 2 * x * scale


class Frozen(Squared):
    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        (x,) = ctx.saved_tensors
        with torch.set_grad_enabled(False):
            return torch.sigmoid(x) * grad


class Decorated(Squared):
    @staticmethod
    @torch.no_grad()
    def backward(ctx: Any, grad: Any) -> Any:
        return grad * 2 * ctx.saved_tensors[0]


class InOneAnother(Squared):
    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            with torch.no_grad():
                scale = torch.sigmoid(x)
            slope = x * scale
        return grad * slope


class Outer(Squared):
    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad * Scaled.apply(ctx.saved_tensors[0])


def part_without(grad: Any) -> Any:
    with torch.no_grad():
        norm = grad.norm()
    return grad / (norm + 1e-8)


@torch.no_grad()
def all_without(grad: Any) -> Any:
    return grad.clamp(-1, 1)


def penalty(function: Any = None, hook: Hook | None = None, stays: Hook | None = None) -> Case:
    """The gradient at the input goes into the loss; ``function`` and ``hook`` stand between, ``stays`` on a parameter."""
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    o = torch.optim.SGD(net.parameters(), 0.1)
    if stays is not None:
        net[0].weight.register_hook(stays)

    def step(x: Any) -> None:
        x = x.detach().requires_grad_()
        y = net[0](x)
        if hook is not None:
            y.register_hook(hook)
        out = net[2](net[1](y if function is None else function.apply(y)))
        (gradient,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        o.zero_grad()
        (out.mean() + gradient.square().sum()).backward()
        o.step()

    return Case(step, [torch.rand(3, 4)], [net, o])


@pytest.mark.parametrize("function", [Scaled, Frozen, Decorated, InOneAnother], ids=lambda f: f.__name__)
def test_a_backward_keeps_gradients_off_where_it_says_so(function: Any, cpu: Cpu) -> None:
    outcome = compare(penalty(function), cpu)
    assert not outcome.failed, f"{outcome.difference}"


class Forces(nn.Module):
    """The slope of an energy, in a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 8)

    def forward(self, x: Any) -> Any:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(Scaled.apply(self.net(x)).sum(), x, create_graph=True)[0]


def test_a_file_says_so_too(cpu: Cpu) -> None:
    graph, module = memest.from_torch(Forces(), (3, 4), mode="train"), Forces()
    told = {"input_shape": (3, 4), "loss": "mse_loss", "machine": cpu}
    events = memest.estimate(memest.loads(memest.dumps(graph)), **told).events
    assert [e.delta for e in events] == [e.delta for e in memest.estimate(graph, **told).events]
    same(memest.estimate(graph, **told), measure_training(module, inputs_for([(3, 4)]), "sgd", "mse_loss"))


@pytest.mark.parametrize("hook", [part_without, all_without], ids=lambda f: f.__name__)
def test_so_does_a_hook(hook: Hook, cpu: Cpu) -> None:
    for case in (penalty(hook=hook), penalty(stays=hook)):
        outcome = compare(case, cpu)
        assert not outcome.failed, f"{outcome.difference}"


def test_a_function_in_a_backward_that_is_differentiated_is_refused(cpu: Cpu) -> None:
    case = penalty(Outer)
    with pytest.raises(UnsupportedError, match=r"in whose backward another one is applied \(Scaled\): write") as e:
        memest.step(case.function, *case.arguments, machine=cpu)
    assert "\n" not in str(e.value)
