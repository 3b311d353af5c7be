"""``remembered``: an ``lru_cache`` that stands aside while arrays of sizes are computed with (see memest.lanes)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
_suspended: list[bool] = [False]


def remembered(maxsize: int) -> Callable[[F], F]:
    """Remember the last ``maxsize`` results; nothing is looked up or kept inside :func:`suspended`."""

    def decorate(function: F) -> F:
        known = lru_cache(maxsize=maxsize)(function)

        @wraps(function)
        def call(*args: Any) -> Any:
            return function(*args) if _suspended[0] else known(*args)

        return call  # type: ignore[return-value]

    return decorate


class Suspended:
    """A context in which nothing is remembered."""

    def __enter__(self) -> None:
        self._before, _suspended[0] = _suspended[0], True

    def __exit__(self, *exception: object) -> None:
        _suspended[0] = self._before
