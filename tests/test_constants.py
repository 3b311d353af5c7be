"""Branches on values that follow from how a tensor was made, and tensors of a recording that stay in nobody's cache."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError

torch = pytest.importorskip("torch")

from test_contexts import SHAPE, Net, infers_as_torch, same, trains_as_torch  # noqa: E402

from memest.machines.cpu import Cpu  # noqa: E402
from memest.sources.importers.torch.network import from_torch  # noqa: E402
from memest.sources.importers.torch.tensors.constants import CHECKED, FINITE  # noqa: E402
from validation.protocol import inputs_for, measure_inference, measure_training  # noqa: E402

Use = Callable[[Any, Any], Any]


def branching(decide: Use) -> Use:
    """A forward that goes another way where this is true."""

    def forward(self: Any, x: Any) -> Any:
        y = self.first(x)
        return self.head(self.second(y) if decide(self, y) else y)

    return forward


def _padding(self: Any, y: Any) -> Any:
    mask = torch.ones((y.shape[0], 5, 7))
    small = torch.nn.functional.interpolate(mask[None].float(), size=y.shape[-2:]).to(torch.bool)[0]
    return small.flatten(1).all()


KNOWN: dict[str, Use] = {
    "ones": lambda self, y: torch.ones(y.shape[0], 4).bool().all(),
    "padding": _padding,
    "zeros": lambda self, y: (torch.zeros_like(y[:, 0]) != 0).any(),
    "full": lambda self, y: torch.full((3,), 2.5).amax() > 2,
    "number": lambda self, y: torch.ones(1).item() < 1,
    "least": lambda self, y: max(torch.ones(y.shape[0], 4).min().item(), 1e-3) < 1,
    "finite": lambda self, y: not torch.isfinite(y).all(),
    "nan": lambda self, y: torch.isnan(y).any() or torch.isinf(y).any().item(),
    "stack": lambda self, y: torch.stack([torch.zeros(2), torch.zeros(2)]).eq(0).all(),
    "places": lambda self, y: torch.arange(4).ge(0).all(),
}


def _written(self: Any, y: Any) -> Any:
    mask = torch.ones(2, 4)
    part = mask[0]
    mask[1, 2:] = y.mean()
    return part.all() and mask.all()


def _written_through_a_view(self: Any, y: Any) -> Any:
    mask = torch.ones(4)
    mask.view(2, 2)[0].mul_(0.5)
    return (mask == 1).all()


UNKNOWN: dict[str, Use] = {
    "data": lambda self, y: (y > 0).all(),
    "written": _written,
    "through a view": _written_through_a_view,
    "mixed": lambda self, y: torch.cat([torch.ones(8), y.mean((0, 2, 3))]).bool().all(),
}


@pytest.mark.parametrize("decide", KNOWN.values(), ids=KNOWN)
def test_a_branch_on_what_is_known_is_taken_as_torch_takes_it(decide: Use, cpu: Cpu) -> None:
    trains_as_torch(branching(decide), cpu)
    infers_as_torch(branching(decide), cpu)


@pytest.mark.parametrize("decide", UNKNOWN.values(), ids=UNKNOWN)
def test_a_branch_on_what_is_not_known_is_refused(decide: Use) -> None:
    with pytest.raises(UnsupportedError, match="branches on a tensor's value"):
        from_torch(Net(branching(decide)), SHAPE, mode="infer")


def test_what_is_taken_for_granted_is_said() -> None:
    def checks(self: Any, x: Any) -> Any:
        y = self.first(x)
        torch._check_tensor_all(y > -1e9)
        return self.head(y if torch.isfinite(y).all() else y.clamp(-1, 1))

    notes = from_torch(Net(checks), SHAPE, mode="infer").notes
    assert FINITE in notes
    assert CHECKED in notes
    assert from_torch(Net(branching(KNOWN["ones"])), SHAPE, mode="infer").notes == ()


def test_nobody_keeps_a_tensor_of_the_recording() -> None:
    table: dict[Any, Any] = {}
    made: list[Any] = []

    @lru_cache(maxsize=4)
    def grid(height: int, width: int, device: Any) -> Any:
        return torch.ones(height, width, device=device), (torch.zeros(width, device=device),)

    @cache
    def row(width: int, device: Any) -> Any:
        return torch.arange(width, device=device).float()

    def forward(self: Any, x: Any) -> Any:
        size = x.shape[-2:]
        if size not in table:
            table[size] = torch.ones(size, device=x.device)
        if not made:
            made.append(torch.zeros(1, device=x.device))
        whole, (part,) = grid(*size, x.device)
        return self.head(self.first(x) * whole + part + row(size[1], x.device) + table[size] + made[0])

    for _ in range(2):
        graph = from_torch(Net(forward), SHAPE)
        assert not graph.refused
        assert sum(p.name.startswith("kept") for p in graph.parameters) == 5
        assert not table
        assert not made
    assert Net(forward)(torch.rand(SHAPE)).device.type == "cpu"


def test_hooks_that_a_forward_registers_are_taken_back() -> None:
    """As transformers does it: once, by a flag, on its first call."""

    def forward(self: Any, x: Any) -> Any:
        if not getattr(self, "listening", False):
            self.first.register_forward_hook(lambda module, args, result: self.seen.append(result))
            self.listening, self.seen = True, []
        self.seen.clear()
        y = self.first(x)
        return self.head(y * len(self.seen))

    net = Net(forward)
    assert len(from_torch(net, SHAPE).layers) == len(from_torch(net, SHAPE).layers)
    assert not net.first._forward_hooks
    net(torch.rand(SHAPE))
    assert len(net.seen) == 1


class Crossed(torch.nn.Module):
    """Attention to other, transposed tokens: the weights' parts are views of a trained tensor, made without autograd in inference."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(8, 2)

    def forward(self, x: Any) -> Any:
        tokens = x.flatten(2).permute(2, 0, 1)
        return self.attention(tokens[:5].contiguous(), tokens, tokens)[0]


def test_views_of_trained_weights_say_that_they_want_gradients(cpu: Cpu) -> None:
    shape = (2, 8, 6, 5)
    predicted = memest.estimate(from_torch(Crossed(), shape), input_shape=shape, mode="infer", machine=cpu)
    same(predicted, measure_inference(Crossed(), inputs_for([shape])))


def test_what_is_detached_does_not_hold_what_it_comes_from(cpu: Cpu) -> None:
    def forward(self: Any, x: Any) -> Any:
        y = self.first(x)
        means = y.mean(2)
        best = means.gather(2, means.topk(4, dim=2).indices * 1)
        best = best.detach()
        return self.head(y) + best.mean()

    trains_as_torch(forward, cpu)


def targets(self: Any, x: Any) -> Any:
    """As detection losses match targets: a size that a tensor holds, a list as an index, masks compared and joined in place."""
    y = self.first(x)
    whole = torch.zeros(2, dtype=torch.int64).scatter_add_(0, torch.tensor([0, 1, 1]), torch.ones(3, dtype=torch.int64))
    padded = torch.zeros(2, whole.max(), 4)
    padded = padded[..., [1, 0, 3, 2]].sum(2, keepdim=True).gt_(0.0)
    mask = y.detach().mean(1) > 0
    mask &= y.detach().amax(1) > 1
    return self.head(y * mask.unsqueeze(1)) + padded.sum() + torch.outer(y.mean((1, 2, 3)), y.mean((0, 1, 2))).sum().atan()


def test_targets_are_matched_as_torch_does(cpu: Cpu) -> None:
    graph = from_torch(Net(targets), SHAPE, assume={"size": 2}, mode="train")
    assert any("size=2" in note for note in graph.notes)
    predicted = memest.estimate(graph, input_shape=SHAPE, optimizer="adam", loss="mse_loss", machine=cpu)
    same(predicted, measure_training(Net(targets), inputs_for([SHAPE]), optimizer="adam", loss="mse_loss"))


def test_a_size_that_a_tensor_holds_is_asked_for() -> None:
    with pytest.raises(UnsupportedError, match=r"test_constants.py:\d+\): a tensor as a size depends on values; .*assume=\{'size': N\}"):
        from_torch(Net(targets), SHAPE, mode="infer")
