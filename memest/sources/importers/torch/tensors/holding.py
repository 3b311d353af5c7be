"""Whether tensors are held by a module: by its attributes and what lies in those, or by caches around its methods.

That is told at once; to collect all garbage, so that only what somebody holds is left, takes longer than the forward does.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from functools import lru_cache
from types import FunctionType
from typing import Any

from torch import nn

from memest.sources.importers.torch.tensors.state import CONTAINERS

LRU: type[Any] = type(lru_cache(lambda: None))
MOST_NESTED = 4  # a tensor in a tuple in a cache in an attribute
MOST_ELEMENTS = 1_000  # of a container that is looked into

_OPENED = frozenset({*CONTAINERS, tuple, LRU})


def all_held(modules: Iterable[nn.Module], tensors: Iterable[Any]) -> bool:
    """Whether each of these tensors is found in what these modules hold (false where it lies deeper)."""
    missing = {id(t) for t in tensors if t is not None}
    found = list(modules)
    level: list[Any] = [*(vars(m) for m in found), *caches_of(found)]
    seen: set[int] = set()
    for _ in range(MOST_NESTED):
        inside: list[Any] = []
        for holder in level:
            values = _elements(holder)
            missing.difference_update(map(id, values))
            for value in [v for v in values if type(v) in _OPENED and v]:
                if id(value) not in seen:
                    seen.add(id(value))
                    inside.append(value)
        if not missing:
            return True
        level = inside
    return False


def caches_of(modules: Iterable[nn.Module]) -> Iterator[Any]:
    """``functools.lru_cache`` around their methods, also within another decorator."""
    for c in {c for m in modules for c in type(m).__mro__ if c is not nn.Module}:
        for attribute in vars(c).values():
            value = getattr(attribute, "__func__", attribute)  # of a static method
            if type(value) is LRU:
                yield value
            elif isinstance(value, FunctionType) and value.__closure__:
                for cell in value.__closure__:
                    try:
                        if type(cell.cell_contents) is LRU:
                            yield cell.cell_contents
                    except ValueError:  # not filled
                        continue


def _elements(holder: Any) -> Iterable[Any]:
    if type(holder) is LRU:
        return gc.get_referents(holder)
    if len(holder) > MOST_ELEMENTS:
        return ()
    return list(holder.values() if isinstance(holder, dict) else holder)
