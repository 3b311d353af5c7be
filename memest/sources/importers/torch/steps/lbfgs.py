"""``torch.optim.LBFGS.step(closure)``: torch's own code runs, call by call, and what it reads of values is answered as in the midst of a
search that goes on: no tolerance is met, so that it ends after ``max_iter`` iterations (or ``max_eval`` calls of the closure), and each
pair of vectors is taken into its history, which is full.

Source: torch/optim/lbfgs.py.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterable
from functools import cache
from itertools import count
from types import FrameType
from typing import Any

import torch
from torch.optim import lbfgs

from memest.sources.importers.torch.tensors.described import twin
from memest.sources.importers.torch.tensors.keeping import Kept

LINE_SEARCH = (
    "LBFGS with line_search_fn='strong_wolfe', whose search calls the closure as often as values say: ask for line_search_fn=None, or for"
    " a function that does what the closure does"
)
ASSUMED = (
    "assumed of LBFGS: its history is full, and no tolerance ends the search before max_iter and max_eval do ({} calls of the closure in"
    " a step)"
)
_HISTORY = ("old_dirs", "old_stps", "ro")


def calls_of(group: dict[str, Any]) -> int:
    """How often one step calls its closure."""
    return min(int(group["max_iter"]), int(group["max_eval"]))


def search(optimizer: torch.optim.Optimizer, closure: Callable[[], Any], home: torch.Tensor) -> Any:
    """``optimizer.step(closure)``, without torch's hooks around it. Its state stands under its first parameter: ``home``, or the twin in
    the place of that."""
    first = optimizer.param_groups[0]["params"][0]
    state = {key: list(value) if isinstance(value, list) else value for key, value in optimizer.state[home].items()}
    optimizer.state[home] = optimizer.state[first] = state
    try:
        with torch.no_grad():
            return inspect.unwrap(type(optimizer).step)(optimizer, closure)
    finally:
        if first is not home:
            del optimizer.state[first]


class Search:
    """What the LBFGS steps of one recording read of values."""

    def __init__(self, otherwise: Callable[[Any, Any, Any], Any]) -> None:
        """``otherwise`` is what numbers are that other code reads."""
        self._losses = count(1)
        self._otherwise = otherwise

    def goes_on(self) -> bool | None:
        """A decision of the search: what would end it is not so. None where other code decides."""
        frame = _asking()
        return None if frame is None else frame.f_lineno not in _ends()

    def number(self, func: Any, args: Any, kwargs: Any) -> float:
        """``float(loss)``: another one each time that the search asks."""
        return float(self._otherwise(func, args, kwargs)) if _asking() is None else float(next(self._losses))


def _asking() -> FrameType | None:
    """The frame of torch's LBFGS, where it is what asks a tensor for its value."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and (frame.f_globals.get("__name__") or "").startswith("memest."):
        frame = frame.f_back
    return frame if frame is not None and frame.f_code.co_filename == lbfgs.__file__ else None


@cache
def _ends() -> frozenset[int]:
    """The lines of ``if`` whose way ends the search, and those that pick the lesser of two numbers."""
    tree = ast.parse(inspect.getsource(lbfgs))
    tests = [n for n in ast.walk(tree) if isinstance(n, ast.If) and isinstance(n.body[-1], ast.Break | ast.Return)]
    picks = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "min"]
    return frozenset(n.test.lineno for n in tests) | frozenset(n.lineno for n in picks)


def begun(optimizers: Iterable[torch.optim.Optimizer]) -> list[Kept]:
    """What searches of before have left, which meta twins stand for from now on; their histories are full."""
    known: dict[int, Kept] = {}
    for optimizer in optimizers:
        for home, state in optimizer.state.items() if type(optimizer) is lbfgs.LBFGS else ():
            optimizer.state[home] = {key: _twins(value, known) for key, value in state.items()}
    kept = list(known.values())
    fill(optimizers, kept)
    return kept


def _twins(value: Any, known: dict[int, Kept]) -> Any:
    if isinstance(value, list):
        return [_twins(v, known) for v in value]
    return _like(value, known) if isinstance(value, torch.Tensor) else value


def fill(optimizers: Iterable[torch.optim.Optimizer], kept: list[Kept]) -> None:
    """The histories that a call has begun are full of the like; tensors made for that are ``kept``, too, in the order in which they stand
    there."""
    known = {id(k.tensor): k for k in kept}
    ordered: dict[int, Kept] = {}
    for optimizer in optimizers:
        if type(optimizer) is not lbfgs.LBFGS:
            continue
        most = optimizer.param_groups[0]["history_size"]
        for state in optimizer.state.values():
            histories = [state[name] for name in _HISTORY if state.get(name)]
            for history in histories:
                history += [_like(history[-1], known) for _ in range(most - len(history))]
            products = state.get("al", [])
            products[:] = [_like(state["ro"][-1], known) if p is None else p for p in products]
            ordered.update((id(t), known[id(t)]) for history in (*histories, products) for t in history if id(t) in known)
    kept[:] = [*(k for k in kept if id(k.tensor) not in ordered), *ordered.values()]


def _like(t: torch.Tensor, known: dict[int, Kept]) -> torch.Tensor:
    """Another tensor of the same sizes."""
    made = known[id(t)]._replace(tensor=twin(t)) if id(t) in known else Kept(twin(t), tuple(t.shape), False)
    known[id(made.tensor)] = made
    return made.tensor
