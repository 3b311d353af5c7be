"""What stands around convolutions: recurrent layers, transforms, orderings, weights made anew in every forward. Training steps
and inferences, event by event, against torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError
from memest.machines.cpu import Cpu
from memest.sources.opening import from_torch

torch = pytest.importorskip("torch")
nn = torch.nn

from tests.test_contexts import same  # noqa: E402
from validation.protocol import inputs_for, measure_inference, measure_training  # noqa: E402

SHAPE = (2, 3, 8, 6)


class Network(nn.Module):  # type: ignore[name-defined, misc]
    """A convolution, and what a test puts behind it."""

    def __init__(self, behind: Callable[..., Any], *modules: Any, size: tuple[int, ...] = (1,)) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.behind = behind
        self.inner = nn.ModuleList(modules)
        self.weight = nn.Parameter(torch.rand(size))

    def forward(self, x: Any) -> Any:
        return self.behind(self, self.first(x)) * self.weight[0].sum()


def sequence(self: Any, y: Any) -> Any:
    out, _ = self.inner[0](y.permute(3, 0, 1, 2).flatten(2))
    return out


def own_state(self: Any, y: Any) -> Any:
    steps = y.flatten(1, 2)
    both = y.new_zeros(2, 1, 2, 8)
    out, (h, c) = self.inner[0](steps.permute(2, 0, 1), (both[0], both[1]))
    return out + h + c


def cells(self: Any, y: Any) -> Any:
    state = torch.zeros(2, 8)
    for t in y.flatten(1, 2).unbind(2):
        state = self.inner[0](t, state)
    return state


def filtered(self: Any, y: Any) -> Any:
    spectrum = torch.fft.rfft2(y.permute(0, 2, 3, 1), dim=(1, 2), norm="ortho") * torch.view_as_complex(self.weight)
    return torch.fft.irfft2(spectrum, s=(8, 6), dim=(1, 2), norm="ortho")


def magnitude(self: Any, y: Any) -> Any:
    return torch.fft.fftshift(torch.fft.fft2(y), dim=(-2, -1)).abs()


def neighbours(self: Any, y: Any) -> Any:
    points = y.flatten(2).transpose(1, 2)
    return torch.cdist(points, points).topk(3, largest=False)[0] + torch.cdist(points, points[:, :3], p=1).sort(dim=1)[0]


def quantized(self: Any, y: Any) -> Any:
    flat = y.permute(0, 2, 3, 1).reshape(-1, 4)
    nearest = torch.cdist(flat, self.inner[0].weight).argmin(1)
    return flat + (self.inner[0](nearest) - flat).detach() + nn.functional.one_hot(nearest, 16).float().mean()


def middles(self: Any, y: Any) -> Any:
    return y - y.median(dim=1, keepdim=True)[0] + y.median() + torch.cummax(y, 2)[0]


def normed(self: Any, y: Any) -> Any:
    return self.inner[0](y).flatten(1) @ self.inner[1].weight.t()


UTILS = nn.utils
LSTM: dict[str, Any] = {"num_layers": 2, "bidirectional": True, "dropout": 0.3}
NETWORKS: dict[str, Callable[[], Any]] = {
    "lstm": lambda: Network(sequence, nn.LSTM(32, 8, **LSTM)),
    "gru": lambda: Network(sequence, nn.GRU(32, 8, **LSTM)),
    "rnn": lambda: Network(sequence, nn.RNN(32, 8, bias=False)),
    "projected": lambda: Network(sequence, nn.LSTM(32, 8, proj_size=5)),
    "states of one storage": lambda: Network(own_state, nn.LSTM(32, 8)),
    "cells": lambda: Network(cells, nn.GRUCell(32, 8)),
    "global filter": lambda: Network(filtered, size=(8, 4, 4, 2)),
    "magnitude": lambda: Network(magnitude),
    "neighbours": lambda: Network(neighbours),
    "vector quantized": lambda: Network(quantized, nn.Embedding(16, 4)),
    "medians": lambda: Network(middles),
    "weight norm": lambda: Network(normed, UTILS.weight_norm(nn.Conv2d(4, 4, 3)), nn.Linear(96, 3)),
    "spectral norm": lambda: Network(normed, UTILS.spectral_norm(nn.Conv2d(4, 4, 3)), nn.Linear(96, 3)),
    "parametrized": lambda: Network(
        normed,
        nn.Sequential(UTILS.parametrizations.spectral_norm(nn.Conv2d(4, 4, 3)), UTILS.parametrizations.weight_norm(nn.Conv2d(4, 4, 1))),
        nn.Linear(96, 3),
    ),
}


KEPT = {"weight norm": 576, "spectral norm": 576}  # bytes of the weight that the last call left in the module


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_step_is_that_of_torch(name: str, cpu: Cpu) -> None:
    module = NETWORKS[name]()
    predicted = memest.estimate(from_torch(module, SHAPE), input_shape=SHAPE, machine=cpu, optimizer="sgd", loss="mse_loss")
    same(predicted, measure_training(module, inputs_for([SHAPE]), "sgd", "mse_loss"))
    assert predicted.unregistered_bytes == KEPT.get(name, 0)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_inference_is_that_of_torch(name: str, cpu: Cpu) -> None:
    module = NETWORKS[name]().eval()
    predicted = memest.estimate(from_torch(module, SHAPE), input_shape=SHAPE, mode="infer", machine=cpu)
    same(predicted, measure_inference(module, inputs_for([SHAPE])))
    assert predicted.unregistered_bytes == KEPT.get(name, 0)


@pytest.mark.parametrize("norm_first", [True, False])
def test_an_encoder_in_inference_is_that_of_torch(norm_first: bool, cpu: Cpu) -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=norm_first)
    module = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    predicted = memest.estimate(from_torch(module, (2, 5, 16)), input_shape=(2, 5, 16), mode="infer", machine=cpu)
    same(predicted, measure_inference(module, inputs_for([(2, 5, 16)])))


@pytest.mark.parametrize(
    ("behind", "said"),
    [
        (lambda self, y: torch.fft.fft2(y).log().abs(), "log of a complex tensor has no rule"),
        (lambda self, y: torch.fft.fft2(y).conj().abs(), "no rule for .*conj"),
        (lambda self, y: nn.functional.one_hot(y.argmax(1)).float(), "has a size that depends on values"),
    ],
)
def test_what_has_no_rule_is_named(behind: Any, said: str) -> None:
    with pytest.raises(UnsupportedError, match=said):
        memest.estimate(from_torch(Network(behind), SHAPE), input_shape=SHAPE, mode="infer")
