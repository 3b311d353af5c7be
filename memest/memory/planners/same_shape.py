"""Reuse by identical shape: a block takes over the buffer of one of the same kind that has died, the last one first.

Source: ONNX Runtime (onnxruntime/core/framework/allocation_planner.cc, PlannerImpl::FindReusableTensor): the first buffer of the free
list with the same shape and bytes an element, the list beginning with what was freed last. A buffer that is taken again stays allocated
in between. The buffers then lie as the memory pattern lays them (:mod:`memest.memory.planners.best_fit`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

from memest.memory.planners.best_fit import best_fit
from memest.memory.planners.blocks import Block, Plan, plan_of


def same_shape(blocks: Sequence[Block]) -> Plan:
    """The plan."""
    owner = buffers(blocks)
    lives: dict[int, list[int]] = defaultdict(list)
    for n, buffer in enumerate(owner):
        lives[buffer].append(n)
    merged = [Block(b, min(blocks[n].lower for n in ns), max(blocks[n].upper for n in ns), blocks[b].size) for b, ns in lives.items()]
    offsets = dict(zip(lives, best_fit(merged).offsets, strict=True))
    return plan_of(blocks, [offsets[buffer] for buffer in owner])


def buffers(blocks: Sequence[Block]) -> list[int]:
    """For each block the number of the block whose buffer it has: its own where it makes one."""
    births = sorted(range(len(blocks)), key=lambda n: (blocks[n].lower, n))
    deaths = sorted(births, key=lambda n: blocks[n].upper)
    free: dict[Hashable, list[int]] = defaultdict(list)
    owner = list(range(len(blocks)))
    gone = 0
    for n in births:
        while blocks[m := deaths[gone]].upper <= blocks[n].lower and m != n:
            free[_kind(blocks[m])].append(owner[m])
            gone += 1
        if free[_kind(blocks[n])]:
            owner[n] = free[_kind(blocks[n])].pop()
    return owner


def _kind(block: Block) -> Hashable:
    return block.size, block.kind
