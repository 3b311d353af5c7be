"""Contexts in one another, as random programs found them (``validation.fuzz_contexts``), held against measured torch."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("validation.fuzz_contexts")

import memest  # noqa: E402
from memest import Cpu  # noqa: E402
from validation.fuzz_context_steps import Steps  # noqa: E402
from validation.fuzz_context_steps import run as run_steps  # noqa: E402
from validation.fuzz_contexts import Trial, compared, run  # noqa: E402
from validation.profiling import record  # noqa: E402
from validation.protocol import Measurement  # noqa: E402
from validation.shrinking import Statement  # noqa: E402

BY_HAND_WATCHED = [("by_hand", how, ("watched", number)) for how in (True, False) for number in (20, 21, 22)]
"""A module's own backward hooks in what a custom function's backward runs again: what they keep until they are done is kept there, too."""
PACKED = [("packed", 2, ("reversible", 1)), ("packed", 3, ("by_hand", True, ("block", 0)))]
"""Hooks of saved tensors are no more in force when a custom function's backward runs."""
SELECTIVE = [("checkpoint", True, True, True, ("selective", 0, False, ("block", 0))), ("no_grad", ("selective", 1, False, ("block", 1)))]
"""Without gradients torch enters no context of a selective checkpoint: not in the forward of a reentrant one around it."""
PACKED_AND_SELECTED = [
    ("selective", 0, True, ("seq", ("packed", 3, ("block", 2)), ("block", 6))),
    ("selective", 3, False, ("seq", ("function", 4), ("packed", 2, ("block", 7)), ("packed", 0, ("block", 5)))),
]
"""Hooks get what a kept call saves when it is taken, too; what they do amid a call is nothing that the policy was asked of the call."""
AMID_AUTOCAST = [("autocast", True, ("slope", ("checkpoint", False, False, False, ("watched", 0))))]
"""What runs again while a context of autocast is in force finds what that has cached."""
EXPANDED = [("autocast", False, ("slope", ("block", 10))), ("slope", ("block", 10))]
"""oneDNN's gelu takes bfloat16 as it takes float32: a gradient that does not lie dense is copied."""


@pytest.mark.parametrize("statement", [*BY_HAND_WATCHED, *PACKED, *SELECTIVE, *PACKED_AND_SELECTED, *AMID_AUTOCAST, *EXPANDED], ids=str)
@pytest.mark.parametrize("mode", ["train", pytest.param("infer", marks=pytest.mark.slow)])
def test_equals_measured(cpu: Cpu, statement: Statement, mode: str) -> None:
    trial = Trial(program=("seq", statement), shape=(1, 3, 9, 7), mode=mode, optimizer="sgd", hold_output=False)
    assert run(trial, cpu) is None


def test_engine_under_hooks_through_one_that_runs_again(cpu: Cpu) -> None:
    statement = ("packed", 3, ("slope", ("by_hand", False, ("block", 0))))
    found = run(Trial(program=("seq", statement), shape=(1, 3, 9, 7), mode="train", optimizer="sgd", hold_output=False), cpu)
    assert isinstance(found, str) and "end the hooks before" in found


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoint_in_what_runs_in_backward_is_refused(cpu: Cpu, reentrant: bool) -> None:
    statement = ("by_hand", True, ("checkpoint", reentrant, True, False, ("function", 0)))
    found = run(Trial(program=("seq", statement), shape=(1, 3, 9, 7), mode="train", optimizer="sgd", hold_output=False), cpu)
    assert isinstance(found, str) and "in what runs in backward" in found


def test_gelu_backward_of_a_turned_gradient(cpu: Cpu) -> None:
    def step(x: Any) -> None:
        x = x.detach().requires_grad_()
        y = torch.nn.functional.gelu(x)
        torch.autograd.grad(y, x, torch.ones(6, 5, 4, 3).permute(3, 2, 1, 0))

    _holds(step, cpu, torch.rand(3, 4, 5, 6))


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_backward_inside_autocast_through_a_checkpoint(cpu: Cpu, reentrant: bool) -> None:
    first, second = torch.nn.Conv2d(3, 8, 3), torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3))

    def step(x: Any) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = torch.utils.checkpoint.checkpoint(second, first(x), use_reentrant=reentrant)
            y.float().mean().backward()
        first.zero_grad()
        second.zero_grad()

    _holds(step, cpu, torch.rand(2, 3, 9, 9))


def test_a_step_through_functions_in_what_runs_again(cpu: Cpu) -> None:
    statement = ("seq", ("by_hand", True, ("seq", ("function", 1), ("watched", 18))), ("by_hand", False, ("function", 0)))
    steps = Steps(statement, ("function", 0), (1, 3, 7, 9), (0, 2), "input", "retained", False)
    assert run_steps(steps, cpu) is None


def test_one_tensor_given_twice_is_one_input(cpu: Cpu) -> None:
    conv = torch.nn.Conv2d(3, 4, 3)

    def step(batch: Any) -> None:
        loss = (conv(batch["first"]) * conv(batch["second"])).mean()
        loss.backward()
        conv.zero_grad()

    x = torch.rand(2, 3, 9, 9)
    once = _holds(step, cpu, {"first": x, "second": x})
    twice = _holds(step, cpu, {"first": x, "second": x.clone()})
    assert sum(s.nbytes for s in twice.timeline.residents) == sum(s.nbytes for s in once.timeline.residents) + x.nbytes


def _holds(step: Any, cpu: Cpu, *examples: Any) -> Any:
    """What is predicted of the step, which must be what its second run does."""
    predicted = memest.step(step, *examples, machine=cpu)
    step(*examples)
    events, _ = record(lambda: step(*examples))
    assert compared(predicted, Measurement(0, events)) is None
    return predicted
