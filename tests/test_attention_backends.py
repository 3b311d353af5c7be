"""Attention under ``torch.nn.attention.sdpa_kernel``: the kernels that it leaves are recorded with the call, which takes one of them."""

from __future__ import annotations

from typing import Any

import pytest

import memest
from memest.errors import GraphError, UnsupportedError
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.nn.functional import scaled_dot_product_attention as attend  # noqa: E402

SHAPE = (2, 4, 128, 64)
CPU = Cpu()


class Twice(nn.Module):
    """Attention by some kernels, and the same call once more by any."""

    def __init__(self, backends: Any, **options: Any) -> None:
        super().__init__()
        self.backends, self.options = backends, options

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with sdpa_kernel(self.backends, **self.options):
            y = attend(x, x, x)
        return y + attend(x, x, x)


def recorded(backends: Any, **options: Any) -> memest.Graph:
    return memest.from_torch(Twice(backends, **options), SHAPE, mode="infer")


def peak(graph: memest.Graph, **target: Any) -> int:
    return memest.estimate(graph, input_shape=SHAPE, mode="infer", **target).peak_bytes


def test_the_kernels_that_are_left_are_recorded_with_the_call_and_with_no_other() -> None:
    calls = [dict(layer.attributes) for layer in recorded([SDPBackend.MATH, SDPBackend.EFFICIENT_ATTENTION]).layers[:2]]
    assert calls == [{"backends": ("efficient", "math")}, {}]
    assert [dict(layer.attributes) for layer in recorded(SDPBackend.MATH, set_priority=True).layers[:2]] == [{"backends": ("math",)}, {}]


def test_switches_of_torch_count_alike() -> None:
    torch.backends.cuda.enable_flash_sdp(False)
    try:
        graph = recorded([SDPBackend.MATH])
    finally:
        torch.backends.cuda.enable_flash_sdp(True)
    assert dict(graph.layers[0].attributes) == {"backends": ("math",)}
    assert dict(recorded([SDPBackend.MATH]).layers[1].attributes) == {}


def test_single_operators_hold_the_scores() -> None:
    scores = 4 * 2 * 4 * 128 * 128
    math, any_kernel = (
        memest.from_torch(Twice(b), SHAPE, mode="infer") for b in (SDPBackend.MATH, list(SDPBackend.__members__.values())[1:])
    )
    assert peak(math, machine=CPU) >= peak(any_kernel, machine=CPU) + scores // 2
    assert peak(math, machine="t4") > peak(any_kernel, machine="t4")


@pytest.mark.parametrize("backend", ["EFFICIENT_ATTENTION", "CUDNN_ATTENTION"])
def test_a_processor_has_neither_of_those(backend: str) -> None:
    graph = recorded(getattr(SDPBackend, backend))
    with pytest.raises(UnsupportedError, match=r"'scaled_dot_product_attention'.* alone: torch has no such kernel for this call on CPU"):
        peak(graph, machine=CPU)
    with pytest.raises(RuntimeError, match=r"[Nn]o"), sdpa_kernel(getattr(SDPBackend, backend)):
        attend(*[torch.rand(SHAPE)] * 3)


def test_a_card_that_cannot_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"attention by flash alone: .* on Tesla T4 .*; allow math as well"):
        peak(recorded(SDPBackend.FLASH_ATTENTION), machine="t4", dtype="float16")
    assert peak(recorded(SDPBackend.FLASH_ATTENTION), machine="a100-40gb", dtype="float16") > 0


def test_an_order_among_several_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"set_priority=True.* name the one that shall run"):
        recorded([SDPBackend.MATH, SDPBackend.FLASH_ATTENTION], set_priority=True)


def test_other_names_are_refused() -> None:
    b = memest.Builder("one")
    x = b.input("x", SHAPE)
    with pytest.raises(GraphError, match=r"expected some of flash, efficient, math, cudnn"):
        b.layer("scaled_dot_product_attention", x, x, x, backends=["fast"])
