"""Numbers that a forward reads from tensors: they pass where nothing depends on them, and are refused where something does."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError

torch = pytest.importorskip("torch")

from test_contexts import SHAPE, Net, infers_as_torch, trains_as_torch  # noqa: E402
from torch import nn  # noqa: E402

from memest.machines.cpu import Cpu  # noqa: E402
from memest.sources.importers.torch.network import from_torch  # noqa: E402

Use = Callable[[Any, Any], Any]


def reading(use: Use) -> Callable[[Any, Any], Any]:
    """A forward that does this to the network and the first block's result; what it gives takes that one's place."""

    def forward(self: Any, x: Any) -> Any:
        y = self.first(x)
        given = use(self, y)
        return self.head(y if given is None else given)

    return forward


def _logs(name: str, value: Callable[[Any], Any]) -> Use:
    return lambda self, y: setattr(self, name, value(y))


PASSES: dict[str, Use] = {
    "item": _logs("cache", lambda y: y.mean().item()),
    "float": _logs("cache", lambda y: {"mean": float(y.detach().mean())}),
    "int": _logs("cache", lambda y: int((y > 0).sum())),
    "tolist": _logs("cache", lambda y: y.mean((0, 2, 3)).tolist()),
    "text": _logs("cache", lambda y: f"{y.mean():.3f}, {y.max()}, {y.std().item():.2e}"),
    "logarithm": _logs("cache", lambda y: math.log(y.var().item()) + math.exp(y.mean().item())),
    "history": lambda self, y: setattr(self, "cache", [*(self.cache or ()), y.mean().item()]),
    "whole": _logs("cache", lambda y: f"{(y > 0).sum().item():d} of {y.numel()}, {(y > 0).any().item()}"),
    "scale": lambda self, y: y / y.max().item() + y * float(y.mean()) * (1.0 / float(y.std())),
    "exponent": lambda self, y: y ** y.mean().item(),
    "fill": lambda self, y: y + torch.full((1, 8, 1, 1), y.mean().item()),
    "queue": lambda self, y: _enqueued(self, y, int(self.pointer)),
    "queue at an item": lambda self, y: _enqueued(self, y, self.pointer.item()),
    "row": lambda self, y: y + self.queue[int(self.pointer)].view(1, 8, 1, 1) + y[:, self.pointer.item()].unsqueeze(1),
}


def _enqueued(self: Any, y: Any, at: int) -> Any:
    """A memory bank: so many of its rows are written from its pointer on, which moves on."""
    many = y.shape[0]
    assert len(self.queue) % many == 0
    self.queue[at : at + many] = y.detach().mean((2, 3))
    self.pointer[0] = (at + many) % len(self.queue)
    return y + self.queue[at : at + many, :, None, None]


REFUSED: dict[str, Use] = {
    "condition": lambda self, y: y * 2 if y.mean().item() > 0 else y,
    "truth": lambda self, y: y * 2 if y.any().item() else y,
    "plain": lambda self, y: y * 2 if float(y.mean()) > 0.5 else y,
    "size": lambda self, y: y[:, :, : int(y.max())],
    "index": lambda self, y: y + y[y.argmax().item() :],
    "times": lambda self, y: sum((y for _ in range(int(y.mean()))), y),
    "factor": lambda self, y: nn.functional.interpolate(y, scale_factor=float(y.mean())),
    "loop": lambda self, y: y[: max((y > 0).sum().item(), 1)],
}


@pytest.mark.parametrize("use", PASSES.values(), ids=PASSES)
def test_a_forward_that_reads_numbers_is_that_of_torch(use: Use, cpu: Cpu) -> None:
    trains_as_torch(reading(use), cpu)
    infers_as_torch(reading(use), cpu)


@pytest.mark.parametrize("use", REFUSED.values(), ids=REFUSED)
def test_a_decision_by_a_number_is_refused_with_its_line(use: Use) -> None:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    line = next(n for n, text in enumerate(lines, 2) if text.startswith("REFUSED")) + list(REFUSED.values()).index(use)
    for mode in ("train", "infer"):
        with pytest.raises(UnsupportedError, match=re.escape("depends on a number read from a tensor")) as caught:
            from_torch(Net(reading(use)), SHAPE, mode=mode)
        text = str(caught.value)
        assert f"test_numbers.py:{line})" in text and "on shapes or on an argument" in text and "\n" not in text


def test_a_tensor_that_is_printed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    graph = from_torch(Net(reading(lambda self, y: print(y, str(y.mean())))), SHAPE)
    assert any("printed" in note for note in memest.estimate(graph, input_shape=SHAPE).notes)
    assert not from_torch(Net(reading(lambda self, y: print(y.shape, f"{y.mean()}"))), SHAPE).notes


def test_a_tensor_that_stays_does_so_when_numbers_are_read() -> None:
    def keeps(self: Any, y: Any, read: Callable[[Any], Any]) -> Any:
        if self.cache is None:
            self.cache = y.detach().clone()
        read(y.mean())
        return y + self.cache

    graphs = [from_torch(Net(reading(lambda self, y, r=r: keeps(self, y, r))), SHAPE) for r in (lambda t: t.item(), lambda t: None)]
    assert graphs[0] == graphs[1] and graphs[0].parameters[0].name == "kept"


def test_numbers_outlive_their_recording() -> None:
    net = Net(reading(lambda self, y: kept.append(y.mean().item())))
    kept: list[float] = []
    from_torch(net, SHAPE)
    assert type(kept[0]) is not float and kept[0] > 0 and int(kept[0]) == int(float(kept[0])) and bool(kept[0])
