"""Planners as their sources describe them, block by block and without haste: what memest's own are held against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from memest.memory.planners.blocks import Block
from memest.memory.planners.standard_sort import standard_sort


def together(a: Block, b: Block) -> bool:
    return a.lower < b.upper and b.lower < a.upper


def tflite(blocks: Sequence[Block], order: Iterable[int]) -> list[int]:
    """SimpleMemoryArena::Allocate: the smallest gap among the placed blocks, by offset, that live at the same time; else behind them."""
    offsets: dict[int, int] = {}
    for n in order:
        end, best, best_gap = 0, None, 0
        for m in sorted(offsets, key=lambda m: offsets[m]):
            if together(blocks[n], blocks[m]) and blocks[m].size:
                gap = offsets[m] - end
                if gap >= blocks[n].size and (best is None or gap < best_gap):
                    best, best_gap = end, gap
                end = max(end, offsets[m] + blocks[m].size)
        offsets[n] = (end if best is None else best) if blocks[n].size else 0
    return [offsets[n] for n in range(len(blocks))]


def openvino(blocks: Sequence[Block]) -> list[int]:
    """MemorySolver::solve: from 0 a box is lifted above each that it meets, until it meets none (std::sort has a test of its own)."""
    offsets: dict[int, int] = {}
    by_time = sorted(range(len(blocks)), key=lambda n: (blocks[n].lower, blocks[n].upper, n))
    for n in standard_sort(by_time, lambda n, m: blocks[n].size > blocks[m].size):
        at, lifted = 0, bool(blocks[n].size)
        while lifted:
            lifted = False
            for m, below in offsets.items():
                if together(blocks[n], blocks[m]) and at + blocks[n].size > below and below + blocks[m].size > at:
                    at, lifted = below + blocks[m].size, True
        offsets[n] = at
    return [offsets[n] for n in range(len(blocks))]


def breadth_order(blocks: Sequence[Block]) -> list[int]:
    """GreedyByBreadthAssignment's: moments by the bytes alive, of each the blocks by size."""
    moments = range(max((b.upper for b in blocks), default=0))
    breadth = {t: sum(b.size for b in blocks if b.lower <= t < b.upper) for t in moments}
    order: list[int] = []
    for t in sorted(moments, key=lambda t: (-breadth[t], t)):
        alive = [n for n, b in enumerate(blocks) if b.lower <= t < b.upper and n not in order]
        order += sorted(alive, key=lambda n: (-blocks[n].size, blocks[n].lower, n))
    return order


def onnxruntime(blocks: Sequence[Block]) -> list[int]:
    """MemPatternPlanner's TraceAllocation and TraceFree, in the order of time."""
    offsets = [0] * len(blocks)
    alive: list[int] = []
    taken = 0
    for n in sorted(range(len(blocks)), key=lambda n: (blocks[n].lower, n)):
        if not blocks[n].size:
            continue
        alive = sorted((m for m in alive if blocks[m].upper > blocks[n].lower), key=lambda m: offsets[m])
        end, found = 0, []
        for m in alive:
            found.append((offsets[m] - end, end))
            end = offsets[m] + blocks[m].size
        fitting = [(gap, start) for gap, start in [*found, (taken - end, end)] if gap >= blocks[n].size]
        offsets[n] = min(fitting)[1] if fitting else end
        taken = max(taken, offsets[n] + blocks[n].size)
        alive.append(n)
    return offsets
