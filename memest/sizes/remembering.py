"""What is remembered, in one room: results of functions, and what was found out about an object. All of it is bounded, shared by the
threads of a process, and dropped by :func:`clear_caches`."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextvars import ContextVar
from dataclasses import fields
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakSet

from memest.sizes.choices import Many
from memest.sizes.interpreter import Lock

if TYPE_CHECKING:
    from functools import _lru_cache_wrapper

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
_SUSPENDED: ContextVar[bool] = ContextVar("suspended", default=False)
_suspended = _SUSPENDED.get
_FUNCTIONS: list[_lru_cache_wrapper[Any]] = []
_MEMOS: WeakSet[Memo] = WeakSet()
_SHORTLY = Lock()


def kept(most: int) -> Callable[[Callable[..., T]], _lru_cache_wrapper[T]]:
    """An ``lru_cache`` of the last ``most`` results."""

    def decorate(function: Callable[..., T]) -> _lru_cache_wrapper[T]:
        known = lru_cache(maxsize=most)(function)
        _FUNCTIONS.append(known)
        return known

    return decorate


def remembered(most: int, *, always: bool = False) -> Callable[[F], F]:
    """The same, standing aside while arrays of sizes are computed with (see memest.sizes.columns): nothing is looked up or kept inside
    :class:`Suspended`. With ``always`` results for plain numbers are, even there: for functions that say the same whatever the context."""

    def decorate(function: F) -> F:
        known = kept(most)(function)

        @wraps(function)
        def call(*args: Any) -> Any:
            if not _suspended() or (always and not any(isinstance(a, Many) for a in args)):
                return known(*args)
            return function(*args)

        return call  # type: ignore[return-value]

    return decorate


class Suspended:
    """A context in which nothing is remembered. It is its computation's: other threads go on remembering."""

    def __enter__(self) -> None:
        self._before = _SUSPENDED.set(True)

    def __exit__(self, *exception: object) -> None:
        _SUSPENDED.reset(self._before)


class Shelf(dict[Any, T], Generic[T]):
    """Finds of one kind by key: the last ``most`` of them."""

    __slots__ = ("most",)

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def keep(self, key: Hashable, find: T) -> T:
        """``find``, or what another thread kept for ``key`` before."""
        with _SHORTLY:
            first = self.setdefault(key, find)
            while len(self) > self.most:
                del self[next(iter(self))]
        return first


class Later(Generic[T]):
    """What is worth making once it was asked for more than ``times`` times; None until then."""

    __slots__ = ("_find", "_left", "_make")

    def __init__(self, make: Callable[[], T], times: int) -> None:
        self._make = make
        self._left = times
        self._find: T | None = None

    def get(self) -> T | None:
        """What was made, or is now."""
        if self._find is None:
            if self._left > 0:
                self._left -= 1
                return None
            self._find = self._make()
        return self._find


class Memo:
    """What was found out about one object, by kind. It is no part of the object: a copy or a pickle of it is empty. ``busy`` is held by
    the thread that does long work whose result others will want."""

    __slots__ = ("__weakref__", "_shelves", "busy")

    def __init__(self) -> None:
        self._shelves: dict[str, Shelf[Any]] = {}
        self.busy = Lock()
        with _SHORTLY:
            _MEMOS.add(self)

    def shelf(self, kind: str, most: int) -> Shelf[Any]:
        """The finds of a kind, of which at most ``most`` are kept."""
        return self._shelves.get(kind) or self._shelves.setdefault(kind, Shelf(most))

    def find(self, kind: str, key: Hashable, most: int, make: Callable[[], T]) -> T:
        """What was found for ``key``, or is made now; None is made again."""
        shelf = self.shelf(kind, most)
        known: T | None = shelf.get(key)
        return shelf.keep(key, make()) if known is None else known

    def clear(self) -> None:
        """Forget everything."""
        self._shelves = {}

    def __reduce__(self) -> Any:
        return Memo, ()


class Restated:
    """A dataclass of which only the fields are copied and pickled: what was computed from them is computed again."""

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]


def clear_caches() -> None:
    """Forget everything memest remembers in this process: results of functions, and what was found out about every graph. Answers stay the
    same, and take as long as the first time. Safe while other threads compute."""
    for function in _FUNCTIONS:
        function.cache_clear()
    with _SHORTLY:
        memos = list(_MEMOS)
    for memo in memos:
        memo.clear()
