"""Hooks of tensors inside a forward, ``torch.inference_mode`` and ``.data``."""

from __future__ import annotations

from typing import Any

import pytest

import memest
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

from test_contexts import SHAPE, Forward, Net, infers_as_torch, trains_as_torch  # noqa: E402
from test_custom_functions import Swish  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402


def scaled(self: Any, x: Any) -> Any:
    y = self.first(x)
    if y.requires_grad:
        y.register_hook(lambda g: g * 2)
    return self.head(self.second(y))


def _watch(g: Any) -> None:
    g.abs().mean()


def clipped(self: Any, x: Any) -> Any:
    """Two on one tensor, one of which changes nothing."""
    y = self.first(x)
    if y.requires_grad:
        y.register_hook(lambda g: g.clamp(-1, 1))
        y.register_hook(lambda g: _watch(g))
    return self.head(y) + self.head(y * 2)


def captured(self: Any, x: Any) -> Any:
    """The hook keeps a tensor that nothing else does."""
    y = self.first(x)
    mask = y.detach() * 3
    z = self.second(y)
    if z.requires_grad:
        z.register_hook(lambda g: g * mask)
    return self.head(z)


def on_a_function(self: Any, x: Any) -> Any:
    y = Swish.apply(self.first(x))
    if y.requires_grad:
        y.register_hook(lambda g: g + 1)
    return self.head(y)


def in_a_checkpoint(self: Any, x: Any) -> Any:
    def body(a: Any) -> Any:
        b = self.second(a)
        if b.requires_grad:
            b.register_hook(lambda g: g * 2)
        return b * 3

    return self.head(checkpoint(body, self.first(x), use_reentrant=False))


def frozen_by_inference(self: Any, x: Any) -> Any:
    with torch.inference_mode():
        y = self.first(x)
    return self.head(self.second(y.clone()))


@torch.inference_mode()
def _features(self: Any, x: Any) -> Any:
    return self.first(x).mean((2, 3), keepdim=True)


def added_from_inference(self: Any, x: Any) -> Any:
    return self.head(self.second(self.first(x)) + _features(self, x))


def masked(self: Any, x: Any) -> Any:
    """PixelCNN's convolution."""
    self.second[0].weight.data *= torch.ones_like(self.second[0].weight)
    return self.head(self.second(self.first(x)))


def clamped(self: Any, x: Any) -> Any:
    self.second[0].weight.data.clamp_(-1, 1)
    return self.head(self.second(self.first(x)))


def taken_off(self: Any, x: Any) -> Any:
    y = self.first(x)
    if y.requires_grad:
        mask = y.detach() * 3
        y.register_hook(lambda g: g * mask).remove()
        y.register_hook(lambda g: g + 1)
    return self.head(y)


PLAYED = (
    taken_off, scaled, clipped, captured, on_a_function, in_a_checkpoint, frozen_by_inference, added_from_inference, masked, clamped,
)  # fmt: skip
by_name = pytest.mark.parametrize("forward", PLAYED, ids=lambda f: f.__name__)


@by_name
def test_a_training_step_is_that_of_torch(forward: Forward, cpu: Cpu) -> None:
    trains_as_torch(forward, cpu)


@by_name
def test_an_inference_is_that_of_torch(forward: Forward, cpu: Cpu) -> None:
    infers_as_torch(forward, cpu)


def test_what_torch_refuses_of_inference_mode_is_refused() -> None:
    def forward(self: Any, x: Any) -> Any:
        with torch.inference_mode():
            y = self.first(x)
        return self.head(y)

    with pytest.raises(memest.UnsupportedError, match=r"inference tensor that is kept for backward.*clone\(\) it"):
        from_torch(Net(forward), SHAPE, mode="train")


class Keeps(torch.autograd.Function):
    kept: Any = None

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        Keeps.kept = grad * 3
        return grad


def keeping(how: str) -> Forward:
    def forward(self: Any, x: Any) -> Any:
        def keep(g: Any) -> None:
            self.cache = g if how == "itself" else g.clone() if how == "a copy" else g.norm().item()

        y = self.first(x)
        if how == "a function":
            return self.head(Keeps.apply(y))
        if y.requires_grad:
            y.register_hook(keep)
        return self.head(y)

    return forward


@pytest.mark.parametrize("how", ["itself", "a copy", "a function"])
def test_what_is_kept_out_of_backward_is_refused(how: str) -> None:
    with pytest.raises(memest.UnsupportedError, match=r"test_hooks.py:\d+.* that keeps a tensor for later"):
        from_torch(Net(keeping(how)), SHAPE, mode="train")


def test_numbers_may_be_kept(cpu: Cpu) -> None:
    trains_as_torch(keeping("a number"), cpu)


def test_a_graph_with_hooks_reads_back_equal(cpu: Cpu) -> None:
    for forward in PLAYED:
        graph = from_torch(Net(forward), SHAPE)
        assert memest.loads(memest.dumps(graph)) == graph, forward.__name__
