"""Networks that torch.ao.quantization.quantize_dynamic made, in inference: the streams are torch's."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

import memest
from memest.errors import UnsupportedError
from memest.sources.importers.torch.network import from_torch
from validation.protocol import inputs_for, measure_inference
from validation.streams import first_difference

LAYERS = {nn.Linear, nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell, nn.RNNCell}


class Part(nn.Module):
    """What a recurrent layer gives first."""

    def __init__(self, inner: nn.Module, twice: bool = False) -> None:
        super().__init__()
        self.inner, self.twice = inner, twice

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Its output; ``twice``: once more, with the states that it gave."""
        made = self.inner(x)
        if self.twice:
            made = self.inner(x, made[1])
        return made[0] if isinstance(made, tuple) else made


def quantized(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The module as torch makes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: nn.Module = torch.ao.quantization.quantize_dynamic(module.eval(), LAYERS, dtype=dtype)
    return made


def compared(module: nn.Module, shape: tuple[int, ...]) -> memest.Estimate:
    """The estimate, whose stream is torch's."""
    graph = from_torch(module, shape)
    measured = measure_inference(module, inputs_for([shape]))
    for read in (graph, memest.loads(memest.dumps(graph))):
        found = memest.estimate(read, input_shape=shape, mode="infer", torch=torch.__version__)
        assert found.standing_bytes == measured.standing_bytes
        difference = first_difference(found.events, measured.events)
        assert difference is None, str(difference)
    return found


CNN = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 30), nn.ReLU(), nn.Linear(30, 5))


@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (CNN, (2, 3, 9, 9)),
        (nn.Sequential(nn.Linear(8, 6, bias=False), nn.Linear(6, 4)), (3, 5, 8)),
        (Part(nn.LSTM(8, 6)), (5, 3, 8)),
        (Part(nn.LSTM(8, 6, 2, bidirectional=True, batch_first=True), twice=True), (3, 5, 8)),
        (Part(nn.GRU(8, 6, 2, batch_first=True)), (3, 5, 8)),
    ],
    ids=["cnn", "linear", "lstm", "lstm-both-ways", "gru"],
)
def test_streams_are_those_of_torch(module: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    found = compared(quantized(module, dtype), shape)
    assert found.unregistered_bytes > 0
    numbers = sum(p.numel() for p in module.parameters() if p.ndim == 2 and p.shape[0] > 0)
    assert any(f"quantized weights of {numbers * dtype.itemsize:,} bytes" in note for note in found.notes)


@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells(cell: Any) -> None:
    compared(quantized(Part(cell(8, 6)), torch.qint8), (3, 8))


def test_a_size_stays_a_symbol() -> None:
    graph = from_torch(quantized(CNN, torch.qint8), (2, 3, 9, 9))
    module, shape = quantized(CNN, torch.qint8), (5, 3, 14, 12)
    measured = measure_inference(module, inputs_for([shape]))
    assert memest.estimate(graph, input_shape=shape, mode="infer", torch=torch.__version__).peak_bytes == measured.peak_bytes


def test_training_and_other_engines_are_refused() -> None:
    module = quantized(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(9, 4)), torch.qint8)
    with pytest.raises(UnsupportedError, match=r"^1: .*no gradient of quantized layers"):
        from_torch(module, (2, 3, 9, 9), mode="train")
    torch.backends.quantized.engine, before = "qnnpack", torch.backends.quantized.engine
    try:
        with pytest.raises(UnsupportedError, match="engine 'qnnpack'"):
            from_torch(module, (2, 3, 9, 9))
    finally:
        torch.backends.quantized.engine = before
