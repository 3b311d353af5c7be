"""Histories of bounded length: a ``deque(maxlen=100)`` that each call appends to is full in the midst of training."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

import torch

from memest.sources.importers.torch.surroundings import Table
from memest.sources.importers.torch.tensors.described import twin
from memest.sources.importers.torch.tensors.keeping import Kept

MOST = 1_000
"""Elements that are put into one."""


class Histories:
    """The deques with a bound that a step finds; each is looked at where it lies, as whoever counts its holders should find no other."""

    def __init__(self, found: Iterable[Table]) -> None:
        self._found = [table for table in found if isinstance(table.live, deque) and table.live.maxlen is not None]
        self._lengths = [len(table.live) for table in self._found]
        self._grew = [0] * len(self._found)

    def after_a_call(self, kept: list[Kept]) -> None:
        """A deque that two calls in a row have appended as much to is filled with the like; tensors made for that are ``kept``, too."""
        for i, table in enumerate(self._found):
            grew, before = len(table.live) - self._lengths[i], self._grew[i]
            if grew > 0 and grew == before:
                _fill(table.live, grew, kept)
            self._lengths[i], self._grew[i] = len(table.live), grew


def _fill(history: deque[Any], grew: int, kept: list[Kept]) -> None:
    assert history.maxlen is not None
    newest = list(history)[-grew:]
    known = {id(k.tensor): k for k in kept}
    if history.maxlen > MOST or not all(_is_known(item, known) for item in newest):
        return
    while len(history) < history.maxlen:
        history.append(_like(newest[len(history) % grew], known, kept))


def _is_known(item: Any, known: dict[int, Kept]) -> bool:
    if isinstance(item, torch.Tensor):
        return id(item) in known
    if isinstance(item, list | tuple):
        return all(_is_known(part, known) for part in item)
    return item is None or isinstance(item, bool | int | float | str)


def _like(item: Any, known: dict[int, Kept], kept: list[Kept]) -> Any:
    """The same number, or another tensor of the same sizes."""
    if isinstance(item, torch.Tensor):
        kept.append(known[id(item)]._replace(tensor=twin(item)))
        return kept[-1].tensor
    if isinstance(item, list | tuple) and type(item) in (list, tuple):
        return type(item)([_like(part, known, kept) for part in item])
    return item
