"""What lies in a circle of Python's is there until the garbage collector runs, with what autograd keeps for it."""

from __future__ import annotations

from typing import Any

import pytest

import memest
from memest.errors import GraphError
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

from test_contexts import SHAPE, Net, infers_as_torch, same, trains_as_torch  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402
from validation.protocol import inputs_for, measure_training  # noqa: E402


def sides(self: Any, x: Any) -> Any:
    """A function that calls itself collects what the loss does not take: outputs whose graph no backward passes."""
    maps: list[Any] = []

    def down(y: Any, left: int) -> Any:
        y = self.second(y)
        maps.append(self.head(y).sigmoid())
        return down(y, left - 1) if left else y

    y = down(self.first(x), 2)
    maps.append(self.head(y))
    return maps[::-1]


def inside(self: Any, x: Any) -> Any:
    """Nothing that is returned."""
    seen: list[Any] = []

    def down(y: Any, left: int) -> Any:
        seen.append(self.second(y))
        return down(seen[-1], left - 1) if left else seen[-1]

    return self.head(down(self.first(x), 2))


CIRCLES = pytest.mark.parametrize("forward", [sides, inside], ids=lambda f: f.__name__)


@CIRCLES
def test_a_training_step_keeps_a_circle(cpu: Cpu, forward: Any) -> None:
    trains_as_torch(forward, cpu)


@CIRCLES
def test_inference_keeps_a_circle(cpu: Cpu, forward: Any) -> None:
    infers_as_torch(forward, cpu)


def test_a_file_says_what_waits(cpu: Cpu) -> None:
    module = Net(sides)
    graph = memest.loads(memest.dumps(from_torch(module, SHAPE)))
    assert len(graph.waiting) == 4
    predicted = memest.estimate(graph, input_shape=SHAPE, optimizer="sgd", loss="mse_loss", machine=cpu)
    same(predicted, measure_training(module, inputs_for([SHAPE]), "sgd", "mse_loss"))
    with pytest.raises(GraphError, match=r"waiting: 'nobody' does not exist"):
        memest.loads(memest.dumps(graph.with_(waiting=("nobody",))))
