"""``tensor.data = value``: another memory under the same tensor, as MoCo's encoder of keys is averaged; equal to torch event by event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import memest
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402
from tests.test_contexts import same  # noqa: E402
from validation.protocol import inputs_for, measure_inference, measure_training  # noqa: E402
from validation.steps import Case, compare  # noqa: E402

SHAPE = (4, 3, 8, 8)


class Net(nn.Module):
    def __init__(self, forward: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.key.requires_grad_(False)
        self.register_buffer("center", torch.zeros(1, 4, 1, 1))
        self.register_buffer("queue", torch.zeros(4, 16))
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.int64))
        self.run = forward

    def forward(self, x: Any) -> Any:
        return self.run(self, x)


def momentum(net: Any, x: Any) -> Any:
    """Momentum contrast: the averaged encoder and the queue with its pointer."""
    with torch.no_grad():
        for k, q in zip(net.key.parameters(), net.query.parameters(), strict=True):
            k.data = k.data * 0.999 + q.data * (1.0 - 0.999)
        keys = net.key(x).mean((2, 3))
    out = net.query(x).mean((2, 3)) @ net.queue.clone().detach()
    with torch.no_grad():
        at = int(net.pointer)
        net.queue[:, at : at + x.shape[0]] = keys.T
        net.pointer[0] = (at + x.shape[0]) % 16
    return out


def before(net: Any, x: Any) -> Any:
    net.query.weight.data = net.query.weight.data.clamp(-1, 1)
    return net.query(x)


def after(net: Any, x: Any) -> Any:
    """Autograd keeps the weight itself, which has other memory then."""
    y = net.query(x)
    net.query.weight.data = net.query.weight.data.clamp(-1, 1)
    return y


def of_an_activation(net: Any, x: Any) -> Any:
    y = net.query(x)
    z = y.sigmoid()
    z.data = z.data * 2
    w = y * y
    y.data = y.data * 2
    return z * w


def of_a_buffer(net: Any, x: Any) -> Any:
    y = net.query(x)
    net.center.data = net.center * 0.9 + y.detach().mean((0, 2, 3), keepdim=True) * 0.1
    return y - net.center


FORWARDS = {f.__name__: f for f in (momentum, before, after, of_an_activation, of_a_buffer)}


@pytest.mark.parametrize("name", FORWARDS)
def test_a_forward_is_played_as_torch_does(name: str) -> None:
    cpu = Cpu.detect().with_(threads=torch.get_num_threads())
    graph = from_torch(Net(FORWARDS[name]), SHAPE)
    assert memest.loads(memest.dumps(graph)) == graph
    recipe: dict[str, Any] = {"optimizer": "sgd", "loss": "mse_loss"}
    measured = measure_training(Net(FORWARDS[name]), inputs_for([SHAPE]), **recipe)
    same(memest.estimate(graph, input_shape=SHAPE, machine=cpu, **recipe), measured)
    same(memest.estimate(graph, input_shape=SHAPE, machine=cpu, mode="infer"), measure_inference(Net(FORWARDS[name]), inputs_for([SHAPE])))


@pytest.mark.parametrize("name", ["momentum", "after"])
def test_a_step_is_played_as_torch_does(name: str) -> None:
    net = Net(FORWARDS[name])
    optimizer = torch.optim.SGD(net.parameters(), 0.1)

    def step(x: Any) -> None:
        optimizer.zero_grad()
        net(x).mean().backward()
        optimizer.step()

    outcome = compare(Case(step, [torch.rand(SHAPE)], [net, optimizer]), Cpu.detect().with_(threads=torch.get_num_threads()))
    assert not outcome.failed, str(outcome.difference)


def shared(net: Any, x: Any) -> Any:
    net.query.weight.data = net.key.weight.data
    return net.query(x)


def of_another_layout(net: Any, x: Any) -> Any:
    net.query.weight.data = (net.query.weight.data * 2).to(memory_format=torch.channels_last)
    return net.query(x)


def run_again(net: Any, x: Any) -> Any:
    return checkpoint(lambda x: before(net, x), x, use_reentrant=False)


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        (shared, r"test_exchanged_data.py:\d+\).* or the network's own: give it a copy"),
        (of_another_layout, "of another shape, dtype or layout: write into it"),
        (run_again, "inside a checkpoint, a hook or a custom function: write into it"),
    ],
)
def test_what_is_not_modelled_is_refused(forward: Callable[[Any, Any], Any], said: str) -> None:
    with pytest.raises(memest.UnsupportedError, match=said):
        from_torch(Net(forward), SHAPE)
