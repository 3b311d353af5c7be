"""What the steps of ``torch.optim.LBFGS`` read of values, answered as in the midst of a search that goes on: no tolerance is met.

A line search (``strong_wolfe``) calls the closure as often as somebody states, 1 where nobody does: its first step meets Wolfe's
conditions. Where more calls are stated the first overshoots, and each one after it lies inside of the bracket that the first made; the last
meets the conditions.

Source: torch/optim/lbfgs.py, whose decisions are found by what they ask.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable
from functools import cache
from types import FrameType
from typing import Any

from torch.optim import lbfgs

OVERSHOOTS = "f_new > f + c1 * t * gtd or "
"""How the questions begin that the last call of the closure answers with no, and all before it with yes."""
ALWAYS = {"d2_square >= 0": True, "x1 <= x2": True, "abs(gtd_new) <= -c2 * gtd": True}
"""Of the line search: a cubic has a minimum there, the bracket is in order, and what does not overshoot meets the conditions."""


class Search:
    """What the LBFGS steps of one recording read."""

    def __init__(self, otherwise: Callable[[Any, Any, Any], Any], stated: Callable[[], int], last: Callable[[], str]) -> None:
        """``otherwise`` is what numbers are that other code reads, ``stated`` how many calls of the closure a line search makes, ``last``
        the operator that gave what is decided by."""
        self._otherwise = otherwise
        self._stated = stated
        self._last = last
        self._loss = 0.0
        self._called = self._calls = 0

    def goes_on(self) -> bool | None:
        """A decision of the search: what would end it is not so. None where other code decides."""
        frame = _asking()
        if frame is None:
            return None
        question = _questions().get(frame.f_lineno, "")
        if frame.f_code.co_name == "step":
            self._called = self._calls = 0
            return question != ENDS
        if question.startswith(OVERSHOOTS):
            return self._called < self._calls
        if question == MAXIMUM:
            return self._last() == "gt"
        return ALWAYS.get(question, False)

    def number(self, func: Any, args: Any, kwargs: Any) -> float:
        """``float(loss)``: each time that the search asks a lesser one, but where it overshoots."""
        frame = _asking()
        if frame is None:
            return float(self._otherwise(func, args, kwargs))
        if frame.f_code.co_name == "_directional_evaluate":
            self._calls = self._calls or self._stated()
            self._called += 1
            if self._called < self._calls:
                return self._loss + 1 / self._called
        self._loss -= 1.0
        return self._loss


def _asking() -> FrameType | None:
    """The frame of torch's LBFGS, where it is what asks a tensor for its value."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and (frame.f_globals.get("__name__") or "").startswith("memest."):
        frame = frame.f_back
    return frame if frame is not None and frame.f_code.co_filename == lbfgs.__file__ else None


ENDS = "ends"
"""A question of the step that ends it."""
MAXIMUM = "eps"
"""Where the ends of a bracket are told from each other."""


@cache
def _questions() -> dict[int, str]:
    """What is asked by line: of the line search in its own words."""
    found: dict[int, str] = {}
    tree = ast.parse(inspect.getsource(lbfgs))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "step":
            tests = [n for n in ast.walk(node) if isinstance(n, ast.If) and isinstance(n.body[-1], ast.Break | ast.Return)]
            found |= dict.fromkeys([n.test.lineno for n in tests], ENDS)
        elif isinstance(node, ast.FunctionDef) and node.name in ("_strong_wolfe", "_cubic_interpolate"):
            for inner in ast.walk(node):
                if isinstance(inner, ast.If | ast.IfExp):
                    found[inner.test.lineno] = ast.unparse(inner.test)
                elif isinstance(inner, ast.Assign) and ast.unparse(inner.targets[0]) == "eps":
                    found[inner.lineno] = MAXIMUM
    return found
