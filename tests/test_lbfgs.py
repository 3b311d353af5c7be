"""torch.optim.LBFGS in a step: its search as torch's own code runs it, equal to torch's allocator event by event."""

from __future__ import annotations

from typing import Any

import pytest

import memest
from memest.errors import UsageError
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from memest.sources.importers.torch.steps.lbfgs import calls_of  # noqa: E402
from validation.steps import Case, compare, measure  # noqa: E402
from validation.streams import first_difference  # noqa: E402


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
def test_the_search_equals_torchs(most: int, history: int, cpu: Cpu) -> None:
    outcome = compare(searched(max_iter=most, history_size=history), cpu)
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


def line_searched(most: int, lr: float, steepness: float) -> Case:
    """A search whose every line search calls the closure as often as the length ``lr`` of its first step, or of a bowl of that
    ``steepness``, makes it."""
    torch.manual_seed(0)
    w = nn.Parameter(torch.randn(1000, dtype=torch.float64))
    scale = torch.linspace(1, steepness, 1000, dtype=torch.float64) * 1e6
    options = {"tolerance_grad": -1, "tolerance_change": -1, "max_iter": most, "history_size": 2}
    o = torch.optim.LBFGS([w], lr=lr, line_search_fn="strong_wolfe", **options)

    def step(x: Any) -> None:
        def closure() -> Any:
            o.zero_grad()
            loss = ((w - x).pow(2) * scale).sum()
            loss.backward()
            return loss

        o.step(closure)

    return Case(step, [torch.rand(1000, dtype=torch.float64)], [w, scale, o])


@pytest.mark.parametrize(("stated", "lr", "steepness"), [(None, 0.3, 1.5), (2, 8.0, 5)])
def test_a_line_search_equals_torchs_where_it_evaluates_as_often_as_stated(
    stated: int | None, lr: float, steepness: float, cpu: Cpu
) -> None:
    case = line_searched(5, lr, steepness)
    predicted = memest.step(case.function, *case.arguments, assume=stated and {"evaluations": stated}, machine=cpu)
    standing, peak, events = measure(case, before=2)
    assert first_difference(predicted.events, events) is None
    assert (predicted.standing_bytes, predicted.peak_bytes) == (standing, peak)
    said = "assumed as stated: evaluations=2" if stated else "assumed, as nothing is stated: evaluations=1"
    assert any(said in note for note in predicted.notes)


def test_evaluations_are_a_whole_number() -> None:
    case = line_searched(2, 1.0, 2)
    with pytest.raises(UsageError, match="'evaluations' is no whole number from 1 on"):
        memest.step(case.function, *case.arguments, assume={"evaluations": 0})


def test_how_often_a_line_search_calls_the_closure() -> None:
    group = {"max_eval": 7, "max_iter": 5, "line_search_fn": "strong_wolfe"}
    assert [calls_of(group, n) for n in (1, 2, 3)] == [6, 7, 7]
