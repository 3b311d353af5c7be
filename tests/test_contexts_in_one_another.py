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
from validation.fuzz_contexts import Net, Trial, compared, run  # noqa: E402
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
IN_BACKWARD = [("by_hand", how, ("checkpoint", kind, True, kind, ("block", 1))) for how, kind in ((True, True), (False, False))]
"""What a custom function's backward runs may be checkpointed itself."""
AROUND_THE_ENGINE = [
    ("checkpoint", False, True, False, ("seq", ("block", 1), ("slope", ("block", 3)), ("block", 4))),
    ("checkpoint", True, True, False, ("seq", ("block", 1), ("slope", ("checkpoint", False, True, False, ("block", 3))))),
    ("no_grad", ("checkpoint", False, True, False, ("slope", ("block", 3)))),
]
"""A gradient that is taken in a checkpoint runs what came before it again, which nobody wants then; a reentrant one turns gradients off,
and what is in it may turn them on."""
UNDER_HOOKS = [
    ("selective", 0, True, ("packed", 0, ("checkpoint", False, False, True, ("block", 1)))),
    *(("packed", how, ("checkpoint", how == 2, True, True, ("block", 1))) for how in (2, 3)),
]
"""A checkpoint's arguments are saved as a call's tensors are: by the hooks that are nearest."""
GIVEN_TWICE = [("function", 9), ("checkpoint", True, True, True, ("block", 13))]
"""A custom function may keep one tensor twice; what a reentrant checkpoint's function writes into (a buffer) it does not return."""
NOT_REACHED = [
    *(("seq", ("by_hand", how, ("frozen", ("block", 3))), ("frozen", ("block", 0))) for how in (True, False)),
    ("seq", ("by_hand", True, ("by_hand", False, ("frozen", ("block", 3)))), ("frozen", ("block", 0))),
]
"""A custom function whose backward would raise, and the engine never comes to it."""
RETURNED = [
    ("packed", 0, ("several", True, ("function", 0))),
    ("by_hand", True, ("packed", 2, ("several", True, ("block", 3)))),
]
"""All that a reentrant checkpoint returns requires a gradient where one of its arguments does, and is saved by what reads it."""
ENDS_AMID = [
    ("checkpoint", False, True, False, ("slope", ("by_hand", True, ("function", 9)))),
    ("checkpoint", False, True, False, ("checkpoint", True, True, False, ("slope", ("block", 1)))),
]
"""What runs again may end amid a gradient that is taken in it: all that came so far goes, and what a reentrant checkpoint there keeps."""
NO_MORE_LATE = [
    ("late", ("checkpoint", True, False, False, ("selective", 3, False, ("block", 4)))),
    ("late", ("by_hand", True, ("checkpoint", False, False, False, ("block", 4)))),
    ("late", ("by_hand", True, ("late", ("checkpoint", False, False, False, ("block", 4))))),
]
"""A checkpoint that is called in backward stops early, whatever was said around what runs there."""
IN_FORCE = [("packed", 4, ("no_grad", ("checkpoint", kind, True, False, ("slope", ("block", 1))))) for kind in (True, False)]
"""A checkpoint that keeps nothing leaves hooks in force for a gradient that is taken in it."""
AS_IT_WAS = [("checkpoint", True, False, False, ("switched", True, ("block", 1)))]
"""Code that asks whether gradients are on and says so again turns nothing on."""
YOUNGER_CASTS = [
    ("autocast", True, ("seq", ("by_hand", True, ("block", 1)), ("block", 1))),
    ("autocast", True, ("seq", ("checkpoint", True, True, False, ("block", 1)), ("block", 1))),
]
"""A function's node is there before its forward, whose casts of weights autocast keeps, with nodes of their own."""
ALL = (
    *BY_HAND_WATCHED, *PACKED, *SELECTIVE, *PACKED_AND_SELECTED, *AMID_AUTOCAST, *EXPANDED, *IN_BACKWARD, *AROUND_THE_ENGINE, *UNDER_HOOKS,
    *GIVEN_TWICE,
    *ENDS_AMID,
    *NOT_REACHED,
    *RETURNED,
    *YOUNGER_CASTS,
    *AS_IT_WAS,
    *IN_FORCE,
    *NO_MORE_LATE,
)  # fmt: skip


@pytest.mark.parametrize("statement", ALL, ids=str)
@pytest.mark.parametrize("mode", ["train", pytest.param("infer", marks=pytest.mark.slow)])
def test_equals_measured(cpu: Cpu, statement: Statement, mode: str) -> None:
    trial = Trial(program=("seq", statement), shape=(1, 3, 9, 7), mode=mode, optimizer="sgd", hold_output=False)
    assert run(trial, cpu) is None


def test_engine_under_hooks_through_one_that_runs_again(cpu: Cpu) -> None:
    statement = ("packed", 3, ("slope", ("by_hand", False, ("block", 0))))
    found = run(Trial(program=("seq", statement), shape=(1, 3, 9, 7), mode="train", optimizer="sgd", hold_output=False), cpu)
    assert isinstance(found, str) and "end the hooks before" in found


def test_engine_inside_a_reentrant_checkpoint_under_hooks(cpu: Cpu) -> None:
    """They are in force the first time, and no more in backward."""
    program = ("packed", 4, ("checkpoint", True, True, False, ("slope", ("block", 1))))
    found = run(Trial(program=("seq", program), shape=(1, 3, 9, 7), mode="train", optimizer="sgd", hold_output=False), cpu)
    assert isinstance(found, str) and "a gradient taken in a reentrant checkpoint (Net.checkpoint) under saved_tensors_hooks" in found


def test_stopping_early_is_switched_around_a_reentrant_checkpoint_with_gradients_in_its_forward(cpu: Cpu) -> None:
    program = ("late", ("checkpoint", True, False, False, ("slope", ("checkpoint", False, False, False, ("block", 4)))))
    found = run(Trial(program=("seq", program), shape=(1, 3, 9, 7), mode="train", optimizer="sgd", hold_output=False), cpu)
    assert isinstance(found, str) and "turned on in a reentrant one, under set_checkpoint_early_stop" in found


def test_engine_inside_a_selective_checkpoint(cpu: Cpu) -> None:
    trial = Trial(
        program=("selective", 4, True, ("slope", ("block", 1))), shape=(1, 3, 9, 7), mode="train", optimizer="sgd", hold_output=False
    )
    found = run(trial, cpu)
    assert isinstance(found, str) and "has what it kept only once" in found


def test_a_gradient_that_fills_those_of_parameters_by_the_way(cpu: Cpu) -> None:
    """In a step, whose own code may read them or let them go."""
    program, other = ("seq", ("slope", ("by_hand", True, ("block", 1)))), ("seq", ("block", 0))
    found = run_steps(Steps(program, other, (1, 3, 9, 7), (0, 1), given="input", way="sum", shares=False), cpu)
    assert isinstance(found, str) and "whose own backward runs another into parameters" in found


def test_taking_a_gradient_through_a_reentrant_checkpoint_is_refused_as_torch_refuses_it(cpu: Cpu) -> None:
    net, shape = Net(("slope", ("checkpoint", True, False, False, ("block", 3)))), (1, 3, 9, 7)
    with pytest.raises(memest.MemestError, match=r"torch refuses torch.autograd.grad through a reentrant checkpoint \(Net.checkpoint\)"):
        memest.estimate(memest.from_torch(net, shape), input_shape=shape, loss="mse_loss", machine=cpu)


@pytest.mark.parametrize("statement", [("checkpoint", kind, True, False, ("seq", ("block", 1), ("block", 2))) for kind in (True, False)])
def test_a_graph_that_is_kept_goes_through_a_checkpoint_twice(cpu: Cpu, statement: Statement) -> None:
    steps = Steps(
        program=("seq", statement),
        other=("seq", ("block", 0)),
        shape=(1, 3, 9, 7),
        optimizers=(0, 1),
        given="made",
        way="retained",
        shares=False,
    )
    assert run_steps(steps, cpu) is None


def test_stopping_early_is_switched_inside_a_step(cpu: Cpu) -> None:
    """Backward may run inside of that or not."""
    program = ("late", ("by_hand", True, ("checkpoint", False, False, False, ("block", 4))))
    found = run_steps(Steps(("seq", program), ("seq", ("block", 0)), (1, 3, 9, 7), (0, 1), given="input", way="sum", shares=False), cpu)
    assert isinstance(found, str) and "set_checkpoint_early_stop inside a step" in found


def test_a_function_that_deletes_what_it_kept_in_a_checkpoint_that_runs_twice(cpu: Cpu) -> None:
    """Each time its function is applied anew, and deletes that of then."""
    program = ("checkpoint", True, True, False, ("reversible", 2))
    steps = Steps(program, ("block", 0), (1, 3, 9, 7), (0, 1), given="made", way="retained", shares=False)
    assert run_steps(steps, cpu) is None


def test_a_function_whose_backward_raises_is_refused_where_the_engine_comes_to_it(cpu: Cpu) -> None:
    graph = memest.from_torch(Net(("by_hand", True, ("frozen", ("block", 3)))), (1, 3, 9, 7))
    for given in (graph, memest.loads(memest.dumps(graph))):
        with pytest.raises(memest.MemestError, match="the custom function ByHand raises an error: RuntimeError: element 0 of tensors does"):
            memest.estimate(given, input_shape=(1, 3, 9, 7), loss="mse_loss", machine=cpu)


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
