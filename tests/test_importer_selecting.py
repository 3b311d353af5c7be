"""Calls that pick elements: what is recorded of them, and what is said where their size depends on values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from memest.errors import UnsupportedError
from memest.estimate.estimate import estimate
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402
from validation.protocol import inputs_for, measure_training  # noqa: E402
from validation.streams import first_difference  # noqa: E402

SHAPE = (2, 4, 8, 8)


class By(nn.Module):
    """A convolution and what a function makes of it."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.conv(x))


@pytest.mark.parametrize(
    ("function", "op", "attributes"),
    [
        (lambda x: functional.adaptive_max_pool2d(x, 3), "adaptive_max_pool2d", {"output_size": 3, "return_indices": True}),
        (nn.AdaptiveMaxPool2d((2, 5)), "adaptive_max_pool2d", {"output_size": (2, 5), "return_indices": True}),
        (lambda x: functional.adaptive_max_pool2d(x, 3, True)[0], "adaptive_max_pool2d", {"output_size": 3, "return_indices": True}),
        (lambda x: functional.adaptive_max_pool1d(x.flatten(2), 3), "adaptive_max_pool1d", {"output_size": 3, "return_indices": True}),
        (lambda x: x.sort(1, descending=True)[0], "sort", {"dim": 1, "descending": True}),
        (lambda x: torch.sort(x, stable=True, dim=0).values, "sort", {"dim": 0, "stable": True}),
        (lambda x: x * x.argsort(2), "argsort", {"dim": 2}),
        (lambda x: x.mean() * functional.embedding(x.argmax(1), torch.ones(4, 3), 1), "embedding", {"padding_idx": 1}),
    ],
)
def test_what_picks_is_recorded(function: Any, op: str, attributes: dict[str, Any]) -> None:
    graph = from_torch(By(function), SHAPE)
    (layer,) = [layer for layer in graph.layers if layer.op == op]
    assert dict(layer.attributes) == attributes
    assert estimate(graph, input_shape=SHAPE, machine=Cpu()).peak_bytes > 0


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: x[x > 0], r"x\[mask\] depends on values; say how many of 512 .* or keep the shape: torch.where\(mask, x, 0\)"),
        (lambda x: torch.nonzero(x), r"torch.nonzero\(\) depends on values; say how many of 512 there are \(.*\): assume={'selected': N}"),
        (lambda x: torch.where(x > 0)[0], r"torch.nonzero\(\) depends on values; say how many of 512"),
        (lambda x: torch.masked_select(x, x > 0), r"torch.masked_select\(\) depends on values; say how many of 512"),
        (lambda x: torch.unique(x), r"torch.unique\(\) depends on values; say how many of 512 there are .*assume={'unique': N}"),
        (lambda x: torch.bincount(x.long().flatten()), r"torch.bincount\(\) makes a bin for each .*: assume={'bins': N}"),
    ],
)
def test_what_depends_on_values_is_refused_with_what_to_do(function: Any, said: str) -> None:
    with pytest.raises(UnsupportedError, match=said):
        from_torch(By(function), SHAPE)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_norm": 1.0}, "no rule for .*embedding_renorm_"),
        ({"sparse": True}, "'table' .*sparse=True: .* is not modelled"),
    ],
)
def test_embeddings_with_other_options_are_refused(options: dict[str, Any], said: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(30, 8, **options)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.table(x.argsort(1))

    with pytest.raises(UnsupportedError, match=said):
        estimate(from_torch(Net(), (6, 20)), input_shape=(6, 20), machine=Cpu())


class Ranked(nn.Module):
    """Rows of a table by rank; the largest and the sorted of them."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(30, 8, padding_idx=0), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        largest = functional.adaptive_max_pool1d(self.table(x.argsort(1)).transpose(1, 2), 5)
        return self.head(largest.sort(2).values.mean(2))


def test_a_step_with_all_of_them_is_that_of_torch(cpu: Cpu) -> None:
    net, shape = Ranked(), (6, 20)
    predicted = estimate(from_torch(net, shape), input_shape=shape, loss="mse_loss", optimizer="adam", machine=cpu)
    measured = measure_training(net, inputs_for([shape]), "adam", "mse_loss")
    difference = first_difference(predicted.events, measured.events)
    assert difference is None, f"\n{difference}"
    assert (predicted.standing_bytes, predicted.peak_bytes) == (measured.standing_bytes, measured.peak_bytes)
