"""Optimizers of the user's own: a subclass of ``torch.optim.Optimizer`` whose ``step`` is code like the rest of the training step, played
call by call. What it keeps in ``state`` stands there from call to call, as any list of the user's does.

What such a step hands on to a class of torch (``super().step()``) is a step of that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer

from memest.runtimes.torch.optimizers import OPTIMIZERS


def is_own(kind: type[Optimizer]) -> bool:
    """Whether the step of optimizers of this class is no row: it is the user's, or a newer one of torch's."""
    return not kind.__module__.startswith("torch.optim") or kind.__name__.lower() not in {*OPTIMIZERS, "lbfgs"}


def torchs(kind: type[Optimizer]) -> type[Optimizer] | None:
    """The class of torch's that it is made from, where its step is a row."""
    return next((base for base in kind.__mro__[1:] if issubclass(base, Optimizer) and base is not Optimizer and not is_own(base)), None)


def code_of(kind: type[Optimizer]) -> Any:
    """Its ``step`` without the hooks that torch puts around it."""
    step: Any = kind.step
    return step.__wrapped__ if getattr(step, "hooked", False) else step


class Own:
    """Those among the ``optimizers`` of a step. Nobody has called them yet."""

    def __init__(self, optimizers: Mapping[str, Optimizer]) -> None:
        self._all = [o for o in optimizers.values() if is_own(type(o))]
        for optimizer in self._all:
            optimizer.state.clear()
        self._before = self._numbers()

    def __bool__(self) -> bool:
        return bool(self._all)

    def count(self) -> bool:
        """Whether numbers of theirs have changed, or come to their state: the next call may go by them."""
        states = [state for o in self._all for state in o.state.values() if isinstance(state, dict)]
        return any(map(_is_number, (v for state in states for v in state.values()))) or self._numbers() != self._before

    def _numbers(self) -> list[dict[str, Any]]:
        tables = [table for o in self._all for table in (vars(o), *o.param_groups)]
        return [{key: v for key, v in table.items() if _is_number(v) and key != "_opt_called"} for table in tables]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


@contextmanager
def with_twins(optimizers: Mapping[str, Optimizer], trained: Mapping[str, list[list[torch.Tensor]]]) -> Iterator[None]:
    """What they keep for each of the parameters ``trained`` is found under what stands in the place of that."""
    pairs = [
        (optimizer.state, home, now)
        for name, optimizer in optimizers.items()
        if is_own(type(optimizer))
        for group, homes in zip(optimizer.param_groups, trained[name], strict=True)
        for home, now in zip(homes, group["params"], strict=True)
    ]
    _move([(state, home, now) for state, home, now in pairs])
    try:
        yield
    finally:
        _move([(state, now, home) for state, home, now in pairs])


def _move(places: list[tuple[Any, torch.Tensor, torch.Tensor]]) -> None:
    for state, before, after in places:
        if before is not after and before in state:
            state[after] = state.pop(before)
