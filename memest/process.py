"""Locks between the threads of a process, free in every process forked from it.

memest changes nothing of the process it runs in: neither its garbage collection nor the threads of its BLAS.
"""

from __future__ import annotations

import os
from threading import RLock
from weakref import WeakSet

_LOCKS: WeakSet[Lock] = WeakSet()


class Lock:
    """A lock that its thread may take again. In a forked process it is free: who held it is not there to give it back."""

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self.renew()
        _LOCKS.add(self)

    def renew(self) -> None:
        """Free, whoever holds it."""
        self._lock = RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        self._lock.release()


def _renew_all() -> None:
    for lock in _LOCKS:
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
