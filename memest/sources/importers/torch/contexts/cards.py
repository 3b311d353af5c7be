"""Calls of ``torch.cuda`` in the user's own code, while it is recorded on a machine that may have no card.

Waiting, marks for profilers and the allocator's counters move no memory: where there is no card they are passed over, where torch would
raise. Giving the allocator's free blocks back does move some on a card, and is refused there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
import torch.cuda.nvtx

from memest.sources.importers.torch.tensors.places import NOT_YET


class Listener(Protocol):
    """What a recorder is told."""

    def refuse_card(self, what: str, why: str) -> None:
        """On a card the network stops here."""


QUIET = {
    torch.cuda: ("synchronize", "ipc_collect", "reset_peak_memory_stats", "reset_accumulated_memory_stats", "reset_max_memory_allocated"),
    torch.cuda.nvtx: ("range_push", "range_pop", "mark"),
}


@contextmanager
def telling(listener: Callable[[], Listener | None]) -> Iterator[None]:
    """Those calls are told to this thread's ``listener``, or passed over."""
    replaced = [(place, name, getattr(place, name)) for place, names in QUIET.items() for name in names]
    replaced.append((torch.cuda, "empty_cache", torch.cuda.empty_cache))
    for place, name, original in replaced:
        setattr(place, name, (_emptying if name == "empty_cache" else _quiet)(original, listener))
    try:
        yield
    finally:
        for place, name, original in replaced:
            setattr(place, name, original)


def _quiet(original: Callable[..., Any], listener: Callable[[], Listener | None]) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        return None if listener() is not None and not torch.cuda.is_available() else original(*args, **kwargs)

    return called


def _emptying(original: Callable[[], None], listener: Callable[[], Listener | None]) -> Callable[[], None]:
    def called() -> None:
        told = listener()
        if told is None:
            original()
        else:
            told.refuse_card("torch.cuda.empty_cache(), which gives blocks back", NOT_YET)

    return called
