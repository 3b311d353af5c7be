"""Networks whose code takes sizes as plain numbers: at other sizes they are answered as a recording made there, or refused; never wrong."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable
from functools import cache, lru_cache
from itertools import islice, repeat
from typing import Any

import pytest

import memest
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402
from memest.sources.importers.torch.recording.elsewhere import Elsewhere  # noqa: E402
from memest.sources.importers.torch.steps.step import from_step  # noqa: E402

CPU = Cpu(isa="avx2", threads=2)
SHAPE = (2, 3, 8, 12)
OTHERS = ((1, 3, 8, 12), (3, 3, 8, 12), (4, 3, 8, 20), (2, 3, 16, 12), (7, 3, 24, 33), (2, 3, 8, 13), (16, 3, 9, 64))
REFUSED = r"described for sizes where .* import it again at this input shape"
Use = Callable[[Any, Any], Any]


class Net(nn.Module):
    def __init__(self, use: Use) -> None:
        super().__init__()
        self.conv, self.use = nn.Conv2d(3, 4, 3, padding=1), use
        self.table = {1: 3, 4: 2}
        self.known: dict[Any, Any] = {}
        self.last: Any = None

    def forward(self, x: Any) -> Any:
        return self.use(self, x)


def times(net: Net, x: Any, count: int) -> Any:
    """So many layers."""
    x = net.conv(x)
    for _ in range(count):
        x = x.sigmoid()
    return x


def only(net: Net, x: Any, condition: Any) -> Any:
    """A layer more where the condition holds."""
    return times(net, x, 2 if condition else 1)


@lru_cache(maxsize=16)
def layers_for(batch: int) -> int:
    return 3 if len(range(batch)) == 4 else 1


def resized(net: Net, x: Any) -> Any:
    """What code does that makes something anew when the size is another than last time."""
    if net.last != tuple(x.shape[2:]):
        net.last = tuple(x.shape[2:])
        x = x * 2
    return net.conv(x)


def cached(net: Net, x: Any) -> Any:
    """A grid for each size, made once."""
    key = x.shape[2], x.shape[3]
    if key not in net.known:
        net.known[key] = torch.zeros(key)
    return net.conv(x + net.known[key])


LOOPS: dict[str, Use] = {
    "iteration": lambda net, x: torch.stack([net.conv(row[None]) for row in x]),
    "unbind": lambda net, x: torch.stack([net.conv(row[None]) for row in x.unbind(0)]),
    "split": lambda net, x: torch.cat([net.conv(part) for part in x.split(1)]),
    "columns": lambda net, x: torch.stack([net.conv(x).mean(), *(part.mean() for part in x.split(5, -1))]),
    "index": lambda net, x: torch.stack([net.conv(x[i][None]) for i in range(x.shape[0])]),
    "slice": lambda net, x: torch.cat([net.conv(x[i : i + 1]) for i in range(len(x))]),
    "select": lambda net, x: torch.stack([net.conv(x.select(0, i)[None]) for i in range(x.size(0))]),
    "narrow": lambda net, x: torch.cat([net.conv(x.narrow(0, i, 1)) for i in range(x.shape[0])]),
    "tiles": lambda net, x: torch.cat([net.conv(x[..., i : i + 6]) for i in range(0, x.shape[-1], 6)], -1),
    "range": lambda net, x: times(net, x, x.shape[0]),
    "range of part": lambda net, x: times(net, x, x.shape[-1] // 4),
    "length of range": lambda net, x: only(net, x, len(range(x.shape[0])) == 2),
    "list repeated": lambda net, x: times(net, x, len([0] * x.shape[0])),
    "repeat": lambda net, x: times(net, x, len(list(repeat(0, x.shape[0])))),
    "islice": lambda net, x: times(net, x, len(list(islice(range(100), x.shape[2])))),
    "list index": lambda net, x: times(net, x, [1, 1, 2, 1, 1, 1, 1, 1][x.shape[0] % 8]),
    "list slice": lambda net, x: times(net, x, len([1, 2, 3, 4, 5, 6][: x.shape[0]])),
}
NUMBERS: dict[str, Use] = {
    "length": lambda net, x: only(net, x, len(x) == 2),
    "length of one": lambda net, x: only(net, x, len(x) == 1),
    "length above": lambda net, x: only(net, x, len(x) > 6),
    "text": lambda net, x: only(net, x, str(x.shape[0]) == "2"),
    "text of another": lambda net, x: only(net, x, str(x.shape[0]) == "3"),
    "f-string": lambda net, x: only(net, x, f"{x.shape[0]}x{x.shape[2]}" == "2x8"),
    "percent": lambda net, x: only(net, x, "%d" % x.shape[0] == "2"),  # noqa: UP031
    "json": lambda net, x: only(net, x, json.dumps(x.shape[0]) == "2"),
    "key": lambda net, x: times(net, x, {2: 3}.get(x.shape[0], 1)),
    "key of others": lambda net, x: times(net, x, net.table.get(x.shape[0], 1)),
    "set": lambda net, x: only(net, x, x.shape[-1] in {13, 64}),
    "key of several": lambda net, x: times(net, x, {(16, 12): 3}.get((x.shape[2], x.shape[3]), 1)),
    "remembered result": lambda net, x: times(net, x, layers_for(x.shape[0])),
    "shape": lambda net, x: only(net, x, x.shape == (2, 3, 8, 12)),
    "list of shape": lambda net, x: only(net, x, list(x.shape[2:]) != [8, 12]),
    "elements of shape": lambda net, x: only(net, x, x.shape.numel() == 576),
    "elements": lambda net, x: only(net, x, x.numel() > 600),
    "stride": lambda net, x: only(net, x, x.stride(0) == 288),
    "logarithm": lambda net, x: times(net, x, math.ceil(math.log2(x.shape[-1]))),
    "root": lambda net, x: times(net, x, int(x.shape[-1] ** 0.5)),
    "whole root": lambda net, x: times(net, x, math.isqrt(x.shape[-1])),
    "half": lambda net, x: times(net, x, int(x.shape[-1] / 2)),
    "rounded": lambda net, x: times(net, x, round(x.shape[-1] / 5)),
    "bits": lambda net, x: times(net, x, (x.shape[-1] - 1).bit_length()),
    "shifted": lambda net, x: times(net, x, x.shape[-1] >> 2),
    "odd": lambda net, x: only(net, x, x.shape[-1] & 1),
    "power": lambda net, x: only(net, x, 2 ** x.shape[0] > 5),
    "common divisor": lambda net, x: times(net, x, math.gcd(x.shape[2], x.shape[3])),
    "parts": lambda net, x: only(net, x, len(x.chunk(4)) == 2),
    "contiguous": lambda net, x: only(net, x, x[:, :, :1].is_contiguous()),
    "text of a tensor": lambda net, x: only(net, x, "size=(2," in repr(x)),
    "divmod": lambda net, x: times(net, x, int(divmod(x.shape[-1], 5)[1])),
    "index": lambda net, x: times(net, x, operator.index(x.shape[0])),
    "least": lambda net, x: only(net, x, min(x.shape[2:]) > 10),
    "most": lambda net, x: F.avg_pool2d(net.conv(x), max(1, min(x.shape[2:]) // 8)),
    "a plain view": lambda net, x: net.conv(x).view(len(x), -1),
    "ones": lambda net, x: net.conv(x) + torch.ones(len(x), 1, 1, 1),
    "infer alone": lambda net, x: only(net, x, not net.training and len(x) == 2),
    "numbers of a closed form": lambda net, x: F.pad(net.conv(x), (0, (1 << (x.shape[-1] - 1).bit_length()) - x.shape[-1])),
}
BY_CHANCE = {
    *("columns", "length of range", "list index", "list slice", "percent", "json"),
    *("elements of shape", "key of several", "f-string", "common divisor", "text of a tensor"),
}
"""What is not right for every pair of sizes: the first returns numbers, which no loss here takes. The others hold a plain number that no
method of a size has seen, or several at once, against certain others: that is found at a size far away, or not at all."""
FREE: dict[str, Use] = {
    "first": lambda net, x: net.conv(x[0][None]),
    "shift": lambda net, x: net.conv(x)[..., 1:] - net.conv(x)[..., :-1],
    "halves": lambda net, x: torch.cat([net.conv(x[..., :4]), net.conv(x[..., 4:8])]),
    "channels": lambda net, x: torch.stack([net.conv(x)[:, i] for i in range(4)]),
    "printed": lambda net, x: (str(x.shape[0]), f"{x.shape[2]} {x.shape}", net.conv(x))[2],
    "a key of no other": lambda net, x: net.conv(x) * len({x.shape[0]: 1}),
    "square": lambda net, x: net.conv(x) * x.shape[0] ** 2,
    "ceiling": lambda net, x: net.conv(x)[..., : math.ceil(x.shape[-1])],
    "strides": lambda net, x: net.conv(x.as_strided(x.shape, x.stride())),
    "resized": resized,
    "cached": cached,
}


def deltas(graph: Any, shape: Any, mode: str) -> list[int]:
    return [e.delta for e in memest.estimate(graph, input_shape=shape, mode=mode, machine=CPU).events]


@cache
def recorded_there(use: Use, shape: Any) -> dict[str, list[int]]:
    """The events of both modes, of a network recorded at ``shape``."""
    graph = from_torch(Net(use), shape)
    return {mode: deltas(graph, shape, mode) for mode in ("train", "infer")}


def held_against(use: Use, shape: Any, graph: Any, *, free: bool = False) -> int:
    """How many of both modes are answered at ``shape``, each equal to a recording made there."""
    answered = 0
    for mode in ("train", "infer"):
        try:
            found = deltas(graph, shape, mode)
        except memest.UsageError as e:
            assert not free, f"{shape}, {mode}: {e}"
            assert "import it again at this input shape" in str(e) and "\n" not in str(e)
            continue
        assert found == recorded_there(use, shape)[mode], (shape, mode)
        answered += 1
    return answered


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_over_a_size_is_described_at_that_size(name: str) -> None:
    graph = from_torch(Net(LOOPS[name]), SHAPE, mode="infer")
    assert memest.estimate(graph, input_shape=SHAPE, mode="infer").peak_bytes > 0
    with pytest.raises(memest.UsageError, match=REFUSED):
        memest.estimate(graph, input_shape=(5, 3, 24, 64), mode="infer")


@pytest.mark.parametrize("name", [name for name in (*LOOPS, *NUMBERS) if name not in BY_CHANCE])
@pytest.mark.parametrize("at", [SHAPE, *OTHERS], ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.slow
def test_what_is_answered_at_another_size_is_what_is_recorded_there(name: str, at: Any) -> None:
    use = {**LOOPS, **NUMBERS}[name]
    graph = from_torch(Net(use), at)
    assert held_against(use, at, graph) == 2
    for shape in (SHAPE, *OTHERS):
        held_against(use, shape, graph)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_decides_is_a_condition(name: str) -> None:
    graph = from_torch(Net(NUMBERS[name]), SHAPE)
    for shape in OTHERS[:2]:
        held_against(NUMBERS[name], shape, graph)


@pytest.mark.parametrize("name", FREE)
def test_a_number_that_decides_nothing_leaves_the_sizes_free(name: str) -> None:
    graph = from_torch(Net(FREE[name]), SHAPE)
    for shape in OTHERS[4:5]:
        held_against(FREE[name], shape, graph, free=True)


def test_a_network_that_is_told_no_size_is_not_looked_at_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Any] = []
    monkeypatch.setattr(Elsewhere, "agrees", lambda self, call: looked.append(self.sizes) or True)
    inside = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Upsample(scale_factor=2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    from_torch(inside, SHAPE)
    assert not looked
    from_torch(Net(FREE["shift"]), SHAPE)
    assert not looked
    from_torch(Net(FREE["printed"]), SHAPE)
    assert looked


# what stands around the calls -------------------------------------------------------------------------------------------


class Squared(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        (x,) = ctx.saved_tensors
        return 2 * x * gradient


def packed(net: Net, x: Any) -> Any:
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.half(), lambda t: t.float()):
        return net.conv(x).sigmoid()


def hooked(net: Net, x: Any) -> Any:
    y = net.conv(x)
    if y.requires_grad:
        y.register_hook(lambda gradient: gradient * 2)
    return y.sigmoid()


def halved(net: Net, x: Any) -> Any:
    net.conv.weight.data *= 0.5
    return net.conv(x)


AROUND: dict[str, Use] = {
    "function": lambda net, x: Squared.apply(net.conv(x)),
    "packed": packed,
    "hooked": hooked,
    "halved": halved,
    "nested checkpoints": lambda net, x: checkpoint(lambda z: checkpoint(torch.sigmoid, net.conv(z).tanh(), **WITHOUT).exp(), x, **WITHOUT),
    "number": lambda net, x: net.conv(x) * x.mean().item(),
    "checked": lambda net, x: checked(net.conv(x)),
}
WITHOUT: dict[str, Any] = {"use_reentrant": False}


def checked(y: Any) -> Any:
    assert torch.isfinite(y).all()
    return y * 2


@pytest.mark.parametrize("name", AROUND)
def test_what_stands_around_the_calls_leaves_the_sizes_free(name: str) -> None:
    graph = from_torch(Net(AROUND[name]), SHAPE)
    held_against(AROUND[name], OTHERS[4], graph, free=True)


def held_as_a_step(use: Use) -> None:
    function, shape = a_step(use), OTHERS[4]
    graph, there = (from_step(function, [torch.empty(at)]) for at in (SHAPE, shape))
    found, wanted = ([e.delta for e in memest.estimate(g, input_shape=shape, machine=CPU).events] for g in (graph, there))
    assert found == wanted


@pytest.mark.parametrize("name", AROUND)
@pytest.mark.slow
def test_what_stands_around_the_calls_of_a_step_leaves_the_sizes_free(name: str) -> None:
    """All but hooks, which run when the engine comes to them: such a step is refused at other sizes."""
    if name == "hooked":
        with pytest.raises(memest.UsageError, match=r"described for sizes where N == 2; .* import it again"):
            held_as_a_step(AROUND[name])
    else:
        held_as_a_step(AROUND[name])


@pytest.mark.slow
def test_a_tensor_that_somebody_keeps_who_is_no_module_leaves_the_sizes_free() -> None:
    scale = lru_cache(maxsize=4)(lambda: torch.ones(4, 1, 1))

    def use(net: Net, x: Any) -> Any:
        return net.conv(x) * scale()

    held_against(use, OTHERS[4], from_torch(Net(use), SHAPE), free=True)
    held_as_a_step(use)


# steps ------------------------------------------------------------------------------------------------------------------


def a_step(use: Use) -> Any:
    net = Net(use)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    def step(x: Any) -> None:
        optimizer.zero_grad()
        net(x).mean().backward()
        optimizer.step()

    return step


@pytest.mark.parametrize("name", ["index", "length", "text of another", "printed"])
def test_a_step_that_takes_a_size_is_answered_as_recorded_there_or_refused(name: str) -> None:
    use = {**LOOPS, **NUMBERS, **FREE}[name]
    graph = from_step(a_step(use), [torch.empty(SHAPE)])
    for shape in OTHERS[1:2]:
        try:
            found = [e.delta for e in memest.estimate(graph, input_shape=shape, machine=CPU).events]
        except memest.UsageError as e:
            assert name not in FREE and "import it again at this input shape" in str(e)
            continue
        there = from_step(a_step(use), [torch.empty(shape)])
        assert found == [e.delta for e in memest.estimate(there, input_shape=shape, machine=CPU).events]
