"""The caching allocator's pools, each played alone over a flat list of requests.

Where nothing narrows the choice of a block (no expandable segments, no block that is never split, no limit of the card), the pools of the
caching allocator do not know of one another: what a request gets follows from the requests of its own stream and kind. So each pool is
played for itself, with blocks told by where they begin alone: no object a block, no links to keep. What comes out is the same, block for
block (see :mod:`memest.memory.allocators.caching`, whose rules these are).

Bytes are counted in units of the smallest block, 512 bytes.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

from memest.memory.allocators.blocks import GRANULE, LARGE_FROM, SMALL, SMALL_SEGMENT, SMALLEST

UNIT = SMALLEST
UNIT_BITS = 9
LARGE = SMALL // UNIT  # of a large request there are more
BELOW = 40  # bits of a key for where a block begins
ADDRESS = (1 << BELOW) - 1
BRIEF = 1 << 40
"""Added to the number of what is given back right after it was asked for."""


class LonePool:
    """The blocks of one stream and kind. ``has[n]`` and ``at[n]`` are the units of the block that number ``n`` got, and where it begins;
    ``segments`` is what was asked of the driver so far."""

    __slots__ = ("_ends", "_frees", "_keys", "_large_segment", "_least", "_next", "_small", "_wholes", "at", "has", "segments")

    def __init__(self, *, small: bool, large_segment: int, has: list[int]) -> None:
        self._small = small
        self._least = 0 if small else LARGE  # more than that must be left for a block to be split
        self._large_segment = large_segment // UNIT
        self._keys: list[int] = []  # free blocks by size, then by where they begin
        self._frees: dict[int, int] = {}  # their sizes by where they begin
        self._ends: dict[int, int] = {}  # where they begin by where they end
        self._wholes: dict[int, int] = {}  # segments, likewise by where they begin
        self._next = 0
        self.segments = 0
        self.has = has
        self.at = [0] * len(has)

    def play(self, requests: Iterable[int], units: list[int]) -> None:
        """Requests by number, ``units[n]`` large: ``n`` is asked for, ``~n`` is given back, ``n + BRIEF`` both at once."""
        keys, frees, ends, has, at, least = self._keys, self._frees, self._ends, self.has, self.at, self._least
        for n in requests:
            if n < 0:
                n = ~n
                begin = at[n]
                end = begin + has[n]
                near = frees.pop(end, 0)
                if near:
                    del keys[bisect_left(keys, near << BELOW | end)]
                    end += near
                before = ends.pop(begin, -1)
                if before >= 0:
                    del keys[bisect_left(keys, begin - before << BELOW | before)]
                    begin = before
                frees[begin] = size = end - begin
                ends[end] = begin
                insort(keys, size << BELOW | begin)
                continue
            brief = n >= BRIEF
            if brief:
                n -= BRIEF
            size = units[n]
            place = bisect_left(keys, size << BELOW)
            if brief and place < len(keys):
                whole = keys[place] >> BELOW
                has[n] = size if whole - size > least else whole
                continue
            if place < len(keys):
                key = keys.pop(place)
                begin, whole = key & ADDRESS, key >> BELOW
                del frees[begin]
            else:
                begin, whole = self._segment(size)
            if brief:
                has[n] = size if whole - size > least else whole
                frees[begin] = whole
                ends[begin + whole] = begin
                insort(keys, whole << BELOW | begin)
                continue
            at[n] = begin
            left = whole - size
            if left > least:
                has[n] = size
                begin += size
                frees[begin] = left
                ends[begin + left] = begin
                insort(keys, left << BELOW | begin)
            else:
                has[n] = whole
                ends.pop(begin + whole, None)

    def empty(self) -> None:
        """Segments without a block in use go back to the driver: each is one free block."""
        for begin, whole in self._wholes.items():
            if self._frees.get(begin) == whole:
                del self._frees[begin], self._ends[begin + whole]
                del self._keys[bisect_left(self._keys, whole << BELOW | begin)]
                self.segments -= whole

    def _segment(self, size: int) -> tuple[int, int]:
        """A new segment, behind the last one and apart from it."""
        if self._small:
            whole = SMALL_SEGMENT // UNIT
        elif size * UNIT < LARGE_FROM:
            whole = self._large_segment
        else:
            whole = -(-size * UNIT // GRANULE) * (GRANULE // UNIT)
        begin, self._next = self._next, self._next + whole + 1
        self._wholes[begin] = whole
        self.segments += whole
        return begin, whole
