"""What people's forwards call beside layers: places named by an index, diagonals, functions of calculus, distances, losses, drawn numbers.
Training steps and inferences, event by event, against torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from memest.machines.versions import nearest  # noqa: E402
from memest.sources.importers.torch.network import from_torch  # noqa: E402
from tests.test_contexts import same  # noqa: E402
from validation.protocol import inputs_for, measure_inference, measure_training  # noqa: E402

SHAPE = (6, 5)


class Net(nn.Module):
    """A layer whose output a function gets, an activation of it beside it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(5, 6)
        self.function = function

    def forward(self, x: Any) -> Any:
        y = self.layer(x)
        return self.function(y, y.sigmoid())


def places(count: int, *shape: int) -> Any:
    return torch.arange(shape[0] * shape[1]).remainder(count).view(*shape)


def put(y: Any, index: Any, value: Any) -> Any:
    y = y * 2
    y[index] = value
    return y


SCATTERED = {
    "scatter": lambda y, z: y.scatter(1, places(6, 6, 3), z[:, :3]),
    "scatter number": lambda y, z: y.scatter(1, places(6, 6, 3), 0.5),
    "scatter in place": lambda y, z: (y * 2).scatter_(1, places(6, 6, 3), z[:, :3]),
    "topk mask": lambda y, z: torch.where(torch.zeros_like(y).scatter_(1, y.topk(2)[1], 1.0) > 0, y, 0.0),
    "scatter_add": lambda y, z: torch.zeros_like(y).scatter_add(1, places(6, 6, 6), z),
    "scatter_reduce": lambda y, z: y.scatter_reduce(1, places(6, 6, 6), z, "mean") + y.scatter_reduce(1, places(6, 6, 6), z, "amax"),
    "index_add": lambda y, z: y.index_add(0, torch.tensor([0, 2]), z[:2], alpha=2),
    "index_copy": lambda y, z: y.index_copy(1, torch.tensor([0, 2]), z[:, :2]),
    "index_fill": lambda y, z: y.index_fill(1, torch.tensor([0, 2]), 0.0),
    "put": lambda y, z: put(y, (slice(None), torch.tensor([0, 2])), z[:, :2]),
    "put a number": lambda y, z: put(y, (torch.tensor([0, 2]), torch.tensor([1, 3])), 1.0),
    "put at a mask": lambda y, z: put(y, z > 0.5, 0.0),
    "a list": lambda y, z: y[:, [2, 1, 0]] + z[[0, 1, 2, 3, 4, 5], :3],
    "take": lambda y, z: torch.take(y, places(30, 2, 3)) + torch.take_along_dim(y, places(6, 6, 3), 1)[:2],
    "gather int32": lambda y, z: y.gather(1, places(6, 6, 3).int()),
    "fill by a tensor": lambda y, z: y.masked_fill(z > 0.5, torch.tensor(-1e9)),
}
MATRICES = {
    "triangles": lambda y, z: torch.tril(y) + z.triu(1) + torch.triu(torch.ones(6, 6), 1),
    "diagonals": lambda y, z: torch.diag(y) + z.diagonal() + torch.diag_embed(y[0]).diagonal(),
    "trace": lambda y, z: torch.trace(y) * z,
    "outer": lambda y, z: torch.outer(y[0], z[0]) + torch.ger(y[1], z[1]),
    "kron": lambda y, z: torch.kron(y, z[:2, :3]),
    "tensordot": lambda y, z: torch.tensordot(y, z, dims=([1], [1])) * torch.tensordot(y, z, dims=2),
    "stacks": lambda y, z: torch.hstack([y, z]).sum() + torch.vstack([y, z[0]]).sum() + torch.column_stack([y, z[:, 0]]).sum(),
    "turns": lambda y, z: torch.rot90(y, 0) + torch.rot90(z, 1) + torch.fliplr(y) + torch.rot90(y, 2).flipud(),
}
NUMBERS = {
    "angles": lambda y, z: torch.atan2(y, z) + torch.hypot(y, z) + y.tan() + torch.atan(z) + torch.asinh(y),
    "gamma": lambda y, z: torch.lgamma(z) + torch.erfinv(z * 0.5) + torch.special.erfc(y) + torch.sinc(y),
    "sums of powers": lambda y, z: torch.logaddexp(y, z) + y.nan_to_num(),
    "finite": lambda y, z: torch.where(torch.isfinite(y), y, z) * torch.isnan(y) + torch.isinf(z),
    "remainders": lambda y, z: torch.remainder(y, 2.0) + torch.fmod(y, z) + y % z.detach(),
    "filled diagonal": lambda y, z: ((y @ z.mT) * 2).fill_diagonal_(-9.0) @ y,
    "differences": lambda y, z: torch.diff(y) + torch.diff(z, prepend=z[:, :1])[:, 1:],
}
LOSSES = {
    "cosine_similarity": lambda y, z: functional.cosine_similarity(y, z) + functional.pairwise_distance(y, z),
    "cosine_embedding": lambda y, z: functional.cosine_embedding_loss(y, z, torch.ones(6)),
    "triplet": lambda y, z: functional.triplet_margin_loss(y, z, y * z, swap=True),
    "margin_ranking": lambda y, z: functional.margin_ranking_loss(y, z, torch.ones(6, 6)),
    "poisson": lambda y, z: functional.poisson_nll_loss(y, z * 2) + torch.special.expit(torch.moveaxis(y, 0, 1)),
    "hinge": lambda y, z: functional.hinge_embedding_loss(y, torch.ones(6, 6)) + functional.poisson_nll_loss(y, z.detach()),
    "gaussian": lambda y, z: functional.gaussian_nll_loss(y, z.detach(), z),
}
DRAWN = {
    "orders": lambda y, z: y[torch.randperm(6)] + z[:, torch.randint(0, 6, (6,))] + y[torch.randint(6, size=(6,))],
    "coins": lambda y, z: y * torch.bernoulli(z) + torch.empty_like(z).exponential_(),
    "gumbel": lambda y, z: functional.gumbel_softmax(y, hard=True) + functional.gumbel_softmax(z, tau=0.5),
}
ALL = {**DRAWN, **SCATTERED, **MATRICES, **NUMBERS, **LOSSES}


ORDERED = {
    "quantile": lambda y, z: y - torch.quantile(y, 0.3) * z.quantile(0.9, dim=0, keepdim=True),
    "quantile of images": lambda y, z: y.view(2, 3, 6) / torch.quantile(z.view(2, 3, 6), 0.5, 1, keepdim=True),
}
SELECTS = nearest(torch.__version__) >= (2, 14)
if not SELECTS:
    ALL.update(ORDERED)


@pytest.mark.skipif(not SELECTS, reason="until 2.13 quantiles are sorted")
def test_quantiles_that_a_kernel_selects_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"\): quantile: torch.quantile of torch 2.14 and later has no rule"):
        from_torch(Net(ORDERED["quantile"]), SHAPE)


@pytest.mark.parametrize("mode", ["train", pytest.param("infer", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ALL)
def test_what_a_forward_calls_is_played_as_torch_does(name: str, mode: str) -> None:
    recipe: dict[str, Any] = {"optimizer": "sgd", "loss": "mse_loss"} if mode == "train" else {"mode": "infer"}
    inputs = inputs_for([SHAPE])
    measured = measure_training(Net(ALL[name]), inputs, **recipe) if mode == "train" else measure_inference(Net(ALL[name]), inputs)
    graph = from_torch(Net(ALL[name]), SHAPE)
    cpu = Cpu.detect().with_(threads=torch.get_num_threads())
    predicted = memest.estimate(graph, input_shape=SHAPE, machine=cpu, **recipe)
    same(predicted, measured)
    again = memest.estimate(memest.loads(memest.dumps(graph)), input_shape=SHAPE, machine=cpu, **recipe)
    assert again.peak_bytes == predicted.peak_bytes


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda y, z: y.masked_scatter(z > 0.5, z.flatten()), r"masked_scatter's source has a size that depends on values"),
        (lambda y, z: y.scatter_reduce(1, places(6, 6, 6), z, "prod"), r"scatter_reduce by 'prod' has no rule"),
        (lambda y, z: y.scatter(1, places(6, 6, 6).int(), z), r"make it int64"),
    ],
)
def test_what_has_no_rule_says_what_to_do(function: Any, said: str) -> None:
    with pytest.raises(UnsupportedError, match=said):
        memest.estimate(from_torch(Net(function), SHAPE), input_shape=SHAPE)


def test_autocast_casts_what_a_composed_loss_reads() -> None:
    def loss(y: Any, z: Any) -> Any:
        return functional.cosine_embedding_loss(y, z, torch.ones(6)) + functional.cosine_similarity(y, z).float()

    recipe: dict[str, Any] = {"optimizer": "sgd", "loss": "mse_loss", "levers": ("autocast:dtype=bfloat16",)}
    measured = measure_training(Net(loss), inputs_for([SHAPE]), **recipe)
    graph = from_torch(Net(loss), SHAPE)
    same(memest.estimate(graph, input_shape=SHAPE, machine=Cpu.detect().with_(threads=torch.get_num_threads()), **recipe), measured)
