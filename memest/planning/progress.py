"""How far long work is: loops tell whoever watches this computation, which is nobody unless a caller says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Watcher(Protocol):
    """Who is told. Called from the thread that works, often: it has to be quick."""

    def tell(self, doing: str, done: int, of: int | None) -> None:
        """``done`` things of ``of`` (None: nobody knows how many) are behind us."""

    def finish(self) -> None:
        """The result is there; nothing more will be told."""


_WATCHER: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


def tell(doing: str, done: int = 0, of: int | None = None) -> None:
    """Say what is being done and how far it is."""
    watcher = _WATCHER.get()
    if watcher is not None:
        watcher.tell(doing, done, of)


def finish() -> None:
    """Say that the result is there."""
    watcher = _WATCHER.get()
    if watcher is not None:
        watcher.finish()


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """What is told inside goes to ``watcher``."""
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)
        watcher.finish()
