"""Modules that keep tensors, and runs that assume: at other sizes their calls are held against those recorded, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from memest.sources.importers.torch import network  # noqa: E402
from memest.sources.importers.torch.network import from_torch  # noqa: E402

SHAPE = (2, 3, 8, 12)
Use = Callable[[Any, Any], Any]


class Keeping(nn.Module):
    def __init__(self, use: Use) -> None:
        super().__init__()
        self.conv, self.use = nn.Conv2d(3, 4, 3, padding=1), use
        self.grid: Any = None
        self.shape: Any = None
        self.calls = 0

    def forward(self, x: Any) -> Any:
        return self.use(self, self.conv(x))


def grid(net: Keeping, y: Any) -> Any:
    """Made at the first call, and when the sizes change."""
    if net.grid is None or net.shape != y.shape[2:]:
        net.grid, net.shape = torch.zeros(y.shape[2], y.shape[3]) + 1, y.shape[2:]
    return y * net.grid


def last(net: Keeping, y: Any) -> Any:
    """What the call before gave, on average."""
    before, net.grid = net.grid, y.detach().mean((2, 3))
    return y if before is None else y * before.view(*before.shape, 1, 1).expand(y.shape[0], y.shape[1], 1, 1)


def counted(net: Keeping, y: Any) -> Any:
    """A counter that decides nothing."""
    net.calls += 1
    return y.view(y.shape[0], -1)


def flagged(net: Keeping, y: Any) -> Any:
    """The first call warms up."""
    net.calls, first = 1, net.calls == 0
    return y.view(y.shape[0], -1).relu() if first else y.view(y.shape[0], -1)


def finite(net: Keeping, y: Any) -> Any:
    """A branch on values, of which one way is taken for granted."""
    if not torch.isfinite(y).all():
        y = y.clamp(-1, 1)
    return y.view(y.shape[0], -1)


FREE: dict[str, Use] = {f.__name__: f for f in (grid, last, counted, flagged, finite)}


def by_text(net: Keeping, y: Any) -> Any:
    """What is kept goes by a size's text."""
    if net.grid is None:
        net.grid = y.detach() if len(str(y.shape[3])) > 1 else y.detach().mean((2, 3), keepdim=True)
    return y + net.grid.to(y.dtype)


def second(net: Keeping, y: Any) -> Any:
    """The call that counts goes by a size's text, the first does not."""
    kept, net.grid = net.grid, y.detach() + 1
    return y if kept is None else kept.relu() if len(str(y.shape[3])) > 1 else kept + 1


def dropped(net: Keeping, y: Any) -> Any:
    """When a tensor dies goes by a size's text."""
    big = y * 2
    small = big.mean()
    if len(str(y.shape[3])) > 1:
        del big
    return small + y.sigmoid()


BOUND: dict[str, Use] = {f.__name__: f for f in (by_text, second, dropped)}


@pytest.fixture()
def no_recording_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("recorded at other sizes")

    monkeypatch.setattr(network._Recordings, "_same_graph", refused)


@pytest.mark.parametrize("name", FREE)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_it_is_followed_call_by_call(name: str, training: bool, no_recording_there: None) -> None:
    graph = from_torch(Keeping(FREE[name]).train(training), SHAPE)
    symbols = {s for g in graph.guards if g.op == "==" for e in (g.left, g.right) if not isinstance(e, int) for s in e.symbols()}
    assert not symbols, graph.guards


@pytest.mark.parametrize("name", BOUND)
def test_what_is_not_the_same_there_is_a_condition(name: str) -> None:
    graph = from_torch(Keeping(BOUND[name]).eval(), SHAPE)
    assert any("W" in str(g) for g in graph.guards), graph.guards
    assert not any(str(g).startswith("N ==") for g in graph.guards)


@pytest.mark.parametrize("name", [*FREE, *BOUND])
def test_the_module_is_left_as_it_was(name: str) -> None:
    net = Keeping({**FREE, **BOUND}[name])
    before = {key: value for key, value in vars(net).items() if not key.startswith("_")}
    weight = net.conv.weight
    from_torch(net, SHAPE)
    assert {key: value for key, value in vars(net).items() if not key.startswith("_")} == before
    assert net.conv.weight is weight and not weight.is_meta
