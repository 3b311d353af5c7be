"""Sizes whose plain number was taken where no comparison shows it (a length, a text, a key), and the numbers it may be held against."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from inspect import unwrap
from types import CodeType, FunctionType
from typing import Any

from memest.sizes.dims import Dim, Expr
from memest.sources.importers.torch.refusals import users_frame

MOST = 32  # numbers that are kept of one place


class Taken:
    """What was taken in one forward, and the numbers near by: those in the code that took it, and in what it names. ``running`` gives the
    module that runs."""

    def __init__(self, running: Callable[[], Any]) -> None:
        self.numbers: dict[Expr, dict[int, None]] = {}
        self._running = running
        self._seen: set[tuple[Expr, CodeType]] = set()

    def __call__(self, n: Dim) -> None:
        """``n`` is taken by the user's code that runs now."""
        frame = users_frame()
        if frame is None or (n.expr, frame.f_code) in self._seen:
            return
        self._seen.add((n.expr, frame.f_code))
        found = self.numbers.setdefault(n.expr, {})
        module = self._running()
        for number in _near(frame.f_code, frame.f_globals, vars(module), vars(type(module))):
            if len(found) < MOST:
                found[number] = None


def _near(code: CodeType, *named: Mapping[str, Any]) -> Iterator[int]:
    """(A frame's own locals are not asked: that would keep its tensors alive.)"""
    yield from _within(code.co_consts)
    for name in code.co_names:
        yield from _within([names[name] for names in named if name in names])


def _within(values: Iterable[Any], depth: int = 3) -> Iterator[int]:
    """Whole numbers in constants, keys and small containers, also those written as text."""
    for value in values:
        if type(value) is int and value >= 0:
            yield value
        elif type(value) is str and value.isascii() and value.isdigit() and len(value) < 10:
            yield int(value)
        elif isinstance(value, _FUNCTIONS) and isinstance(function := unwrap(value), FunctionType):
            yield from _within(function.__code__.co_consts, 1)
        elif type(value) in _CONTAINERS and depth and len(value) <= MOST:
            yield from _within(list(value), depth - 1)


_FUNCTIONS = (FunctionType, type(lru_cache(int)))
_CONTAINERS = frozenset({tuple, list, set, frozenset, dict})
