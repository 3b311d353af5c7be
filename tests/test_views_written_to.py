"""Views of a tensor that gets a gradient later, because somebody writes into it: a gradient reaches them from then on."""

from __future__ import annotations

from typing import Any

import pytest

import memest
from memest.errors import GraphError, UnsupportedError
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

from test_contexts import SHAPE, Forward, Net, infers_as_torch, trains_as_torch  # noqa: E402
from tiny import Square  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402


def filled(self: Any, x: Any) -> Any:
    base = torch.zeros(2, 8, 12, 10)
    base[:, :] = self.first(x)
    return self.head(Square.apply(base))


def a_view_of_it(self: Any, x: Any) -> Any:
    base = torch.zeros(2, 16, 12, 10)
    view = base[:, :8]
    base[:, :8] = self.first(x)
    return self.head(Square.apply(view))


def added_to(self: Any, x: Any) -> Any:
    base = torch.zeros(2, 8, 12, 10)
    view = base.view(2, 8, 120)
    base += self.first(x)
    return self.head(Square.apply(view).view(2, 8, 12, 10))


def by_a_view(self: Any, x: Any) -> Any:
    base = torch.zeros(2, 16, 12, 10)
    base[:, :8].copy_(self.first(x))
    return self.head(Square.apply(base)[:, 8:] + 1)


def into_a_checkpoint(self: Any, x: Any) -> Any:
    base = torch.zeros(2, 16, 12, 10)
    view = base[:, :8]
    base[:, :8] = self.first(x)
    return self.head(checkpoint(lambda a: torch.tanh(a) * a, view, use_reentrant=True))


def asked_whether(self: Any, x: Any) -> Any:
    base = torch.zeros(2, 16, 12, 10)
    view = base[:, :8]
    base[:, :8] = self.first(x)
    return self.head(view * 2 if view.requires_grad else view)


def hooked(self: Any, x: Any) -> Any:
    base = x.new_zeros(2, 8, 12, 10)
    base[..., 1:-1, :] = self.first(x)[..., 1:-1, :]
    if base.requires_grad:
        base.register_hook(lambda grad: grad * 2)
    return self.head(base)


def detached(self: Any, x: Any) -> Any:
    base = torch.zeros(2, 8, 12, 10)
    apart = base.detach()
    apart[:, :] = self.first(x)
    return self.head(Square.apply(base) + Square.apply(apart))


FORWARDS = (filled, a_view_of_it, added_to, by_a_view, into_a_checkpoint, asked_whether, hooked, detached)


@pytest.mark.parametrize("forward", FORWARDS, ids=lambda f: f.__name__)
def test_a_step_with_them_is_torchs(forward: Forward, cpu: Cpu) -> None:
    trains_as_torch(forward, cpu)


def test_so_is_inference(cpu: Cpu) -> None:
    infers_as_torch(asked_whether, cpu)


def test_what_torch_takes_for_a_leaf_is_refused(cpu: Cpu) -> None:
    def forward(self: Any, x: Any) -> Any:
        base = torch.zeros(2, 8, 12, 10)
        rows = [base[i] for i in range(2)]
        for row, y in zip(rows, self.first(x), strict=True):
            row.copy_(y)
        return self.head(base)

    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        Net(forward)(torch.rand(SHAPE))
    with pytest.raises(GraphError, match="a view made before another view"):
        memest.estimate(from_torch(Net(forward), SHAPE), input_shape=SHAPE, loss="mse_loss", machine=cpu)


def test_a_file_tells_a_weight_alone_from_one_with_its_bias(cpu: Cpu) -> None:
    """A function reads a module's weight, then the module itself is called."""

    def alone(self: Any, x: Any) -> Any:
        return torch.nn.functional.conv2d(x, self.second[0].weight, padding=1).tanh()

    for forward in (
        lambda self, x: self.head(self.second[0](alone(self, self.first(x)))),
        lambda self, x: self.head(alone(self, alone(self, self.first(x)))),
    ):
        trains_as_torch(forward, cpu)
        graph = from_torch(Net(forward), SHAPE)
        assert memest.loads(memest.dumps(graph)).layers == graph.layers


def both_ways(self: Any, x: Any) -> Any:
    pairs = self.first(x).view(-1, 2) * 1
    seen = torch.view_as_real(torch.view_as_complex(pairs))
    seen.mul_(2)
    return self.head((pairs if self.training else seen).view(2, 8, 12, 10))


def the_view_of_both_ways(self: Any, x: Any) -> Any:
    pairs = self.first(x).view(-1, 2) * 1
    seen = torch.view_as_real(torch.view_as_complex(pairs))
    seen.mul_(2)
    return self.head(seen.sin().view(2, 8, 12, 10))


def test_a_view_between_real_and_complex_numbers_may_be_written_into_but_not_be_read_for_its_gradient(cpu: Cpu) -> None:
    trains_as_torch(both_ways, cpu)
    infers_as_torch(the_view_of_both_ways, cpu)
    with pytest.raises(UnsupportedError, match=r"mul.*: the gradient of a view between real and complex numbers"):
        trains_as_torch(the_view_of_both_ways, cpu)


def a_loss_of_nothing(self: Any, x: Any) -> Any:
    y = self.first(x)
    none = y[:0]
    functional = torch.nn.functional
    return self.head(y) + functional.mse_loss(none, torch.zeros_like(none)) + functional.smooth_l1_loss(none, none * 2, reduction="sum")


def test_a_loss_of_no_elements_takes_a_number_of_its_own(cpu: Cpu) -> None:
    trains_as_torch(a_loss_of_nothing, cpu)
