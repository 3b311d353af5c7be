"""What torch's Python functions hand on when a mode watches them, and what they hold.

``l1_loss`` does not hand on its weight. ``gaussian_nll_loss`` gives its own name for ``var`` to a copy, so that a ``var`` that nobody else
holds dies inside the function; who watches holds it until the function has returned.

Source: torch/nn/functional.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_FORGOTTEN: Mapping[Callable[..., Any], str] = {functional.l1_loss: "weight"}
_MOST_FRAMES = 8


def hides(func: FunctionType) -> bool:
    """Whether a function does not hand on, or not hold, what it is given."""
    return func in _FORGOTTEN or func is functional.gaussian_nll_loss


def with_forgotten(func: FunctionType, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The keywords of a call, with that which the function did not hand on, as its frame has it."""
    name, frame = _FORGOTTEN.get(func), sys._getframe(1)
    for _ in range(_MOST_FRAMES if name is not None else 0):
        if frame.f_code is func.__code__:
            value = frame.f_locals.get(str(name))
            return kwargs if value is None else {**kwargs, str(name): value}
        if frame.f_back is None:
            break
        frame = frame.f_back
    return kwargs


def dies_inside(func: FunctionType, args: tuple[Any, ...]) -> str | None:
    """The argument that nobody but the function holds, if it lets go of it before it returns."""
    if func is not functional.gaussian_nll_loss or len(args) < 3 or not isinstance(args[2], torch.Tensor):
        return None
    return "var" if sys.getrefcount(args[2]) <= _holders_of_a_temporary() else None


@cache
def _holders_of_a_temporary() -> int:
    """How many references there are to such an argument while the call is watched."""
    counted: list[int] = []

    class Counting(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is functional.gaussian_nll_loss:
                counted.append(sys.getrefcount(args[2]))
                return args[0]
            return func(*args, **(kwargs or {}))

    with torch._C.DisableTorchFunction():
        one = torch.empty(1, device="meta")
    with Counting():
        functional.gaussian_nll_loss(one, one, torch.empty(1, device="meta"))
    return counted[0]
