"""Tensors of a recording that somebody keeps who is no module: ``functools.lru_cache`` around a method, a dict or a list of a library's.

They have no memory behind them, so whoever found one in a later call would fail: it is taken out of where it is kept, and made anew there.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from memest.sources.importers.torch.tensors.holding import LRU, caches_of
from memest.sources.importers.torch.tensors.live import LiveTensors

MOST_NESTED = 3  # a tensor in a tuple in a tuple in a cache


def release(recorded: Iterable[LiveTensors], modules: Iterable[nn.Module] = ()) -> None:
    """Take what is left of the tensors of these recordings, which are over, out of caches, dicts and lists. The caches of ``modules`` are
    looked into first: to look for others goes through all that Python holds."""
    lives = list(recorded)
    ids = {id(t) for t in _left(lives)}
    if not ids:
        return
    for cache in caches_of(modules):
        if _holds(cache, ids):
            cache.cache_clear()
    left = _left(lives)
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


def _left(lives: Sequence[LiveTensors]) -> list[torch.Tensor]:
    return [t for live in lives for e in live.tracked.values() if (t := e.ref()) is not None and t.is_meta]


def _holds(cache: Any, ids: set[int]) -> bool:
    """Whether an object with one of these ids is in a cache, or in a tuple of tuples in it."""
    level = gc.get_referents(cache)
    for _ in range(MOST_NESTED):
        if not ids.isdisjoint(map(id, level)):
            return True
        level = [v for t in level if type(t) is tuple for v in t]
    return False


def _without(holder: Any, ids: set[int]) -> None:
    """A dict or a list without those of its elements that have these ids."""
    if type(holder) is dict:
        for key in [key for key, value in holder.items() if id(value) in ids]:
            del holder[key]
    elif type(holder) is list:
        holder[:] = [value for value in holder if id(value) not in ids]
