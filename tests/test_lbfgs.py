"""torch.optim.LBFGS in a step: its search as torch's own code runs it, equal to torch's allocator event by event."""

from __future__ import annotations

from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from memest.sources.importers.torch.steps.lbfgs import calls_of  # noqa: E402
from validation.steps import Case, compare  # noqa: E402


def searched(**options: Any) -> Case:
    """A search that no tolerance ends; its pairs of vectors are always taken, as the loss is convex."""
    m = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    o = torch.optim.LBFGS(m.parameters(), lr=1e-3, tolerance_grad=-1, tolerance_change=-1, **options)

    def step(x: Any, y: Any) -> Any:
        def closure() -> Any:
            o.zero_grad()
            loss = F.mse_loss(m(x), y)
            loss.backward()
            return loss

        return o.step(closure)

    return Case(step, [torch.rand(2, 3, 8, 8), torch.rand(2, 144)], [m, o])


@pytest.mark.parametrize("most, history", [(3, 2), (2, 1), (1, 1)])
def test_the_search_equals_torchs(most: int, history: int) -> None:
    outcome = compare(searched(max_iter=most, history_size=history), Cpu.detect())
    assert not outcome.failed, str(outcome.difference)
    assert any("its history is full" in note for note in outcome.predicted.notes)


def test_a_history_stands_in_full_from_the_first() -> None:
    case = searched(max_iter=1, history_size=8)
    before = memest.step(case.function, *case.arguments)
    for _ in range(3):
        case.function(*case.arguments)
    (state,) = case.objects[1].state.values()
    assert memest.step(case.function, *case.arguments).standing_bytes == before.standing_bytes
    assert len(state["old_dirs"]) == 2 and not state["old_dirs"][0].is_meta
    parameters = sum(p.numel() for p in case.objects[0].parameters())
    assert before.standing_bytes > 2 * 8 * 4 * parameters


def test_how_often_the_closure_is_called() -> None:
    case = searched(max_iter=4)
    calls = 0

    def counted(*_: Any) -> None:
        nonlocal calls
        calls += 1

    case.objects[0].register_forward_hook(counted)
    case.function(*case.arguments)
    assert calls == calls_of(case.objects[1].param_groups[0]) == 4


def test_a_line_search_is_refused() -> None:
    case = searched(line_search_fn="strong_wolfe")
    with pytest.raises(UnsupportedError, match="line_search_fn='strong_wolfe', whose search calls the closure as often as values say"):
        memest.step(case.function, *case.arguments)
