"""What memest asks of the process it runs in while it works: no garbage collection, one thread."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock


@contextmanager
def undisturbed() -> Iterator[None]:
    """No search for garbage meanwhile: work that makes many small objects and no garbage would pay more for it than for itself."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _OneThread:
    """The limit is the process's, so those who ask for it at the same time share it: the first sets it, the last takes it back."""

    def __init__(self) -> None:
        self._lock, self._users = Lock(), 0
        self._limit: AbstractContextManager[object] | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._users:
                from threadpoolctl import threadpool_limits

                self._limit = threadpool_limits(1, "blas")
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0 and self._limit is not None:
                    self._limit.__exit__(None, None, None)


on_one_core = _OneThread()
"""numpy's matrix products on the calling thread meanwhile: ours are small, and threads of BLAS wait for their turn by spinning."""
