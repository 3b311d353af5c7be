"""Random steps over two networks whose own code puts contexts around its calls: two losses, two optimizers, modules that both share.

The second network is given what the first makes, or that without its history, or the input. Where modules are shared the first one's
optimizer has them. What torch refuses is skipped, what memest refuses is counted, as :mod:`validation.fuzz_contexts` does.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from memest.errors import MemestError
from memest.machines.cpu import Cpu
from validation import fuzz_contexts
from validation.fuzz_contexts import REFUSALS, Net, Trial, statements
from validation.profiling import settle
from validation.shrinking import Statement, fuzz_with
from validation.steps import Case, compare
from validation.streams import Difference

OPTIMIZERS: tuple[Callable[[Any], torch.optim.Optimizer], ...] = (
    lambda p: torch.optim.SGD(p, 0.01),
    lambda p: torch.optim.SGD(p, 0.01, momentum=0.9),
    lambda p: torch.optim.Adam(p),
    lambda p: torch.optim.AdamW(p, foreach=True),
)
GIVEN = ("made", "detached", "input")
EVERY = 4  # so many trials have one that is a whole step
WAYS = ("sum", "retained", "roots", "swapped", "averaged", "accumulated", "asked")


@dataclass(frozen=True)
class Steps:
    """Two forwards and how they are trained: ``optimizers`` by their numbers, what the second is ``given``, which ``way`` backward goes."""

    program: Statement
    other: Statement
    shape: tuple[int, ...]
    optimizers: tuple[int, int]
    given: str
    way: str
    shares: bool


def grow(rng: random.Random) -> Steps:
    """A random one."""
    return Steps(
        program=statements(rng, 2),
        other=statements(rng, 1),
        shape=(rng.choice((1, 2, 3)), 3, rng.randint(6, 13), rng.randint(6, 13)),
        optimizers=(rng.randrange(len(OPTIMIZERS)), rng.randrange(len(OPTIMIZERS))),
        given=rng.choice(GIVEN),
        way=rng.choice(WAYS),
        shares=rng.random() < 0.3,
    )


def case_of(steps: Steps) -> Case:
    """The step itself."""
    first, second = Net(steps.program), Net(steps.other)
    if steps.shares:
        second.stem = first.stem
        second.blocks.update({number: block for number, block in first.blocks.items() if number in second.blocks})
    own = {id(p) for p in first.parameters()}
    a, b = (OPTIMIZERS[n] for n in steps.optimizers)
    optimizers = a(first.parameters()), b([p for p in second.parameters() if id(p) not in own])
    average = copy.deepcopy(first) if steps.way == "averaged" else None

    def function(x: Any) -> None:
        for o in optimizers:
            o.zero_grad()
        made = first(x)
        given = x if steps.given == "input" else made[:, :3].detach() if steps.given == "detached" else made[:, :3]
        losses = [made.pow(2).mean(), F.l1_loss(second(given), made.detach())]
        if steps.way == "sum":
            (losses[0] + 0.5 * losses[1]).backward()
        elif steps.way == "roots":
            torch.autograd.backward(losses)
        elif steps.way == "accumulated":
            losses[0].backward(retain_graph=True)
            losses[1].backward()
            (second(x).square().mean() / 2).backward()
        elif steps.way == "asked":
            found = torch.autograd.grad(losses[0], [made], retain_graph=True)[0]
            (losses[1] + found.abs().mean() * losses[0]).backward()
        else:
            one, two = losses if steps.way == "retained" else losses[::-1]
            one.backward(retain_graph=True)
            if average is not None:
                with torch.no_grad():
                    for p, q in zip(average.parameters(), first.parameters(), strict=True):
                        p.lerp_(q, 0.1)
            two.backward()
        for o in optimizers:
            o.step()

    return Case(function, [torch.rand(steps.shape)], [first, second, *optimizers, *([] if average is None else [average])])


def run(steps: Steps, cpu: Cpu) -> Difference | str | None:
    """None where measured and predicted agree; "torch" or "memest" and why, where one of them refuses."""
    try:
        case = case_of(steps)
        case.function(*case.arguments)
        case.function(*case.arguments)
    except REFUSALS:
        return "torch"
    try:
        outcome = compare(case_of(steps), cpu, before=2)
    except MemestError as e:
        return f"memest: {e}"
    if outcome.difference is None and outcome.failed:
        raise AssertionError(f"the streams are equal, what stands is not: {outcome.predicted.standing_bytes}, {outcome.standing_bytes}")
    return outcome.difference


def drawn(seed: int) -> Trial | Steps:
    """What stands behind a seed."""
    rng = random.Random(seed)
    return grow(rng) if seed % EVERY == 0 else fuzz_contexts.grow(rng)


def fuzz(cases: int, seed: int = 0) -> int:
    """Run ``cases`` random forwards and steps on this processor; the number of differences."""
    settle()
    cpu = Cpu.detect().with_(threads=torch.get_num_threads())

    def either(trial: Trial | Steps) -> Difference | str | None:
        return run(trial, cpu) if isinstance(trial, Steps) else fuzz_contexts.run(trial, cpu)

    return fuzz_with(either, cases, seed, drawn)
