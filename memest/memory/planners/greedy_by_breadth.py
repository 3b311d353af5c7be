"""Greedy by breadth: the moment with the most bytes alive comes first, and at each moment its largest block that has no place yet.

Source: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020 (Greedy by Breadth for Offset Calculation);
the order is that of TensorFlow Lite (tensorflow/lite/delegates/gpu/common/memory_management/greedy_by_breadth_assignment.cc), which gives
whole buffers instead of offsets. Of equal moments, sizes and gaps the earlier, earlier and lower one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np

from memest.memory.planners.blocks import Block, Plan
from memest.memory.planners.gaps import MOST, in_order


def by_breadth(blocks: Sequence[Block]) -> list[int]:
    """The numbers of the blocks in the order in which they are placed: each at the broadest moment of its life."""
    births = sorted({b.lower for b in blocks})
    breadths = _breadths(blocks, births)
    widest = _Widest(breadths, object if sum(b.size for b in blocks) >= MOST else np.int64)

    def rank(n: int) -> tuple[int, int, int, int, int]:
        block = blocks[n]
        start = bisect_left(births, block.lower)
        at = widest.of(start, max(bisect_left(births, block.upper), start + 1))
        return -breadths[at], at, -block.size, block.lower, n

    return sorted(range(len(blocks)), key=rank)


def greedy_by_breadth(blocks: Sequence[Block]) -> Plan:
    """The plan."""
    return in_order(blocks, by_breadth(blocks), "smallest")


def _breadths(blocks: Sequence[Block], births: list[int]) -> list[int]:
    """Bytes alive at each moment at which a block is born (the only ones at which they can be the most)."""
    changes = [0] * (len(births) + 1)
    for b in blocks:
        if b.upper > b.lower:
            changes[bisect_left(births, b.lower)] += b.size
            changes[bisect_left(births, b.upper)] -= b.size
    alive, found = 0, []
    for change in changes[:-1]:
        alive += change
        found.append(alive)
    return found


class _Widest:
    """The first of the largest values of any range of a list, by tables of ranges of 1, 2, 4, … values."""

    def __init__(self, values: list[int], kind: type) -> None:
        self._values: Any = np.array(values, dtype=kind)
        self._tables = [np.arange(len(values))]
        while 2 ** len(self._tables) <= len(values):
            step = 2 ** (len(self._tables) - 1)
            left, right = self._tables[-1][:-step], self._tables[-1][step:]
            self._tables.append(np.where(self._values[right] > self._values[left], right, left))

    def of(self, start: int, stop: int) -> int:
        """The number of the first largest from ``start`` to before ``stop``."""
        level = (stop - start).bit_length() - 1
        left, right = self._tables[level][start], self._tables[level][stop - 2**level]
        return int(right if self._values[right] > self._values[left] else left)
