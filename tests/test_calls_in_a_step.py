"""Calls that are bound or composed in the importer, inside a small network: whole steps of torch's, event by event."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import memest
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.functional import pad  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402
from validation.protocol import inputs_for, measure_inference, measure_training  # noqa: E402
from validation.streams import first_difference  # noqa: E402

SHAPE = (4, 3, 8, 8)
L = torch.linalg
INF = float("inf")
RFFT = torch.fft.rfft2


class Net(nn.Module):
    """A convolution, and a function of what it gives (4, 6, 8, 8)."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.function = nn.Conv2d(3, 6, 1), function

    def forward(self, x: Any) -> Any:
        return self.function(self.stem(x))


def counted(y: Any) -> Any:
    return y.sum((1, 2, 3)) * torch.bincount(torch.arange(12) % 4, minlength=4)


def weighed(y: Any) -> Any:
    return y.mean() * torch.bincount(torch.arange(12) % 5, weights=torch.ones(12))


def scaled(y: Any) -> Any:
    low, high = y.aminmax(dim=1, keepdim=True)
    return (y - low) / (high - low)


def aligned(reduction: str, zero_infinity: bool = False, listed: bool = False) -> Callable[[Any], Any]:
    """A CTC loss of targets of 5 labels, the lengths in tensors or as a list."""

    def function(y: Any) -> Any:
        scores = y.flatten(2).permute(2, 0, 1).log_softmax(2)
        targets = torch.ones(y.shape[0], 5, dtype=torch.int64)
        lengths = [64] * 4, [5] * 4
        given = lengths if listed else (torch.full((4,), 64, dtype=torch.int32), torch.full((4,), 5))
        return nn.functional.ctc_loss(scores, targets, *given, reduction=reduction, zero_infinity=zero_infinity)

    return function


def spectral(y: Any) -> Any:
    """The low frequencies of both ends, as Fourier neural operators keep them."""
    spectrum = RFFT(y)
    kept = torch.zeros(*spectrum.shape, dtype=torch.cfloat)
    kept[:, :, :3, :3] = spectrum[:, :, :3, :3] * 2
    kept[:, :, -3:, :3] = spectrum[:, :, -3:, :3]
    return torch.fft.irfft2(kept, s=(8, 8))


def cleared(y: Any) -> Any:
    """The high frequencies set to nothing, and one channel to another."""
    spectrum = RFFT(y).clone()
    spectrum[..., 3:] = 0
    spectrum[:, 0] = spectrum[:, 1]
    return spectrum.abs()


CALLS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "bincount": (counted, {"bins": 4}),
    "bincount by minlength": (counted, {}),
    "bincount of weights": (weighed, {"bins": 5}),
    "isin": (lambda y: y.masked_fill(torch.isin(y.argmax(1, keepdim=True), torch.tensor([1, 2])), 0), None),
    "isin a number": (lambda y: y * torch.isin(y.argmax(1, keepdim=True), 3), None),
    "aminmax": (scaled, None),
    "nansum": (lambda y: y.nansum((2, 3)), None),
    "nanmean": (lambda y: torch.nanmean(y, dim=1), None),
    "logcumsumexp": (lambda y: y.logcumsumexp(1), None),
    "normal by tensors": (lambda y: torch.normal(y, y.exp()), None),
    "normal by a mean": (lambda y: torch.normal(y, 0.5), None),
    "normal by a deviation": (lambda y: torch.normal(0.0, y.exp()), None),
    "normal in a shape": (lambda y: y + torch.normal(0.0, 1.0, size=y.shape), None),
    "random_": (lambda y: y + torch.empty_like(y).random_(0, 5), None),
    **{f"vector_norm {p}": (lambda y, p=p: L.vector_norm(y, p, dim=1), None) for p in (INF, -INF, 0.5, 1.5, 3)},
    **{f"matrix norm {p}": (lambda y, p=p: L.matrix_norm(y, p), None) for p in ("fro", 1, -1, INF, -INF)},
    "norm of dims": (lambda y: L.norm(y, 1, dim=(1, 3), keepdim=True), None),
    "zeros_like a leaf": (lambda y: y + torch.zeros_like(y, requires_grad=True), None),
    "tensor a leaf": (lambda y: y * torch.tensor(1.0, requires_grad=True), None),
    "new_zeros a leaf": (lambda y: y * y.new_zeros(8, requires_grad=True), None),
    "eye a leaf": (lambda y: torch.eye(8, requires_grad=True) @ y, None),
    "inv": (lambda y: L.inv(y @ y.mT + torch.eye(8)), None),
    "solve": (lambda y: L.solve(y @ y.mT + torch.eye(8), y), None),
    "solve for vectors": (lambda y: L.solve(y[:, 0] @ y[:, 0].mT + torch.eye(8), y[:, 0, 0]), None),
    "cartesian_prod": (lambda y: torch.cartesian_prod(y[0, 0, 0], y[0, 0, 1], y[0, 1, 0]), None),
    "absolute and negative": (lambda y: y.absolute().negative(), None),
    "cross": (lambda y: torch.cross(y[:, :3], y[:, 3:]), None),
    "cross along the last dim": (lambda y: L.cross(y[..., :3], y[..., 3:6]), None),
    "complex einsum": (lambda y: torch.einsum("bixy,iowz->boxy", torch.fft.rfft2(y), torch.fft.rfft2(y[0, :, None])).abs(), None),
    "complex matmul": (lambda y: (torch.fft.rfft(y).mT @ torch.fft.rfft(y)).abs(), None),
    "complex quotient": (lambda y: (torch.fft.rfft2(y) / torch.fft.rfft2(y * 2)).abs(), None),
    "complex over real": (lambda y: (torch.fft.rfft2(y) / 2 / torch.fft.rfft2(y).abs()).real, None),
    "angle and polar": (lambda y: torch.fft.irfft2(torch.polar(torch.fft.rfft2(y).abs(), torch.fft.rfft2(y).angle())), None),
    "complex parts written": (spectral, None),
    "a complex part cleared": (cleared, None),
    "complex elements moved": (lambda y: pad(RFFT(y).index_select(1, torch.tensor([0, 2])).tile(2, 1).tril(), (0, 1)).abs(), None),
    "complex elements chosen": (lambda y: torch.where(y[..., :5] > 0, -RFFT(y), RFFT(y * 2).masked_fill(y[..., :5] < 1, 0)).abs(), None),
    "complex numbers in place": (lambda y: RFFT(y).clone().mul_(2).add_(RFFT(y * 2)).div_(3).abs(), None),
    "real numbers made complex": (lambda y: y.to(torch.complex64).to(torch.complex128).abs(), None),
    "ctc_loss": (aligned("mean"), {"length": 5}),
    "ctc_loss where it is infinite": (aligned("sum", zero_infinity=True), {"length": 5}),
    "ctc_loss of listed lengths": (aligned("none", listed=True), None),
    "clamp by a tensor": (lambda y: y.clamp(min=y.mean()), None),
    "clamp by two": (lambda y: torch.clamp(y, torch.zeros(8), y * 2), None),
    "clamp_max by a tensor": (lambda y: y.clamp_max(y[:, :1]), None),
    "unfold short of the end": (lambda y: y.unfold(-1, 3, 2).sum(-1), None),
}
QUICK = {"bincount by minlength", "tensor a leaf"}


def cases() -> Iterator[Any]:
    for name, (function, assume) in CALLS.items():
        yield pytest.param(function, assume, id=name, marks=() if name in QUICK else pytest.mark.slow)


@pytest.mark.parametrize(("function", "assume"), list(cases()))
def test_a_step_and_a_call_are_those_of_torch(function: Callable[[Any], Any], assume: Any, cpu: Cpu) -> None:
    inputs = inputs_for([SHAPE])
    graph = from_torch(Net(function), SHAPE, assume=assume)
    graph = memest.loads(memest.dumps(graph))
    trained = memest.estimate(graph, input_shape=SHAPE, loss="mse_loss", optimizer="sgd", machine=cpu)
    difference = first_difference(trained.events, measure_training(Net(function), inputs, "sgd", "mse_loss").events)
    assert difference is None, f"training\n{difference}"
    graph = from_torch(Net(function), SHAPE, assume=assume, mode="infer")
    called = memest.estimate(graph, input_shape=SHAPE, mode="infer", machine=cpu)
    difference = first_difference(called.events, measure_inference(Net(function).eval(), inputs).events)
    assert difference is None, f"inference\n{difference}"
