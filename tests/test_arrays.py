"""NumPy's arrays in the midst of a step, torch's older constructors, and parts of views that are written: event by event as torch does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import memest
from memest.errors import UnsupportedError
from memest.machines.cpu import Cpu
from memest.sizes.dims import resolve

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from validation.profiling import record  # noqa: E402
from validation.streams import first_difference  # noqa: E402

Use = Callable[[Any], Any]


def _matched(y: Any) -> Any:
    """Each target's best row, by an assignment of NumPy's kind."""
    cost = torch.cdist(y.detach().flatten(0, 1), torch.ones(3, 4)).view(2, 5, 3).cpu()
    rows = [np.argsort(np.asarray(c), 0)[0] for c in cost]
    found = [torch.as_tensor(r, dtype=torch.int64) for r in rows]
    batch = torch.cat([torch.full_like(r, i) for i, r in enumerate(found)])
    return y[batch, torch.cat(found)]


def _lives_on(y: Any) -> Any:
    array = (y.detach() + 1).numpy()
    z = y * 2
    return z + torch.from_numpy(array)


def _mask_by_type(y: Any) -> Any:
    kept = torch.BoolTensor(2, 5, 4).fill_(True)
    return y * kept.type(torch.FloatTensor) if y.type() == "torch.FloatTensor" else y


USES: dict[str, Use] = {
    "matched": _matched,
    "lives on": _lives_on,
    "cast": lambda y: y * torch.as_tensor(np.ones(4)).float() * torch.tensor(np.ones((5, 1), np.float32)),
    "an array's places": lambda y: y[:, np.array([0, 2])] + torch.from_numpy(np.ones((2, 4), np.float32)),
    "of numbers": lambda y: y * torch.Tensor([1.0, 2.0, 3.0, 4.0]) + torch.LongTensor([1]),
    "of sizes": lambda y: y + torch.FloatTensor(y.shape).zero_() + torch.Tensor(5, 4).fill_(0) + torch.DoubleTensor(4).zero_().float(),
    "a range": lambda y: y * torch.range(1, 4) + torch.range(0, 3.5, 1.0),
    "of an array": lambda y: y * torch.FloatTensor(np.ones(4, np.float32)),
    "new": lambda y: y * y.new([1, 2, 3, 4]) + y.new(5, 4).zero_() + y.new(y.size()).fill_(1),
    "by type": _mask_by_type,
}


def _add_to_part(y: Any) -> Any:
    y[..., :2] += y[..., 2:].sigmoid()
    return y.sigmoid()


def _write_parts(y: Any) -> Any:
    y[..., 0] *= 2
    y[0, :, 1:3] = y[1, :, 1:3] * 2
    y[..., 3] = 0.0
    return y.sigmoid()


def _fill_with_a_tensor(y: Any) -> Any:
    z, fresh = y * 2, torch.zeros(5, 4)
    z[1, :3] = y[0].mean()
    fresh[2] = y.sum()
    y[0, 0] = z.sum()
    return y + z + fresh


def _at_read_places(y: Any) -> Any:
    """A tensor of one number in an index is read: its place is a view, and a mask beside it is a mask alone."""
    at, zeros = torch.tensor([1, 0]), torch.zeros(2, 5, 4)
    zeros[at[0], torch.ones(5) > 0, at[1]] = 1
    zeros[at[1]] = y[at[0]]
    return y[:, at[0]] * zeros[0, at[1]]


PARTS: dict[str, Use] = {
    "added to": _add_to_part,
    "written": _write_parts,
    "filled": _fill_with_a_tensor,
    "at read places": _at_read_places,
}


def trains_as_torch(use: Use, cpu: Cpu) -> None:
    """``nn.Linear`` of three dims gives a view, and ``use`` goes on from it."""
    linear = nn.Linear(4, 4)

    def step(x: Any) -> None:
        linear.zero_grad()
        use(linear(x)).sum().backward()

    x = torch.rand(2, 5, 4)
    step(x)
    linear.zero_grad()
    measured, _ = record(lambda: step(x))
    graph = memest.from_step(step, x, cleared=True)
    shapes: dict[str, Any] = {i.name: resolve(i.shape, dict(graph.examples)) for i in graph.inputs}
    difference = first_difference(memest.estimate(graph, input_shape=shapes, machine=cpu).events, measured)
    assert difference is None, f"\n{difference}"


@pytest.mark.parametrize("use", [*USES.values(), *PARTS.values()], ids=[*USES, *PARTS])
def test_a_step_is_that_of_torch(use: Use, cpu: Cpu) -> None:
    trains_as_torch(use, cpu)


class Weighted(nn.Module):
    """A linear layer whose outputs an array weighs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Any) -> Any:
        y = self.linear(x)
        return y * torch.from_numpy(y.detach().mean(0).numpy() + 1)


def test_a_file_remembers_what_an_array_lends() -> None:
    graph = memest.from_torch(Weighted(), (6, 4))
    assert "from_numpy" in [layer.op for layer in graph.layers]
    again = memest.loads(memest.dumps(graph))
    peaks = [memest.estimate(g, input_shape=(6, 4), mode="infer").peak_bytes for g in (graph, again)]
    assert peaks[0] == peaks[1]


@pytest.mark.parametrize("copy", [lambda a: np.unique(a > 0), lambda a: a[a > 0]])
def test_what_depends_on_an_arrays_numbers_is_refused(copy: Any) -> None:
    def step(x: Any) -> None:
        torch.from_numpy(copy(x.sum(1).numpy()).astype(np.float32)).requires_grad_().sum().backward()

    with pytest.raises(UnsupportedError, match=r"test_arrays.py:\d+\): no rule for what depends on a number read from a tensor"):
        memest.from_step(step, (8, 4))


def test_an_array_of_a_tensor_with_a_gradient_is_torchs_error() -> None:
    linear = nn.Linear(4, 4)

    def step(x: Any) -> None:
        linear(x).numpy()

    with pytest.raises(memest.MemestError, match="Can't call numpy"):
        memest.from_step(step, (8, 4))


def test_the_constructors_are_torchs_own_again() -> None:
    constructor = torch.FloatTensor
    memest.from_torch(nn.Linear(4, 4), (2, 4))
    assert torch.FloatTensor is constructor and "__new__" not in vars(torch.Tensor)
    assert torch.Tensor(2, 3).shape == (2, 3) and torch.from_numpy(np.ones(2)).dtype == torch.float64


def test_a_mask_that_a_step_makes_decides_nothing() -> None:
    """What is known of the numbers in a tensor is known in a step, too."""
    linear = nn.Linear(4, 4)

    def step(x: Any) -> None:
        y = linear(x)
        (y if torch.ones(2, 5).all() else y * 2).sum().backward()

    assert "mul" not in [layer.op for layer in memest.from_step(step, (2, 4)).layers]


class _Anchors(nn.Module):
    """Anchors made by NumPy in the first call, and kept for the next ones as a view (detectors do)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.anchors: dict[Any, Any] = {}

    def forward(self, x: Any) -> Any:
        y = self.conv(x)
        if y.shape[2:] not in self.anchors:
            self.anchors[y.shape[2:]] = torch.from_numpy(np.zeros((3, 4), np.float32)).to(x.device).unsqueeze(0)
        return y.mean((2, 3)) + self.anchors[y.shape[2:]].sum(1)


def test_a_view_of_an_arrays_memory_may_be_kept() -> None:
    m, x = _Anchors().eval(), torch.rand(2, 3, 6, 6)
    predicted = memest.estimate(
        memest.from_torch(m, x), input_shape=(2, 3, 6, 6), mode="infer", machine=Cpu.detect(), torch=torch.__version__
    )
    with torch.no_grad():
        m(x)
        measured, _ = record(lambda: m(x))
    assert first_difference(predicted.events, measured) is None
