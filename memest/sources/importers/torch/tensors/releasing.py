"""Tensors of a recording that somebody keeps who is no module: ``functools.lru_cache`` around a method, a dict or a list of a library's.

They have no memory behind them, so whoever found one in a later call would fail: it is taken out of where it is kept, and made anew there.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import Any

from memest.sources.importers.torch.tensors.holding import LRU
from memest.sources.importers.torch.tensors.live import LiveTensors

MOST_NESTED = 3  # a tensor in a tuple in a tuple in a cache


def release(recorded: Iterable[LiveTensors]) -> None:
    """Take what is left of the tensors of these recordings, which are over, out of caches, dicts and lists."""
    lives = list(recorded)
    left = [t for live in lives for e in live.tracked.values() if (t := e.ref()) is not None and t.is_meta]
    if not left:
        return
    ours = {id(left), *(id(live.twins) for live in lives)}
    kept: list[Any] = left
    for _ in range(MOST_NESTED):
        ids, holders = {id(v) for v in kept}, gc.get_referrers(*kept)
        ours |= {id(kept), id(holders)}
        for holder in holders:
            if isinstance(holder, LRU):
                holder.cache_clear()
            elif id(holder) not in ours:
                _without(holder, ids)
        kept = [h for h in holders if type(h) is tuple]
        if not kept:
            return


def _without(holder: Any, ids: set[int]) -> None:
    """A dict or a list without those of its elements that have these ids."""
    if type(holder) is dict:
        for key in [key for key, value in holder.items() if id(value) in ids]:
            del holder[key]
    elif type(holder) is list:
        holder[:] = [value for value in holder if id(value) not in ids]
