"""What planners share that place block after block: the blocks placed so far, and the gaps among those that a new one lives with.

The placed ones are columns in the order of their offsets, so that a block asks for its gaps with a few operations on whole columns.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from memest.memory.planners.blocks import Block, Plan, plan_of

Fit = Literal["smallest", "lowest"]
MOST = 2**62  # bytes that still fit a column of machine words, sums included


class Placed:
    """Blocks with their offsets. ``room`` is how many there can be, ``nbytes`` what all blocks take side by side."""

    def __init__(self, room: int, nbytes: int) -> None:
        kind: Any = np.int64 if nbytes < MOST else object
        self._count = 0
        self._starts: list[int] = []
        self._columns = np.zeros((4, room), dtype=kind)  # start, end, lower, upper

    def place(self, block: Block, fit: Fit) -> int:
        """The offset of ``block``, which is placed there: the lowest of the smallest gaps that hold it, or the lowest gap of all; above
        the highest block that it lives with, where none does. Nothing has offset 0."""
        if _is_nothing(block):
            return 0
        offset = self._offset(block, fit)
        self._put(block, offset)
        return offset

    def _put(self, block: Block, offset: int) -> None:
        at = bisect_right(self._starts, offset)
        self._starts.insert(at, offset)
        columns, count = self._columns, self._count
        columns[:, at + 1 : count + 1] = columns[:, at:count]
        columns[:, at] = offset, offset + block.size, block.lower, block.upper
        self._count = count + 1

    def _offset(self, block: Block, fit: Fit) -> int:
        starts, ends, lowers, uppers = self._columns[:, : self._count]
        met = ((lowers < block.upper) & (uppers > block.lower)).nonzero()[0]
        if not len(met):
            return 0
        begins, reached = starts[met], np.maximum.accumulate(ends[met])
        gaps = begins.copy()
        gaps[1:] -= reached[:-1]
        fits = (gaps >= block.size).nonzero()[0]
        if not len(fits):
            return int(reached[-1])
        best = fits[0] if fit == "lowest" else fits[gaps[fits].argmin()]
        return int(begins[best] - gaps[best])


class Neighbours:
    """For each block the others that are alive at some moment of its life, found when they are asked for."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = blocks
        self._found: dict[int, list[int]] = {}
        self._lowers = np.array([b.lower for b in blocks])
        self._uppers = np.array([b.lower if _is_nothing(b) else b.upper for b in blocks])  # what is nothing is nobody's neighbour

    def __getitem__(self, n: int) -> list[int]:
        if n not in self._found:
            block = self._blocks[n]
            met = ((self._lowers < block.upper) & (self._uppers > block.lower) & (self._lowers < self._uppers)).nonzero()[0]
            self._found[n] = [] if _is_nothing(block) else [m for m in met.tolist() if m != n]
        return self._found[n]


def offset_among(spans: Iterable[tuple[int, int]], size: int, fit: Fit) -> int:
    """What :meth:`Placed.place` gives among blocks with these offsets and sizes, in the order of their offsets."""
    end, best, smallest = 0, None, 0
    for start, length in spans:
        gap = start - end
        if gap >= size and (best is None or gap < smallest):
            if fit == "lowest":
                return end
            best, smallest = end, gap
        end = max(end, start + length)
    return end if best is None else best


def _is_nothing(block: Block) -> bool:
    """Without bytes, or without a life."""
    return not block.size or block.upper <= block.lower


def in_order(blocks: Sequence[Block], order: Iterable[int], fit: Fit) -> Plan:
    """The plan that places the blocks with these numbers one after the other."""
    placed = Placed(len(blocks), sum(b.size for b in blocks))
    offsets = dict.fromkeys(range(len(blocks)), 0)
    for n in order:
        offsets[n] = placed.place(blocks[n], fit)
    return plan_of(blocks, offsets.values())
