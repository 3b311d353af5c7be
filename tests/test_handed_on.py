"""What torch's Python functions do not hand on to who watches them, and what they let go of themselves."""

from __future__ import annotations

from typing import Any

import pytest

from memest.errors import UnsupportedError
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

from test_contexts import SHAPE, Net, infers_as_torch, trains_as_torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402


def weighted(self: Any, x: Any) -> Any:
    y = self.first(x)
    return self.head(y) + F.l1_loss(torch.tanh(y), torch.exp(y), weight=torch.sigmoid(y))


def named(self: Any, x: Any) -> Any:
    y = self.first(x)
    var = F.softplus(y)
    return F.gaussian_nll_loss(torch.tanh(y), y * 1.5, var) + self.head(y)


def without_a_name(self: Any, x: Any) -> Any:
    y = self.first(x)
    return F.gaussian_nll_loss(torch.tanh(y), y * 1.5, F.softplus(y)) + self.head(y)


@pytest.mark.parametrize("forward", [weighted, named], ids=lambda f: f.__name__)
def test_what_is_not_handed_on_is_found(forward: Any, cpu: Cpu) -> None:
    trains_as_torch(forward, cpu)
    infers_as_torch(forward, cpu)


def test_what_dies_inside_of_a_function_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"test_handed_on.py:\d+\).*gaussian_nll_loss of a var that has no name.*var = … before"):
        from_torch(Net(without_a_name), SHAPE)
