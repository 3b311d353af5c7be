"""``torch.autocast`` in a network's own code: which contexts stand around a call while a forward is recorded.

torch's own context is entered as well, so that code which asks finds what it expects; on meta tensors it casts nothing. A context of CUDA
counts though no card is here: what is recorded may be played on one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from torch.amp.autocast_mode import autocast


class Listener(Protocol):
    """What is told of contexts."""

    def begin_autocast(self, device: str, dtype: str | None, cache: bool) -> None:
        """A context begins; without a ``dtype`` it is off."""

    def end_autocast(self) -> None:
        """The context that began last ends."""


@contextmanager
def telling(listener: Callable[[], Listener | None]) -> Iterator[None]:
    """Every ``torch.autocast`` that is entered is told to this thread's ``listener``."""
    init, enter, leave = autocast.__init__, autocast.__enter__, autocast.__exit__

    def made(self: Any, device_type: str, dtype: Any = None, enabled: bool = True, cache_enabled: bool | None = None) -> None:
        if listener() is None:
            init(self, device_type, dtype, enabled, cache_enabled)
            return
        on_card = device_type == "cuda"
        init(self, device_type, dtype, enabled and not on_card, cache_enabled)  # torch would warn that there is no card
        if on_card:
            self._enabled = bool(enabled)

    def entered(self: Any) -> Any:
        told = listener()
        given = enter(self)
        if told is not None:
            dtype = str(self.fast_dtype).removeprefix("torch.") if self._enabled else None
            told.begin_autocast(self.device, dtype, bool(self._cache_enabled))
        return given

    def left(self: Any, *error: Any) -> Any:
        told = listener()
        given = leave(self, *error)
        if told is not None:
            told.end_autocast()
        return given

    autocast.__init__, autocast.__enter__, autocast.__exit__ = made, entered, left
    try:
        yield
    finally:
        autocast.__init__, autocast.__enter__, autocast.__exit__ = init, enter, leave
