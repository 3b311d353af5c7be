"""Branches by what the module holds (buffers, plain attributes), by sizes put into a tensor, and those that only warn."""

from __future__ import annotations

from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError

torch = pytest.importorskip("torch")

from test_constants import Use, branching  # noqa: E402
from test_contexts import SHAPE, Net, same  # noqa: E402

from memest.machines.cpu import Cpu  # noqa: E402
from memest.sources.importers.torch.network import from_torch  # noqa: E402
from validation.protocol import inputs_for, measure_training  # noqa: E402


def _holding(decide: Use) -> Any:
    net: Any = Net(branching(decide))
    net.register_buffer("flags", torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    net.register_buffer("on", torch.tensor([True, False]))
    net.register_buffer("ready", torch.tensor(0))
    return net


def _warned(self: Any, y: Any) -> bool:
    if 7 in y[:, 0]:
        text = "seven"
        print(text)
    return True


HELD: dict[str, Use] = {
    "buffer": lambda self, y: self.on[0] and not self.on.all(),
    "part": lambda self, y: self.flags[1][0] or self.flags[1, 1] > 0.5,
    "numpy": lambda self, y: self.flags[0].data.cpu().numpy()[0] == 1,
    "sizes": lambda self, y: int(torch.tensor([y.shape[2], y.shape[3]]).amax().item()) > 2,
    "list": lambda self, y: torch.tensor([[y.shape[2], 1], [2, 2]])[0].tolist()[0] > 1,
    "loop": lambda self, y: [int(w) for _, w in torch.tensor([[1, y.shape[2]], [2, 2]])][1] == 2,
    "warning": _warned,
}


@pytest.mark.parametrize("decide", HELD.values(), ids=HELD)
def test_it_goes_the_way_torch_goes(decide: Use, cpu: Cpu) -> None:
    net = _holding(decide)
    predicted = memest.estimate(from_torch(net, SHAPE), input_shape=SHAPE, machine=cpu, optimizer="adam", loss="mse_loss")
    same(predicted, measure_training(net, inputs_for([SHAPE]), optimizer="adam", loss="mse_loss"))


def test_sizes_in_a_tensor_keep_their_symbols() -> None:
    def forward(self: Any, x: Any) -> Any:
        height, width = torch.tensor([[x.shape[2], x.shape[3]]])[0].tolist()
        return self.head(self.first(x)) + torch.ones(height, width).sum()

    graph = from_torch(Net(forward), SHAPE, mode="infer")
    wider = (*SHAPE[:-1], 2 * SHAPE[-1])
    found = memest.estimate(graph, input_shape=wider, mode="infer")
    there = memest.estimate(from_torch(Net(forward), wider, mode="infer"), input_shape=wider, mode="infer")
    assert [e.delta for e in found.events] == [e.delta for e in there.events]


def test_what_was_gone_by_is_said() -> None:
    notes = from_torch(_holding(HELD["buffer"]), SHAPE, mode="infer").notes
    assert "assumed: on holds what it holds now, which decides what runs" in notes


def test_what_the_forward_writes_decides_nothing() -> None:
    def first_time(self: Any, y: Any) -> bool:
        if self.ready == 0:
            self.ready.fill_(1)
            return True
        return False

    with pytest.raises(
        UnsupportedError, match=r"test_held_values.py:\d+\): a branch goes by ready, into which the forward writes, .*assume="
    ):
        from_torch(_holding(first_time), SHAPE)


def test_an_object_that_is_returned_is_looked_into(cpu: Cpu) -> None:
    class Cache:
        def __init__(self, keys: Any) -> None:
            self.keys = [keys]

    def forward(self: Any, x: Any) -> Any:
        y = self.first(x)
        return {"out": self.head(y), "cache": Cache(y * 2)}

    graph = from_torch(Net(forward), SHAPE, mode="infer")
    assert len(graph.outputs) == 2


@pytest.mark.parametrize("wanted", [False, True])
def test_requires_grad_is_set(wanted: bool, cpu: Cpu) -> None:
    def forward(self: Any, x: Any) -> Any:
        noise = torch.rand_like(x).to(self.first(x))
        noise.requires_grad = wanted
        return self.head(self.first(x + noise[:, : x.shape[1]])) if noise.shape == x.shape else self.head(noise + self.first(x).mean())

    predicted = memest.estimate(from_torch(Net(forward), SHAPE), input_shape=SHAPE, machine=cpu, loss="mse_loss")
    same(predicted, measure_training(Net(forward), inputs_for([SHAPE]), optimizer="sgd", loss="mse_loss"))


def test_a_buffer_that_is_a_part_of_a_storage_stands_with_all_of_it(cpu: Cpu) -> None:
    class Windowed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("window", torch.zeros(1000)[:10])
            self.layer = torch.nn.Linear(10, 10)

        def forward(self, x: Any) -> Any:
            return self.layer(x * self.window)

    graph = from_torch(Windowed(), (4, 10))
    found = memest.estimate(graph, input_shape=(4, 10), mode="infer", machine=cpu)
    assert found.standing_bytes == (1000 + 110 + 40) * 4
    assert memest.loads(memest.dumps(graph)).parameters == graph.parameters
