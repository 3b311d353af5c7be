"""Choices made for each problem: ``min``, ``max`` and ``if`` as expressions, for one problem or for many at once.

With plain numbers they are what Python has. With columns of numbers (:mod:`memest.sizes.columns`) each row gets its own, so a search
written with them answers many problems without being run anew for every outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import le, lt
from typing import Any, TypeVar

T = TypeVar("T")


class Many:
    """A number for each of many problems (implemented by :class:`memest.sizes.columns.Lanes`)."""

    __slots__ = ()

    def greatest(self, other: Any) -> Any:
        """The greater of the two, row by row."""
        raise NotImplementedError

    def least(self, other: Any) -> Any:
        """The smaller of the two, row by row."""
        raise NotImplementedError

    def compared(self, comparison: Callable[[Any, Any], Any], first: Any, second: Any) -> Any:
        """Where the ``comparison`` of two numbers holds, one of which is this one: a bool or a :class:`Where`."""
        raise NotImplementedError

    def single(self) -> Any:
        """Rounded to single precision."""
        raise NotImplementedError

    def ceiling(self) -> int:
        """The greatest of its numbers."""
        raise NotImplementedError

    @staticmethod
    def each(function: Callable[..., Any], numbers: Sequence[Any]) -> Any:
        """A function of plain numbers, row by row."""
        raise NotImplementedError

    @staticmethod
    def first_least(keys: Sequence[Any], candidates: Sequence[Any]) -> Any:
        """The first candidate of least key, row by row."""
        raise NotImplementedError


class Where:
    """A condition that holds for some of many problems, to be combined with ``&`` and ``|`` (:class:`memest.sizes.columns.Mask` is one)."""

    __slots__ = ()

    def choose(self, yes: Any, no: Any) -> Any:
        """``yes`` where it holds, else ``no``; tuples member by member."""
        raise NotImplementedError


def greatest(a: Any, b: Any) -> Any:
    """``max`` of two numbers."""
    if isinstance(a, Many):
        return a.greatest(b)
    return b.greatest(a) if isinstance(b, Many) else max(a, b)


def least(a: Any, b: Any) -> Any:
    """``min`` of two numbers."""
    if isinstance(a, Many):
        return a.least(b)
    return b.least(a) if isinstance(b, Many) else min(a, b)


def at_most(a: Any, b: Any) -> Any:
    """``a <= b``, to be combined with ``&`` and ``|`` and used in :func:`choose`."""
    return _compared(le, a, b)


def below(a: Any, b: Any) -> Any:
    """``a < b``, likewise."""
    return _compared(lt, a, b)


def _compared(comparison: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    many = a if isinstance(a, Many) else b
    return many.compared(comparison, a, b) if isinstance(many, Many) else comparison(a, b)


def choose(condition: Any, yes: T, no: T) -> T:
    """``yes if condition else no``; both are computed."""
    if isinstance(condition, Where):
        chosen: T = condition.choose(yes, no)
        return chosen
    return yes if condition else no


def ceiling(a: Any) -> int:
    """No less than the number."""
    return a.ceiling() if isinstance(a, Many) else a


def each(function: Callable[..., T], *numbers: Any) -> T:
    """``function(*numbers)``, which is written for plain numbers: it is called for each of their rows, once for equal ones."""
    for n in numbers:
        if isinstance(n, Many):
            found: T = n.each(function, numbers)
            return found
    return function(*numbers)


def best(candidates: Sequence[T], key: Callable[[T], Any]) -> T:
    """The first of the candidates (numbers, or equally long tuples of them) with the least key."""
    keys = [key(c) for c in candidates]
    for k in keys:
        if isinstance(k, Many):
            found: T = k.first_least(keys, candidates)
            return found
    return candidates[min(range(len(keys)), key=keys.__getitem__)]
