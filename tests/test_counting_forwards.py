"""Forwards that count their calls, or where they write, on a plain attribute: numbers that nothing is larger for decide nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import memest
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402
from tests.test_contexts import same  # noqa: E402
from validation.protocol import inputs_for, measure_training  # noqa: E402

SHAPE = (4, 3, 8, 8)


class Net(nn.Module):
    def __init__(self, forward: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.conv, self.calls, self.at, self.run = nn.Conv2d(3, 4, 3), 0, 0, forward
        self.register_buffer("queue", torch.zeros(4, 16))

    def forward(self, x: Any) -> Any:
        return self.run(self, x)


def warming_up(net: Any, x: Any) -> Any:
    net.calls += 1
    return net.conv(x) * (1 - 1 / (net.calls + 1))


def queueing(net: Any, x: Any) -> Any:
    keys = net.conv(x).mean((2, 3))
    with torch.no_grad():
        net.queue[:, net.at : net.at + x.shape[0]] = keys.detach().T
    net.at = (net.at + x.shape[0]) % 16
    return keys @ net.queue.clone()


def every_other(net: Any, x: Any) -> Any:
    net.calls += 1
    if net.calls % 2 == 0:
        x = x * 2
    return net.conv(x)


@pytest.mark.parametrize("forward", [warming_up, queueing])
def test_a_forward_that_counts_is_played_as_torch_does(forward: Callable[[Any, Any], Any]) -> None:
    net = Net(forward)
    graph = from_torch(net, SHAPE)
    assert (net.calls, net.at) == (0, 0)
    recipe: dict[str, Any] = {"optimizer": "sgd", "loss": "mse_loss", "machine": Cpu.detect().with_(threads=torch.get_num_threads())}
    measured = measure_training(Net(forward), inputs_for([SHAPE]), optimizer="sgd", loss="mse_loss")
    same(memest.estimate(graph, input_shape=SHAPE, **recipe), measured)
    other = (2, 3, 12, 12)
    measured = measure_training(Net(forward), inputs_for([other]), optimizer="sgd", loss="mse_loss")
    same(memest.estimate(graph, input_shape=other, **recipe), measured)


def test_a_forward_that_does_otherwise_every_other_time_is_refused() -> None:
    line = every_other.__code__.co_firstlineno + 3
    with pytest.raises(memest.UnsupportedError, match=rf"test_counting_forwards.py:{line}\): forward runs otherwise at every call"):
        from_torch(Net(every_other), SHAPE)
