"""A whole training step of a user's: measured by torch's profiler, and predicted by ``memest.step``.

Measured is the call after others like it, with one more before it under the same profiler: it then tells of the releases of what that one
left, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from memest.estimate.estimate import Estimate
from memest.estimate.steps import step
from memest.machines.cpu import Cpu
from validation.profiling import Measured, record
from validation.streams import Difference, first_difference

MARK = 777_777  # bytes asked for between the two calls; no tensor of a case has so many


@dataclass(frozen=True)
class Case:
    """A step: the function, what it is called with, and whatever it works with besides (modules, optimizers, tensors in containers)."""

    function: Callable[..., Any]
    arguments: Sequence[Any]
    objects: Sequence[Any]


@dataclass(frozen=True)
class Outcome:
    """Prediction and measurement of one step. ``difference`` is None where the streams are equal."""

    predicted: Estimate
    standing_bytes: int
    peak_bytes: int
    difference: Difference | None

    @property
    def failed(self) -> bool:
        """Streams, peaks or what stands before the step differ."""
        return self.difference is not None or (self.predicted.standing_bytes, self.predicted.peak_bytes) != (
            self.standing_bytes,
            self.peak_bytes,
        )


def compare(case: Case, cpu: Cpu, *, before: int = 1) -> Outcome:
    """Both, the prediction first: it leaves everything as it was."""
    predicted = step(case.function, *case.arguments, machine=cpu, torch=torch.__version__)
    standing, peak, events = measure(case, before)
    return Outcome(predicted, standing, peak, first_difference(predicted.events, events))


def measure(case: Case, before: int = 1) -> tuple[int, int, list[Measured]]:
    """(bytes that stand, bytes at the peak, events) of the call after ``before`` + 1 others."""
    for _ in range(before):
        case.function(*case.arguments)
    standing: list[int] = []

    def calls() -> None:
        case.function(*case.arguments)
        standing.append(_bytes_of(_tensors([*case.objects, *case.arguments])))
        torch.empty(MARK, dtype=torch.uint8)
        case.function(*case.arguments)

    events, _ = record(calls)
    events = events[max(i for i, e in enumerate(events) if e.delta == -MARK) + 1 :]
    total = top = 0
    for e in events:
        total += e.delta
        top = max(top, total)
    return standing[0], standing[0] + top, events


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """All tensors of modules, optimizers and containers, with the gradients that stand."""
    if isinstance(value, torch.Tensor):
        yield value
        if value.is_leaf and value.grad is not None:
            yield value.grad
    elif isinstance(value, nn.Module):
        attributes = [t for m in value.modules() for t in vars(m).values() if isinstance(t, torch.Tensor)]
        for t in (*value.parameters(), *value.buffers(), *attributes):
            yield from _tensors(t)
    elif isinstance(value, torch.optim.Optimizer):
        yield from _tensors([list(state.values()) for state in value.state.values()])
    elif isinstance(value, torch.amp.GradScaler):
        yield from _tensors([value._scale, value._growth_tracker])
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple | deque):
        for item in value:
            yield from _tensors(item)


def _bytes_of(tensors: Iterator[torch.Tensor]) -> int:
    """Bytes of their storages, each once."""
    return sum({s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in tensors)}.values())
