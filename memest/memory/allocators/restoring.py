"""An allocator as it stood: segments and live blocks put where a record has them, from which it plays on."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import NamedTuple

from memest.memory.allocators.blocks import FREE, SMALL_SEGMENT, UNMAPPED, USED, Block, Pool, Range
from memest.memory.allocators.caching import SPACE, CachingAllocator


class Span(NamedTuple):
    """A segment, or a run of mapped pages of an expandable one."""

    address: int
    size: int
    lane: int
    small: bool
    expandable: bool


class Live(NamedTuple):
    """A block in use: its bytes, and those that were asked for."""

    size: int
    asked: int
    state: int


def restore(allocator: CachingAllocator, spans: Iterable[Span], live: Mapping[int, Live]) -> dict[int, Block]:
    """Puts ``spans`` with their ``live`` blocks (by address) into an allocator that holds nothing; what lies between them is free. The
    blocks by address. Runs of pages of one lane and kind are one range, which begins at the lowest of them."""
    addresses = sorted(live)
    found: dict[int, Block] = {}
    ranges: dict[tuple[int, bool], list[Span]] = {}
    for span in sorted(spans):
        if span.expandable:
            ranges.setdefault((span.lane, span.small), []).append(span)
        else:
            blocks = _filled(allocator.pool(span.lane, small=span.small), span, addresses, live, None)
            allocator.adopt(_chained(blocks), span.size)
            found |= {b.address: b for b in blocks if b.state != FREE}
    bases = sorted(runs[0].address for runs in ranges.values())
    for (lane, small), runs in ranges.items():
        pool = allocator.pool(lane, small=small)
        page = SMALL_SEGMENT if small else allocator.settings.large_segment_size
        base, end = runs[0].address, runs[-1].address + runs[-1].size
        room = min([other - base for other in bases if other > base], default=SPACE)
        expandable = Range(base, page, -(-max(room, end - base) // page) * page)
        blocks, at = [], base
        for run in [*runs, Span(base + expandable.size, 0, lane, small, True)]:
            if at < run.address:
                blocks.append(Block(pool, at, run.address - at, UNMAPPED, expandable))
                pool.add_unmapped(blocks[-1])
            blocks += _filled(pool, run, addresses, live, expandable)
            at = run.address + run.size
        allocator.adopt_range(_chained(blocks), sum(run.size for run in runs))
        found |= {b.address: b for b in blocks if b.state not in (FREE, UNMAPPED)}
    return found


def _filled(pool: Pool, span: Span, addresses: list[int], live: Mapping[int, Live], expandable: Range | None) -> list[Block]:
    """The blocks of a span: live ones, and free ones where nothing lives."""
    blocks: list[Block] = []
    at, end = span.address, span.address + span.size
    for address in addresses[bisect_left(addresses, at) : bisect_left(addresses, end)]:
        if at < address:
            blocks.append(Block(pool, at, address - at, FREE, expandable))
        size, asked, state = live[address]
        blocks.append(Block(pool, address, size, state, expandable))
        blocks[-1].asked = asked
        at = address + size
    if at < end:
        blocks.append(Block(pool, at, end - at, FREE, expandable))
    for block in blocks:
        if block.state == FREE:
            pool.add(block)
    return blocks


def _chained(blocks: list[Block]) -> Block:
    """Neighbours that know each other; the first of them."""
    for before, after in pairwise(blocks):
        before.after, after.before = after, before
    return blocks[0]


def carve(allocator: CachingAllocator, block: Block, address: int, asked: int) -> Block | None:
    """The part of a free block that begins at ``address``, in use for ``asked`` bytes; None where it is too short."""
    pool, size = block.pool, allocator.rounded(asked)
    end = block.address + block.size
    if address + size > end:
        return None
    pool.remove(block)
    if block.address < address:
        rest = _cut(block, address - block.address)
        pool.add(block)
        block = rest
    if end - address - size > pool.least and size < pool.below:
        pool.add(_cut(block, size))
    block.state, block.asked = USED, asked
    allocator.count(block)
    return block


def _cut(block: Block, size: int) -> Block:
    """A block keeps its first ``size`` bytes; the free rest of it, in no list."""
    rest = Block(block.pool, block.address + size, block.size - size, FREE, block.expandable)
    rest.before, rest.after = block, block.after
    if block.after is not None:
        block.after.before = rest
    block.after, block.size = rest, size
    return rest
