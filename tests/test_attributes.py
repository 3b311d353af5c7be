"""Tensors that modules have as plain attributes stand in memory, whether the forward reads them or not."""

from __future__ import annotations

from typing import Any

import pytest

import memest

torch = pytest.importorskip("torch")
IMAGES = (2, 3, 8, 8)


class Detect(torch.nn.Module):
    """A head that remembers strides and anchors, of which ``reads`` are read."""

    def __init__(self, reads: bool) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.stride = torch.tensor([8.0, 16.0, 32.0])
        self.anchors = [torch.zeros(50), {"a": torch.zeros(7, dtype=torch.int64)}]
        self.rows = torch.zeros(4, 100)
        self.first = self.rows[0]
        self.part = torch.zeros(3, 30)[:2]
        self.same = self.conv.weight.detach()
        self.also = [self.conv.bias]
        self.reads = reads

    def forward(self, x: Any) -> Any:
        h = self.conv(x).mean((1, 2, 3))
        return h * self.stride[0] if self.reads else h


def storages(module: Any) -> int:
    """Bytes of all memory that it holds."""
    from validation.setup import attributes_of

    tensors = [*module.parameters(), *module.buffers(), *(t for _, t in attributes_of(module.named_modules()))]
    return sum({s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in tensors)}.values())


@pytest.mark.parametrize("reads", [False, True])
def test_they_stand_as_in_torch(reads: bool) -> None:
    """In both modes, in a file, and inside another module."""
    net = torch.nn.Sequential(Detect(reads))
    graph = memest.from_torch(net, IMAGES)
    expected = storages(net) + 4 * 2 * 3 * 8 * 8
    assert expected > 4 * (112 + 3 + 50 + 14 + 400 + 90)
    for g in (graph, memest.loads(memest.dumps(graph))):
        assert memest.estimate(g, input_shape=IMAGES, mode="infer").standing_bytes == expected
        assert memest.estimate(g, input_shape=IMAGES, mode="train", loss="mse").standing_bytes == expected + 4 * 2


@pytest.mark.slow
def test_on_a_card_they_stay_on_the_host() -> None:
    """``module.to`` moves what is registered."""
    graph = memest.from_torch(torch.nn.Sequential(Detect(False)), IMAGES, mode="infer")
    card = memest.estimate(graph, input_shape=IMAGES, mode="infer", runtime="torch-cuda", machine="h100-80gb")
    assert card.standing_bytes == 4 * (112 + 2 * 3 * 8 * 8)


def test_they_stand_in_a_step(cpu: Any) -> None:
    from validation.steps import Case, compare

    net = Detect(reads=True)
    x = torch.rand(IMAGES)

    def step(x: Any) -> None:
        net.zero_grad()
        net(x).sum().backward()

    found = compare(Case(step, (x,), (net,)), cpu)
    assert not found.failed, (found.difference, found.predicted.standing_bytes, found.standing_bytes)
