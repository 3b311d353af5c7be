"""Addresses for a picture: where the blocks of a step lie when each takes the lowest gap that holds it (first fit).

A drawing aid, not a prediction: viewers of allocator histories draw blocks by address, and torch's CPU allocator leaves addresses to
malloc. Nothing is rounded, two live blocks never overlap, and the extent says nothing about fragmentation on a real machine.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

from memest.memory.stream import Event, Storage


class FirstFit:
    """A line of bytes from 0 on, handed out at the lowest gap that is large enough; ``extent`` is the highest end so far."""

    def __init__(self) -> None:
        self.extent = 0
        self._gaps: list[tuple[int, int]] = []  # (start, end), by address, never touching one another nor the end of the line
        self._end = 0

    def allocate(self, nbytes: int) -> int:
        """The address of a new block of ``nbytes``."""
        for i, (start, end) in enumerate(self._gaps):
            if end - start >= nbytes:
                self._gaps[i : i + 1] = [(start + nbytes, end)] if end - start > nbytes else []
                return start
        start = self._end
        self._end += nbytes
        self.extent = max(self.extent, self._end)
        return start

    def release(self, start: int, nbytes: int) -> None:
        """The block at ``start`` goes; gaps that meet become one."""
        end = start + nbytes
        i = bisect_left(self._gaps, (start, end))
        if i < len(self._gaps) and self._gaps[i][0] == end:
            end = self._gaps.pop(i)[1]
        if i > 0 and self._gaps[i - 1][1] == start:
            i -= 1
            start = self._gaps.pop(i)[0]
        if end == self._end:
            self._end = start
        else:
            self._gaps.insert(i, (start, end))


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """An address for each resident storage (those without bytes too) and for each event (a release has its allocation's)."""

    residents: tuple[int, ...]
    steps: tuple[int, ...]
    extent: int


def place(residents: Iterable[Storage], steps: Iterable[Event]) -> Placement:
    """Resident storages side by side from 0 on, then the step in the order of its events."""
    line = FirstFit()
    live: dict[int, int] = {}
    for storage in residents:
        live[storage.id] = line.allocate(storage.nbytes)
    first, found = tuple(live.values()), []
    for step in steps:
        if step.delta > 0:
            live[step.storage.id] = line.allocate(step.delta)
            found.append(live[step.storage.id])
        else:
            found.append(live.pop(step.storage.id))
            line.release(found[-1], -step.delta)
    return Placement(residents=first, steps=tuple(found), extent=line.extent)
