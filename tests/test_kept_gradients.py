"""Gradients that a training step's code keeps: retained ones, and what hooks put into lists, dicts and attributes (Grad-CAM)."""

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

from validation.steps import Case, compare  # noqa: E402


class Features(nn.Module):
    """Two convolutions and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Any) -> Any:
        return self.head(F.relu(self.last(F.relu(self.norm(self.first(x))))).mean((2, 3)))


def image() -> Any:
    return torch.rand(2, 3, 8, 8)


class GradCam:
    """Keeps a layer's output and its gradient as attributes."""

    def __init__(self, model: Any, layer: Any) -> None:
        self.model, self.activations, self.gradients = model, None, None
        layer.register_forward_hook(self.keep_output)
        layer.register_full_backward_hook(self.keep_gradient)

    def keep_output(self, module: Any, args: Any, output: Any) -> None:
        self.activations = output

    def keep_gradient(self, module: Any, grad_input: Any, grad_output: Any) -> None:
        self.gradients = grad_output[0].detach()

    def __call__(self, x: Any) -> Any:
        self.model.zero_grad()
        self.model(x)[:, 1].sum().backward()
        weights = self.gradients.mean((2, 3), keepdim=True)
        return F.relu((weights * self.activations.detach()).sum(1, keepdim=True))


def in_attributes() -> Case:
    model = Features()
    cam = GradCam(model, model.last)
    return Case(lambda x: cam(x) is None, [image()], [model, vars(cam)])


class ActivationsAndGradients:
    """Hooks on the outputs of several layers, which are put on in their forward hooks; the gradients come last layer first."""

    def __init__(self, layers: Any) -> None:
        self.gradients: list[Any] = []
        self.activations: list[Any] = []
        for layer in layers:
            layer.register_forward_hook(lambda module, args, output: self.activations.append(output.cpu().detach()))
            layer.register_forward_hook(self.watch)

    def watch(self, module: Any, args: Any, output: Any) -> None:
        def store(gradient: Any) -> None:
            self.gradients = [gradient.cpu().detach(), *self.gradients]

        output.register_hook(store)


def first_layer_first() -> Case:
    model = Features()
    kept = ActivationsAndGradients([model.first, model.last])

    def step(x: Any) -> list[Any]:
        kept.gradients, kept.activations = [], []
        model.zero_grad()
        sum(out[1] for out in model(x)).backward(retain_graph=True)
        return [F.relu((g.mean((2, 3), keepdim=True) * a).sum(1)) for a, g in zip(kept.activations, kept.gradients, strict=True)]

    return Case(step, [image()], [model, vars(kept)])


def in_a_list_of_the_step() -> Case:
    model = Features()

    def step(x: Any) -> Any:
        gradients: list[Any] = []
        outputs: list[Any] = []
        handle = model.last.register_forward_hook(lambda module, args, output: outputs.append(output))
        hook = model.last.register_full_backward_hook(lambda module, gi, go: gradients.append(go[0]))
        out = model(x)
        handle.remove()
        model.zero_grad()
        out.max(1)[0].sum().backward()
        hook.remove()
        return F.relu((gradients[0].mean((2, 3), keepdim=True) * outputs[0]).sum(1)).detach()

    return Case(step, [image()], [model])


def of_inputs_and_outputs() -> Case:
    model, kept = Features(), {}
    model.last.register_full_backward_hook(lambda module, gi, go: kept.update(gi=gi[0], go=go[0]))

    def step(x: Any) -> Any:
        model.zero_grad()
        model(x).square().mean().backward()
        return kept["gi"].norm()

    return Case(step, [image()], [model, kept])


def of_a_parameter() -> Case:
    """The first one of three that are added up becomes the parameter's gradient itself."""
    model, kept = Features(), []
    model.head.weight.register_hook(lambda g: kept.append(g.detach()))

    def step(x: Any) -> Any:
        kept.clear()
        model.zero_grad()
        for _ in range(3):
            model(x).square().mean().backward()
        return torch.stack(kept).mean(0)

    return Case(step, [image()], [model, kept])


def retained() -> Case:
    model = Features()

    def step(x: Any) -> Any:
        model.zero_grad()
        h = model.first(x)
        h.retain_grad()
        assert h.retains_grad and not h.is_leaf
        model.head(F.relu(model.last(h)).mean((2, 3))).square().mean().backward()
        gradient = h.grad
        del h
        return gradient.abs().mean().item()

    return Case(step, [image()], [model])


def retained_twice() -> Case:
    """Later gradients are added out of place, until it is set to None."""
    model = Features()

    def step(x: Any) -> Any:
        model.zero_grad()
        h = model.first(x)
        h.retain_grad()
        out = model.last(h)
        out.square().mean().backward(retain_graph=True)
        out.sum().backward()
        size = h.grad.norm()
        h.grad = None
        return size * 2

    return Case(step, [image()], [model])


CASES: dict[str, Callable[[], Case]] = {
    make.__name__: make
    for make in (
        in_attributes, first_layer_first, in_a_list_of_the_step, of_inputs_and_outputs, of_a_parameter, retained, retained_twice,
    )
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_torch_allocates(name: str, cpu: Cpu) -> None:
    outcome = compare(CASES[name](), cpu)
    assert not outcome.failed, str(outcome.difference)


def test_retained_gradients_stand_with_tensors_that_are_kept(cpu: Cpu) -> None:
    model, kept = Features(), []

    def watch(module: Any, args: Any, output: Any) -> None:
        output.retain_grad()
        kept.append(output)

    model.last.register_forward_hook(watch)

    def step(x: Any) -> float:
        kept.clear()
        model.zero_grad()
        model(x).square().mean().backward()
        return kept[0].grad.mean().item()

    outcome = compare(Case(step, [image()], [model, kept]), cpu)
    assert outcome.difference is None, str(outcome.difference)
    assert outcome.predicted.standing_bytes == outcome.standing_bytes + 2 * 6 * 8 * 8 * 4  # which the list of the measured does not tell of


def test_a_gradient_kept_of_a_graph_is_refused() -> None:
    model, kept = Features(), []

    def step(x: Any) -> None:
        h = model.first(x)
        h.register_hook(kept.append)
        grads = torch.autograd.grad(model.last(h).square().mean(), list(model.first.parameters()), create_graph=True)
        sum(g.square().sum() for g in grads).backward()
        kept.clear()

    with pytest.raises(UnsupportedError, match="create_graph=True through a hook that keeps a gradient"):
        memest.step(step, image())


def test_retaining_in_a_checkpoint_is_refused() -> None:
    model = Features()

    def inside(x: Any) -> Any:
        h = model.first(x)
        h.retain_grad()
        return model.last(h)

    def step(x: Any) -> None:
        torch.utils.checkpoint.checkpoint(inside, x, use_reentrant=False).sum().backward()

    with pytest.raises(UnsupportedError, match=r"retain_grad\(\) inside a checkpoint"):
        memest.step(step, image())
