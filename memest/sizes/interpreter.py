"""What memest needs of the process it runs in: locks between its threads, and how much memory it may still take.

Nothing of the process is changed: neither its garbage collection nor the threads of its BLAS.
"""

from __future__ import annotations

import os
from pathlib import Path
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


def available_bytes() -> int:
    """Memory this process may still take: what the system has available, less where its control group (v2 or v1) or its limit of address
    space leaves less. 2**63 where nothing is known."""
    found = [_field(Path("/proc/meminfo"), "MemAvailable:") * 1024]
    for folder, limit, used, cache in _GROUPS:
        group = Path("/sys/fs/cgroup") / folder
        found.append(_number(group / limit) - _number(group / used, 0) + _field(group / "memory.stat", cache, 0))
    try:
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            found.append(soft - _field(Path("/proc/self/status"), "VmSize:", 0) * 1024)
    except ImportError:
        pass
    return max(0, min(found))


_UNKNOWN = 2**63
_GROUPS = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def _number(path: Path, otherwise: int = _UNKNOWN) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return otherwise


def _field(path: Path, name: str, otherwise: int = _UNKNOWN) -> int:
    try:
        words = path.read_text(encoding="ascii", errors="replace").split()
        return int(words[words.index(name) + 1])
    except (OSError, ValueError):
        return otherwise
