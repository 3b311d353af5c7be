"""``remembered``: an ``lru_cache`` that stands aside while arrays of sizes are computed with (see memest.lanes)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

from memest.each import Many

F = TypeVar("F", bound=Callable[..., Any])
_suspended: list[bool] = [False]


def remembered(maxsize: int, *, always: bool = False) -> Callable[[F], F]:
    """Remember the last ``maxsize`` results; nothing is looked up or kept inside :class:`Suspended`. With ``always`` results for plain
    numbers are, even there: for functions that say the same whatever the context."""

    def decorate(function: F) -> F:
        known = lru_cache(maxsize=maxsize)(function)

        @wraps(function)
        def call(*args: Any) -> Any:
            if not _suspended[0] or (always and not any(isinstance(a, Many) for a in args)):
                return known(*args)
            return function(*args)

        return call  # type: ignore[return-value]

    return decorate


class Suspended:
    """A context in which nothing is remembered."""

    def __enter__(self) -> None:
        self._before, _suspended[0] = _suspended[0], True

    def __exit__(self, *exception: object) -> None:
        _suspended[0] = self._before
