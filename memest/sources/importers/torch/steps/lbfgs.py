"""``torch.optim.LBFGS.step(closure)``: torch's own code runs, call by call, and what it reads of values is answered as in the midst of a
search that goes on (``line_search``): it ends after ``max_iter`` iterations (or ``max_eval`` calls of the closure), and each pair of
vectors is taken into its history, which is full.

Source: torch/optim/lbfgs.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import lbfgs

from memest.sources.importers.torch.tensors.described import twin
from memest.sources.importers.torch.tensors.keeping import Kept

ASSUMED = "assumed of LBFGS: {}no tolerance ends the search before max_iter and max_eval do ({} calls of the closure in a step)"
FULL = "its history is full, and "
FRESH = "its first gradient sums up to more than 1 (of its absolute values), and "
_HISTORY = ("old_dirs", "old_stps", "ro")


def calls_of(group: dict[str, Any], evaluations: int = 1) -> int:
    """How often one step calls its closure; ``evaluations`` are those of each line search."""
    most, iterations = int(group["max_eval"]), int(group["max_iter"])
    if group["line_search_fn"] is None:
        return min(iterations, most)
    calls = 1
    for _ in range(iterations):
        calls += min(evaluations, 1 + max(most - calls, 0))
        if calls >= most:
            break
    return calls


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
