"""The receptive field against the gradient of torch, and windows with its halo against the whole volume."""

from __future__ import annotations

from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError
from memest.levers.receptive import receptive_field
from memest.network.graph import Graph
from memest.sources import models

torch = pytest.importorskip("torch")

from validation.execute import GraphModule  # noqa: E402
from validation.tiling import predict_in_windows  # noqa: E402

NETWORKS = ("unet2d:base_filters=2,levels=2", "unet2d:base_filters=2,levels=3", "unet3d:base_filters=2,levels=2,out_channels=2")


def measured_reach(graph: Graph) -> tuple[int, int]:
    """Inputs before and behind a position that its gradient reaches along the last dim, over every phase of the network's steps."""
    module = GraphModule(graph).eval().double()
    for p in module.parameters():
        torch.nn.init.uniform_(p, 0.01, 0.02)  # positive everywhere: no rectifier hides a path
    x = torch.rand(1, module.graph.inputs[0].shape[1], *([16] * (len(module.graph.inputs[0].shape) - 3)), 96, dtype=torch.float64)
    x.requires_grad_()
    y = module(x)
    left = right = 0
    for at in range(44, 52):
        (gradient,) = torch.autograd.grad(y[..., at].square().sum(), x, retain_graph=True)
        seen = gradient.abs().sum(tuple(range(x.ndim - 1))).nonzero().flatten()
        left, right = max(left, at - int(seen.min())), max(right, int(seen.max()) - at)
    return left, right


@pytest.mark.parametrize("model", [n if n == NETWORKS[0] else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS])
def test_the_field_is_what_gradients_reach(model: str) -> None:
    field = receptive_field(models.build(model))
    left, right = measured_reach(models.build(model))
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


def network(*layers: tuple[str, dict[str, Any]]) -> Graph:
    """One input of two channels, one layer after another."""
    b = memest.Builder("net")
    x = b.input("x", (1, 2, 16, 96))
    for op, settings in layers:
        x = b.layer(op, x, **settings)
    return b.build(x)


CONV = ("conv2d", {"out_channels": 2, "kernel_size": 3, "padding": 1})
AFTER_A_CONVOLUTION: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "exp": (("exp", {}),),
    "clamp": (("clamp", {"min": -1e6}),),
    "comparison and choice": (("softsign", {}), ("abs", {}), ("sqrt", {}), ("neg", {})),
    "softmax over channels": (("softmax", {"dim": 1}),),
    "padded by hand": (("pad", {"pad": (2, 0, 1, 1)}), ("conv2d", {"out_channels": 2, "kernel_size": 3})),
    "to channels and back": (("pixel_unshuffle", {"downscale_factor": 2}), ("pixel_shuffle", {"upscale_factor": 2})),
    "a norm of channels": (("local_response_norm", {"size": 2}),),
    "a mean over channels": (("mean", {"dim": 1, "keepdim": True}),),
}


@pytest.mark.parametrize("name", AFTER_A_CONVOLUTION)
def test_rows_that_see_little_have_a_field_which_gradients_stay_in(name: str) -> None:
    graph = network(CONV, *AFTER_A_CONVOLUTION[name])
    field = receptive_field(graph)
    left, right = measured_reach(graph)
    assert field.left[-1] - field.step[-1] < left <= field.left[-1]
    assert field.right[-1] - field.step[-1] < right <= field.right[-1]


@pytest.mark.parametrize(("op", "settings"), [("softmax", {"dim": 3}), ("flip", {"dims": (2,)}), ("mean", {"dim": 1})])
def test_what_sees_everything_along_a_dim_has_no_field(op: str, settings: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match=rf"\({op}\).*give a halo"):
        receptive_field(network(CONV, (op, settings)))


@pytest.mark.parametrize("dim", [1, 2, -1])
def test_values_put_side_by_side_have_a_field_where_they_are_channels(dim: int) -> None:
    """Along a spatial dim positions of the second are moved."""
    b = memest.Builder("net")
    x = b.input("x", (1, 2, 16, 96))
    graph = b.build(b.layer("cat", [b.layer("relu", x), b.layer("conv2d", x, out_channels=2, kernel_size=3, padding=1)], dim=dim))
    if dim == 1:
        assert receptive_field(graph).halo == (1, 1)
    else:
        with pytest.raises(UnsupportedError, match=r"\(cat\)"):
            receptive_field(graph)
