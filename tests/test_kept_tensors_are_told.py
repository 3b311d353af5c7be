"""Tensors that a module keeps are told without a search for garbage; what garbage holds is not taken for kept."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402

SHAPE = (2, 3, 8, 8)


class Keeping(nn.Module):
    def __init__(self, keep: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.keep, self.conv, self.held = keep, nn.Conv2d(3, 4, 3, padding=1), {"deep": ([],)}

    def forward(self, x: Any) -> Any:
        self.keep(self, x)
        return self.conv(x)


def cached(keep: Any) -> Keeping:
    class Cached(Keeping):
        @staticmethod
        @lru_cache(maxsize=2)
        def scale(size: int) -> Any:
            return torch.ones(4, 1, size)

    return Cached(keep)


def in_a_circle(net: Any, x: Any) -> None:
    ring: list[Any] = [x.detach().sigmoid()]
    ring.append(ring)


KEEPERS: dict[str, tuple[Callable[[Any], Keeping], Callable[[Any, Any], Any], int]] = {
    "attribute": (Keeping, lambda net, x: setattr(net, "last", x.detach().clone()), 0),
    "container": (Keeping, lambda net, x: net.held["deep"][0].__setitem__(slice(None), [x.detach().clone()]), 0),
    "cache": (cached, lambda net, x: net.scale(8), 0),
    "circle": (Keeping, in_a_circle, 1),
}


@pytest.mark.parametrize("name", KEEPERS)
def test_all_garbage_is_collected_only_where_nobody_is_known_to_hold_a_tensor(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, keep, times = KEEPERS[name]
    net = kind(keep)
    from_torch(net, SHAPE, mode="infer")
    collected: list[tuple[int, ...]] = []
    honest = gc.collect
    monkeypatch.setattr(gc, "collect", lambda *generation: (collected.append(generation), honest(*generation))[1])
    gc.disable()  # what Python collects by itself meanwhile is nobody's
    try:
        graph = from_torch(net, SHAPE, mode="infer")
    finally:
        gc.enable()
    assert collected.count(()) == times
    made = {"attribute": 1, "container": 1, "cache": 1, "circle": 0}[name]
    assert [p.name for p in graph.parameters if "conv" not in p.name] == ["kept"] * made
