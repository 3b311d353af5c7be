"""Loops over a size are recorded as they ran: at another size the network is another one, which is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import memest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402

SHAPE, OTHER = (2, 3, 8, 12), (4, 3, 8, 20)


class Net(nn.Module):
    def __init__(self, use: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.conv, self.use = nn.Conv2d(3, 4, 3), use

    def forward(self, x: Any) -> Any:
        return self.use(self.conv, x)


LOOPS = {
    "iteration": lambda conv, x: torch.stack([conv(row[None]) for row in x]),
    "unbind": lambda conv, x: torch.stack([conv(row[None]) for row in x.unbind(0)]),
    "split": lambda conv, x: torch.cat([conv(part) for part in x.split(1)]),
    "columns": lambda conv, x: torch.stack([conv(x).mean(), *(part.mean() for part in x.split(5, -1))]),
    "index": lambda conv, x: torch.stack([conv(x[i][None]) for i in range(x.shape[0])]),
    "slice": lambda conv, x: torch.cat([conv(x[i : i + 1]) for i in range(len(x))]),
    "select": lambda conv, x: torch.stack([conv(x.select(0, i)[None]) for i in range(x.size(0))]),
    "narrow": lambda conv, x: torch.cat([conv(x.narrow(0, i, 1)) for i in range(x.shape[0])]),
    "tiles": lambda conv, x: torch.cat([conv(x[..., i : i + 6]) for i in range(0, x.shape[-1], 6)], -1),
}
PLAIN = {
    "first": lambda conv, x: conv(x[0][None]),
    "shift": lambda conv, x: conv(x)[..., 1:] - conv(x)[..., :-1],
    "halves": lambda conv, x: torch.cat([conv(part) for part in x.chunk(2)]),
    "channels": lambda conv, x: torch.stack([conv(x)[:, i] for i in range(4)]),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_over_a_size_is_described_at_that_size(name: str) -> None:
    graph = from_torch(Net(LOOPS[name]), SHAPE, mode="infer")
    assert memest.estimate(graph, input_shape=SHAPE, mode="infer").peak_bytes > 0
    with pytest.raises(memest.UsageError, match=r"described for sizes where .* import it again at this input shape"):
        memest.estimate(graph, input_shape=OTHER, mode="infer")


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_no_loop_over_a_size_stays_symbolic(name: str) -> None:
    graph = from_torch(Net(PLAIN[name]), SHAPE, mode="infer")
    again = from_torch(Net(PLAIN[name]), OTHER, mode="infer")
    found, wanted = (memest.estimate(g, input_shape=OTHER, mode="infer") for g in (graph, again))
    assert [e.delta for e in found.events] == [e.delta for e in wanted.events]
