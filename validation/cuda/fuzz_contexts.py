"""The random contexts of :mod:`validation.fuzz_contexts` on CUDA: streams and what is allocated must be equal."""

from __future__ import annotations

import random
from concurrent.futures import Executor
from functools import partial
from typing import Any

import torch

from memest.errors import UnsupportedError
from memest.estimate.estimate import estimate
from memest.machines.target import Target
from memest.memory.stream import Event
from validation.cuda.fuzz import asked_of, with_memest_beside
from validation.cuda.recording import clean
from validation.cuda.sure import expected
from validation.fuzz_contexts import Net, Trial, grow
from validation.shrinking import fuzz_with
from validation.streams import Difference, first_difference

DEVICE = "cuda"


def fuzz_here(cases: int, seed: int, card: str) -> int:
    """Run ``cases`` random forwards in this process, whose torch is built for CUDA; the number of differences."""
    with with_memest_beside(card) as (target, beside):
        return fuzz_with(partial(run, target=target, beside=beside), cases, seed, lambda n: grow(random.Random(n)))


def run(trial: Trial, target: Target, beside: Executor) -> Difference | str | None:
    """None where the streams are equal; "torch" or "memest" where one of them refuses. What trials that torch refuses leave behind, in
    circles of its own objects, may go while the next one runs: a difference counts when it is there twice."""
    found = _run(trial, target, beside)
    return _run(trial, target, beside) if isinstance(found, Difference) else found


def _run(trial: Trial, target: Target, beside: Executor) -> Difference | str | None:
    from validation.cuda.stepping import Work, third_step

    make = partial(Net, trial.program, DEVICE)
    work = Work(make=make, shape=trial.shape, mode=trial.mode, optimizer=trial.optimizer, loss="mse_loss", hold_output=trial.hold_output)
    clean()
    before = torch.cuda.memory_allocated()
    try:
        _, measured = third_step(work)
    except (RuntimeError, AttributeError, TypeError):  # torch refuses, or calls a hook with None
        return "torch"
    try:
        events, peak = beside.submit(predict, trial, target).result()
    except UnsupportedError as e:
        return f"memest: {e}"
    found = first_difference(events, measured.events)
    if found is None and peak != measured.peak - before:
        return Difference(0, 0, (f"peak {peak:,}",), (f"peak {measured.peak - before:,}",))
    return found


def predict(trial: Trial, target: Target) -> tuple[list[Event], int]:
    """memest's answer: the events expected, and the peak of what is allocated."""
    from memest.sources.importers.torch.network import from_torch

    training: dict[str, Any] = {"optimizer": trial.optimizer, "loss": "mse_loss", "hold_output": trial.hold_output}
    recipe = training if trial.mode == "train" else {}
    graph = from_torch(Net(trial.program, DEVICE), trial.shape)
    found = estimate(graph, input_shape=trial.shape, mode=trial.mode, **asked_of(target), **recipe)
    return expected(found.events), found.allocated.bytes or 0
