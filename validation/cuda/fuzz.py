"""The random networks of :mod:`validation.fuzz` on CUDA, in four precisions and layouts: streams and what is allocated must be equal.

They are measured in a process whose torch is built for CUDA, and predicted in one beside it, without the stand-in: beside its driver, cuDNN
told a device's properties also makes plans that it compiles as it runs, which are neither in torch's own list there nor, without a driver,
in any.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import Any

from memest.errors import MemestError
from memest.estimate.estimate import estimate
from memest.machines.target import Target
from memest.machines.versions import text_of
from memest.memory.stream import Event
from validation.cuda.measure import card_named
from validation.cuda.networks import PRECISIONS
from validation.cuda.run import ROOT, environment
from validation.cuda.sure import expected
from validation.fuzz import Outcome, Trial, fuzz_with, refused
from validation.streams import Difference, first_difference

NO_ENGINE = "unable to find an engine"
"""What torch says where cuDNN has no plan: of bfloat16 convolutions, say, before Ampere."""


def fuzz(cases: int, seed: int, card: str, python: str, *, on_card: bool = False, of: str = "") -> int:
    """Run ``cases`` random networks (``of`` "contexts" or "steps": those) in a process of ``python``; its exit code."""
    command = [python, "-m", "validation", "fuzz-cuda-here", card_named(card), "--cases", str(cases), "--seed", str(seed)]
    command += [f"--{of}"] * bool(of)
    return subprocess.run(command, env=None if on_card else environment(python, card_named(card)), cwd=ROOT, check=False).returncode


def fuzz_here(cases: int, seed: int, card: str) -> int:
    """The same in this process; the number of failures."""
    with with_memest_beside(card) as (target, beside):
        return fuzz_with(partial(run, target=target, beside=beside), cases, seed, in_some_precision)


@contextmanager
def with_memest_beside(card: str) -> Iterator[tuple[Target, Executor]]:
    """The card as a target, and a process for memest, without the stand-in."""
    from validation.cuda.labels import labels
    from validation.cuda.recording import start
    from validation.cuda.targets import target_of

    start()
    for name in ("LD_PRELOAD", "LD_LIBRARY_PATH"):  # the stand-in, with a driver's library, is in this process and not in the one beside it
        os.environ.pop(name, None)
    with ProcessPoolExecutor(1, get_context("spawn")) as beside:
        yield target_of(labels(card)), beside


def asked_of(target: Target) -> dict[str, Any]:
    """What names the target in a question."""
    return {
        "runtime": target.runtime,
        "machine": target.machine,
        "torch": text_of(target.version),
        "cudnn": None if target.settings.cudnn is None else text_of(target.settings.cudnn),
    }


def in_some_precision(trial: Trial, rng: random.Random) -> Trial:
    """The trial under one of the levers that networks are measured with; channels_last only where there are images or volumes."""
    levers = rng.choice(PRECISIONS)
    return replace(trial, levers=levers if len(trial.shape) > 3 or "channels_last" not in levers else ())


def run(trial: Trial, target: Target, beside: Executor) -> Outcome | None:
    """Measure, and predict ``beside``; None when torch itself, or memest by name, refuses the network."""
    from validation.cuda.stepping import Work, third_step
    from validation.execute import GraphModule

    work = Work(
        make=partial(GraphModule, trial.graph), shape=trial.shape, mode=trial.mode, optimizer=trial.optimizer, loss=trial.loss,
        levers=trial.levers, hold_output=trial.hold_output,
    )  # fmt: skip
    try:
        _, measured = third_step(work)
    except RuntimeError as error:
        if refused(trial) or NO_ENGINE in str(error):
            return None
        raise
    try:
        events, peak = beside.submit(predict, trial, target).result()
    except MemestError as error:
        return Outcome(Difference(0, 0, (f"refused: {error}",), ()), 0, measured.peak)
    return Outcome(first_difference(events, measured.events), peak, measured.peak)


def predict(trial: Trial, target: Target) -> tuple[list[Event], int]:
    """memest's answer: the events expected, and the peak of what is allocated."""
    training: dict[str, Any] = {"optimizer": trial.optimizer, "loss": trial.loss, "hold_output": trial.hold_output}
    found = estimate(
        trial.graph,
        input_shape=trial.shape,
        mode=trial.mode,
        levers=trial.levers,
        **asked_of(target),
        **(training if trial.mode == "train" else {}),
    )
    allocated = found.allocated
    return expected(found.events), 0 if allocated is None or allocated.bytes is None else allocated.bytes
