"""Caches of functions (``functools.lru_cache``) that a forward fills: what a recording leaves there is no tensor that anybody can use."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch

from memest.sources.importers.torch.tensors.live import LiveTensors

_CACHE = type(lru_cache(lambda: None))
_HOLDERS = (_CACHE, tuple, list, dict)
DEPTH = 3


def empty_caches(lives: Iterable[LiveTensors], inputs: Iterable[torch.Tensor]) -> None:
    """Empty those that hold a tensor made while recording, alone or in a container; the next call fills them again."""
    own = {id(t) for t in inputs}
    left = [t for live in lives for entry in live.tracked.values() if (t := entry.ref()) is not None and id(t) not in own]
    holders: list[Any] = left
    for _ in range(DEPTH if left else 0):  # a tensor, a tuple of it, the dict of a cache without bounds
        holders = [h for h in gc.get_referrers(*holders) if type(h) in _HOLDERS and h is not left]
        for holder in holders:
            if type(holder) is _CACHE:
                holder.cache_clear()
