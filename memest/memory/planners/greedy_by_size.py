"""Greedy by size: the largest block first, each at the smallest gap among those it lives with that holds it; and two engines' own forms.

Source: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020 (Greedy by Size for Offset Calculation), and
TensorFlow Lite (tensorflow/lite/delegates/gpu/common/memory_management/greedy_by_size_assignment.cc): of equal sizes the earlier block
comes first; of equal gaps the lower one is taken; where no gap holds a block it goes above the highest one it lives with.
"""

from __future__ import annotations

from collections.abc import Sequence

from memest.memory.planners.blocks import Block, Plan
from memest.memory.planners.gaps import in_order
from memest.memory.planners.standard_sort import standard_sort


def by_size(blocks: Sequence[Block]) -> list[int]:
    """The numbers of the blocks, the largest first, of equal ones the one that comes first."""
    return sorted(range(len(blocks)), key=lambda n: (-blocks[n].size, blocks[n].lower, n))


def greedy_by_size(blocks: Sequence[Block]) -> Plan:
    """The plan."""
    return in_order(blocks, by_size(blocks), "smallest")


def tflite_arena(blocks: Sequence[Block]) -> Plan:
    """As TensorFlow Lite's interpreter lays out its arena: what lives through the whole call first, in order, then by size.

    Source: tensorflow/lite/arena_planner.cc (CreateTensorAllocationVector) and simple_memory_arena.cc (Allocate).
    """
    first, last = min((b.lower for b in blocks), default=0), max((b.upper for b in blocks), default=0)
    return in_order(blocks, sorted(by_size(blocks), key=lambda n: _through(blocks[n], first, last, n)), "smallest")


def _through(block: Block, first: int, last: int, number: int) -> tuple[bool, int]:
    through = block.lower == first and block.upper == last
    return not through, number if through else 0


def by_size_and_end(blocks: Sequence[Block]) -> list[int]:
    """The numbers of the blocks, the largest first, equal ones as ``std::sort`` leaves those that begin, then end first."""
    begun = sorted(range(len(blocks)), key=lambda n: (blocks[n].lower, blocks[n].upper, n))
    return standard_sort(begun, lambda x, y: blocks[x].size > blocks[y].size)


def openvino_solver(blocks: Sequence[Block]) -> Plan:
    """As OpenVINO's CPU plugin lays out its pool: by size, of equal ones as the sort of its C++ library leaves them; the lowest gap.

    Source: openvino/runtime/memory_solver.hpp (MemorySolver: normalize_boxes, solve).
    """
    return in_order(blocks, by_size_and_end(blocks), "lowest")
