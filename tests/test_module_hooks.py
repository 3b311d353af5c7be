"""Hooks of modules that run in backward: what they keep, and what they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

from test_contexts import SHAPE, Net, same  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402
from validation.protocol import inputs_for, measure_inference, measure_training  # noqa: E402
from validation.steps import Case, compare  # noqa: E402

Hook = Callable[..., Any]


def looking(module: Any, grad_input: Any, grad_output: Any) -> None:
    for g in (*grad_input, *grad_output):
        if g is not None:
            g.abs().mean()


def scaling(module: Any, grad_input: Any, grad_output: Any) -> Any:
    return tuple(None if g is None else g * 0.5 for g in grad_input)


def guided(module: Any, grad_input: Any, grad_output: Any) -> Any:
    """Guided backpropagation."""
    return (torch.clamp(grad_input[0], min=0.0),) if grad_input[0] is not None else None


def before(module: Any, grad_output: Any) -> Any:
    return tuple(g * 2 for g in grad_output)


class Two(nn.Module):
    """Two inputs, two outputs, and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, a: Any, by: float, b: Any) -> Any:
        return self.conv(a) * by, by, b.exp()


def plain(self: Any, x: Any) -> Any:
    return self.head(self.second(torch.tanh(self.first(x))))


def twice(self: Any, x: Any) -> Any:
    return self.head(self.second(torch.tanh(self.second(self.first(x)))))


def checkpointed(self: Any, x: Any) -> Any:
    return self.head(checkpoint(lambda a: self.second(a.exp()).sin(), self.first(x), use_reentrant=False))


def several(self: Any, x: Any) -> Any:
    y = self.first(x)
    a, _, b = self.two(y, 2.0, y * 3)
    return self.head(a + b)


def half_used(self: Any, x: Any) -> Any:
    y = self.first(x)
    return self.head(self.two(y, 2.0, y * 3)[0])


def hooked(forward: Any, where: str, *hooks: Hook) -> Net:
    net = Net(forward)
    net.two = Two()
    net.second[2] = nn.SiLU()
    net.first[2] = nn.SiLU()
    for hook in hooks:
        module = net.get_submodule(where)
        (module.register_full_backward_pre_hook if hook is before else module.register_full_backward_hook)(hook)
    return net


CASES = {
    "looking": lambda: hooked(plain, "second", looking),
    "nothing": lambda: hooked(plain, "second.0", lambda *_: None),
    "scaling": lambda: hooked(plain, "second", scaling, looking),
    "guided": lambda: hooked(plain, "second.2", guided),
    "before": lambda: hooked(plain, "second", before),
    "before_and_after": lambda: hooked(plain, "second", before, scaling),
    "first": lambda: hooked(plain, "first.0", looking),
    "whole": lambda: hooked(plain, "", looking),
    "twice": lambda: hooked(twice, "second", scaling),
    "in_one_another": lambda: _nested(),
    "checkpointed": lambda: hooked(checkpointed, "second", scaling),
    "several": lambda: hooked(several, "two", looking, scaling),
}


QUICK = ("before_and_after", "in_one_another", "several")


def _nested() -> Net:
    net = hooked(plain, "second", looking)
    net.second[0].register_full_backward_hook(scaling)
    net.second[2].register_full_backward_pre_hook(before)
    return net


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CASES])
@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_a_training_step_is_that_of_torch(name: str, cpu: Cpu) -> None:
    recipe: dict[str, Any] = {"optimizer": "adam", "loss": "mse_loss"}
    predicted = memest.estimate(from_torch(CASES[name](), SHAPE), input_shape=SHAPE, machine=cpu, **recipe)
    same(predicted, measure_training(CASES[name](), inputs_for([SHAPE]), **recipe))


@pytest.mark.parametrize("name", ["before_and_after", "several"])
def test_an_inference_is_that_of_torch(name: str, cpu: Cpu) -> None:
    predicted = memest.estimate(from_torch(CASES[name](), SHAPE), input_shape=SHAPE, machine=cpu, mode="infer")
    same(predicted, measure_inference(CASES[name](), inputs_for([SHAPE])))


def test_a_graph_with_them_reads_back_equal() -> None:
    for make in CASES.values():
        graph = from_torch(make(), SHAPE)
        assert memest.loads(memest.dumps(graph)) == graph


@pytest.mark.parametrize("name", ["scaling", "several"])
def test_in_a_step(name: str, cpu: Cpu) -> None:
    net = CASES[name]()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)

    def step(x: Any) -> None:
        optimizer.zero_grad()
        net(x).mean().backward()
        optimizer.step()

    outcome = compare(Case(step, [torch.rand(SHAPE)], [net, optimizer]), cpu)
    assert not outcome.failed, outcome.difference


def test_a_hook_that_keeps_a_gradient_is_refused() -> None:
    kept: list[Any] = []
    with pytest.raises(UnsupportedError, match=r"a full backward hook of a module .* that keeps a tensor for later"):
        from_torch(hooked(plain, "second", lambda m, i, o: kept.append(o[0])), SHAPE, mode="train")


def test_an_output_without_a_gradient_is_refused(cpu: Cpu) -> None:
    graph = from_torch(hooked(half_used, "two", looking), SHAPE)
    with pytest.raises(
        UnsupportedError, match=r"a full backward hook of a module of whose outputs one gets no gradient \(two\.BackwardHook"
    ):
        memest.estimate(graph, input_shape=SHAPE, loss="mse_loss", machine=cpu)
