"""Networks prepared for quantization-aware training: what is observed and rounded, in training and inference, against torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.ao import quantization  # noqa: E402
from torch.ao.quantization import quantize_fx  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402
from tests.test_contexts import same  # noqa: E402
from validation.protocol import inputs_for, measure_inference, measure_training  # noqa: E402

SHAPE = (2, 3, 8, 8)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Net(nn.Module):
    """A convolution, normalized, and a linear layer, between stubs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.quant, self.dequant = quantization.QuantStub(), quantization.DeQuantStub()
        self.conv, self.norm, self.act = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
        self.linear = nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        y = self.act(self.norm(self.conv(self.quant(x))))
        return self.dequant(self.linear(y.mean((2, 3))))


def prepared(fuse: bool) -> nn.Module:
    net = Net().train()
    net.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    if fuse:
        quantization.fuse_modules_qat(net, [["conv", "norm", "act"]], inplace=True)
    made: nn.Module = quantization.prepare_qat(net)
    return made


def traced() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).train()
    made: nn.Module = quantize_fx.prepare_qat_fx(net, quantization.get_default_qat_qconfig_mapping("x86"), (torch.rand(SHAPE),))
    return made


@pytest.mark.parametrize("make", [lambda: prepared(True), pytest.param(traced, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mode", ["train", "infer"])
def test_a_prepared_network_is_played_as_torch_does(make: Callable[[], nn.Module], mode: str) -> None:
    recipe: dict[str, Any] = {"optimizer": "sgd", "loss": "mse_loss"} if mode == "train" else {"mode": "infer"}
    inputs = inputs_for([SHAPE])
    measured = measure_training(make(), inputs, **recipe) if mode == "train" else measure_inference(make(), inputs)
    module = make()
    before = {name: t.shape for name, t in module.state_dict().items()}
    graph = from_torch(module, SHAPE)
    assert {name: t.shape for name, t in module.state_dict().items()} == before
    cpu = Cpu.detect().with_(threads=torch.get_num_threads())
    same(memest.estimate(graph, input_shape=SHAPE, machine=cpu, **recipe), measured)


def test_an_observer_by_channel_that_has_seen_nothing_is_refused() -> None:
    quantizer = quantization.FusedMovingAvgObsFakeQuantize(
        observer=quantization.MovingAveragePerChannelMinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8, ch_axis=0
    )
    with pytest.raises(UnsupportedError, match=r"has seen nothing yet .* call the module once before"):
        from_torch(quantizer, SHAPE)


@pytest.mark.parametrize(
    "switches",
    [
        *[pytest.param((switch,), marks=pytest.mark.slow) for switch in ("disable_fake_quant", "disable_observer")],
        ("disable_fake_quant", "disable_observer"),
    ],
)
def test_fake_quantizers_that_are_switched_off_are_played_as_torch_does(switches: tuple[str, ...]) -> None:
    """Their kernels do something else then: torch makes a copy and a mask of ones, or looks for no extrema."""

    def make() -> nn.Module:
        net = prepared(True)
        net(*inputs_for([SHAPE]))
        for switch in switches:
            net.apply(getattr(quantization, switch))
        return net

    measured = measure_training(make(), inputs_for([SHAPE]), optimizer="sgd", loss="mse_loss")
    graph = from_torch(make(), SHAPE)
    assert all(any(f"torch.ao.quantization.{switch}" in note for note in graph.notes) for switch in switches)
    cpu = Cpu.detect().with_(threads=torch.get_num_threads())
    same(memest.estimate(graph, input_shape=SHAPE, machine=cpu, optimizer="sgd", loss="mse_loss"), measured)
    assert memest.loads(memest.dumps(graph)).layers == graph.layers


def test_a_fake_quantizer_that_is_switched_in_the_forward_is_refused() -> None:
    class Switching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = prepared(True)

        def forward(self, x: Any) -> Any:
            self.net.apply(quantization.disable_observer)
            return self.net(x)

    with pytest.raises(UnsupportedError, match="switched on or off here: do that before"):
        from_torch(Switching(), SHAPE)
