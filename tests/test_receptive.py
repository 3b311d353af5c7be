"""The receptive field against the gradient of torch, and windows with its halo against the whole volume."""

from __future__ import annotations

import pytest

from memest.errors import UnsupportedError
from memest.levers.receptive import receptive_field
from memest.sources import models

torch = pytest.importorskip("torch")

from validation.execute import GraphModule  # noqa: E402
from validation.tiling import predict_in_windows  # noqa: E402

NETWORKS = ("unet2d:base_filters=2,levels=2", "unet2d:base_filters=2,levels=3", "unet3d:base_filters=2,levels=2,out_channels=2")


def measured_reach(model: str) -> tuple[int, int]:
    """Inputs before and behind a position that its gradient reaches along the last dim, over every phase of the network's steps."""
    module = GraphModule(models.build(model)).eval().double()
    for p in module.parameters():
        torch.nn.init.uniform_(p, 0.01, 0.02)  # positive everywhere: no rectifier hides a path
    x = torch.rand(1, module.graph.inputs[0].shape[1], *([16] * (len(module.graph.inputs[0].shape) - 3)), 96, dtype=torch.float64)
    x.requires_grad_()
    y = module(x)
    left = right = 0
    for at in range(44, 52):
        (gradient,) = torch.autograd.grad(y[..., at].sum(), x, retain_graph=True)
        seen = gradient.abs().sum(tuple(range(x.ndim - 1))).nonzero().flatten()
        left, right = max(left, at - int(seen.min())), max(right, int(seen.max()) - at)
    return left, right


@pytest.mark.parametrize("model", [n if n == NETWORKS[0] else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS])
def test_the_field_is_what_gradients_reach(model: str) -> None:
    field = receptive_field(models.build(model))
    left, right = measured_reach(model)
    assert field.left[-1] - field.step[-1] < left <= field.left[-1], "covered, and not by more than a step"
    assert field.right[-1] - field.step[-1] < right <= field.right[-1]


def test_windows_with_that_halo_give_the_whole_result() -> None:
    graph = models.build("unet2d:base_filters=2,levels=2")
    module, (halo, _) = GraphModule(graph).eval().double(), receptive_field(graph).halo
    volume = torch.rand(1, 3, 48, 56, dtype=torch.float64)
    with torch.no_grad():
        whole = module(volume)
        joined = predict_in_windows(module, volume, (2 * halo + 8,) * 2, (halo, halo))
        short = predict_in_windows(module, volume, (16, 16), (2, 2))
    assert torch.allclose(whole, joined, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(whole, short, rtol=1e-12, atol=1e-12)


def test_what_sees_everything_has_no_field() -> None:
    with pytest.raises(UnsupportedError, match="avgpool"):
        receptive_field(models.build("resnet18"))
