"""The random training steps of :mod:`validation.fuzz_steps` on CUDA: streams, what stands and the peak of what is allocated are equal."""

from __future__ import annotations

from concurrent.futures import Executor
from functools import partial

import torch

from memest.errors import MemestError
from memest.estimate.estimate import Estimate
from memest.estimate.steps import step
from memest.machines.target import Target
from validation.cuda.fuzz import asked_of, with_memest_beside
from validation.cuda.recording import Recorded, clean, record_cuda
from validation.cuda.sure import expected
from validation.fuzz_steps import BEFORE, case_of, fuzz_with, plain
from validation.steps import Outcome
from validation.streams import first_difference

NODES = 20_000


def fuzz_here(cases: int, seed: int, card: str) -> int:
    """Run ``cases`` random steps in this process, whose torch is built for CUDA; the number of failures."""
    with with_memest_beside(card) as (target, beside):
        return fuzz_with(partial(run, target=target, beside=beside), cases, seed, plain)


def run(text: str, target: Target, beside: Executor) -> Outcome | None:
    """Measure, and predict ``beside``; None when torch refuses the step, and memest does, too."""
    asked = beside.submit(predict, text, target)
    try:
        measured = measure(text)
    except RuntimeError as e:
        try:
            asked.result()
        except MemestError:
            return None
        raise AssertionError(f"torch refuses what memest answers: {e}") from None
    predicted = asked.result()
    peak = max(p for p in (predicted.allocated.bytes, 0) if p is not None)
    found = first_difference(expected(predicted.events), measured.events)
    assert peak == measured.peak or found, f"allocated at most: predicted {peak:,}, measured {measured.peak:,}"
    return Outcome(predicted, predicted.standing_bytes, predicted.peak_bytes, found)


def measure(text: str) -> Recorded:
    """The call after :data:`~validation.fuzz_steps.BEFORE` others and one more."""
    clean()
    case = case_of(text, "cuda")
    _train_on()
    for _ in range(BEFORE + 1):
        case.function(*case.arguments)
    return record_cuda(lambda: case.function(*case.arguments))


def _train_on() -> None:
    """As many nodes are made in this thread as in many steps: its numbers get ahead of those of the card's
    (:mod:`memest.runtimes.torch.autograd.numbering`)."""
    one = torch.ones((), requires_grad=True)
    for _ in range(NODES):
        one * 2


def predict(text: str, target: Target) -> Estimate:
    """memest's answer."""
    case = case_of(text)
    return step(case.function, *case.arguments, **asked_of(target))
