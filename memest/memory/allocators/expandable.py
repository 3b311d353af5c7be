"""Expandable segments: one range of addresses a stream and pool, backed by pages as it grows.

A request takes the lowest place where free and unmapped addresses side by side suffice; what is mapped is rounded up to pages (2 MiB in
the small pool, a large segment in the large one). Giving back unmaps whole pages inside free blocks. Source: pytorch's
c10/cuda/CUDACachingAllocator.cpp, ExpandableSegment and the functions that use it.
"""

from __future__ import annotations

from memest.memory.allocators.blocks import FREE, SMALL_SEGMENT, UNMAPPED, Block, Driver, Pool, Range


class Expansion:
    """Ranges of one device: ``total`` bytes of memory, of which each range could hold 9/8."""

    def __init__(self, driver: Driver, *, total: int, page: int) -> None:
        self.mapped = 0  # bytes, of all ranges
        self.maps = 0
        self.unmaps = 0
        self.heads: dict[int, Block] = {}  # the first block of each range, by its base
        self._driver = driver
        self._total = total
        self._page = page

    def take(self, pool: Pool, size: int) -> Block | None:
        """A free block of at least ``size`` bytes, out of its pool; None where the pages for it are not to be had."""
        block = self._candidate(pool, size)
        if block.state == UNMAPPED and not self._map(block, min(block.size, size)):
            return None
        while block.size < size:
            more = block.after
            assert more is not None  # the candidate was chosen for what follows it
            if not self._map(more, min(size - block.size, more.size)):
                return None
            block = more
        pool.remove(block)
        return block

    def shrink(self, block: Block) -> None:
        """A free block gives back the whole pages inside it; a range without any goes."""
        span, pool = block.expandable, block.pool
        assert span is not None
        begin = span.base + -(-(block.address - span.base) // span.page) * span.page
        end = span.base + (block.address + block.size - span.base) // span.page * span.page
        if begin < end:
            pool.remove(block)
            if block.address < begin:
                self._split_off(block, begin - block.address)
            if end < block.address + block.size:
                rest = Block(pool, end, block.address + block.size - end, FREE, span)
                _follow(block, rest)
                pool.add(rest)
                block.size = end - block.address
            block.state = UNMAPPED
            self._driver.unmap(block.address, block.size)
            self.mapped -= block.size
            self.unmaps += 1
            self._join(block)
            pool.add_unmapped(block)
        if block.before is None and block.after is None and block.state == UNMAPPED:
            pool.remove_unmapped(block)
            del self.heads[span.base]

    def cover(self, pool: Pool, address: int, size: int) -> None:
        """Pages at ``address``, where the pool has addresses without memory, or in a new range."""
        for block in pool.unmapped:
            if block.address <= address and address + size <= block.address + block.size:
                break
        else:
            block = self._range(pool)
        if block.address < address:
            rest = Block(pool, address, block.address + block.size - address, UNMAPPED, block.expandable)
            block.size -= rest.size
            _follow(block, rest)
            pool.add_unmapped(rest)
            block = rest
        self._map(block, size)

    def _split_off(self, block: Block, nbytes: int) -> None:
        """The first ``nbytes`` stay a free block before ``block``."""
        first = Block(block.pool, block.address, nbytes, FREE, block.expandable)
        first.before, first.after = block.before, block
        if block.before is None:
            self.heads[block.address] = first
        else:
            block.before.after = first
        block.before = first
        block.address += nbytes
        block.size -= nbytes
        block.pool.add(first)

    def _candidate(self, pool: Pool, size: int) -> Block:
        """The lowest block from which free and unmapped addresses reach ``size``; a new range where there is none."""
        for hole in pool.unmapped:
            first = hole.before if hole.before is not None and hole.before.state == FREE else hole
            found, block = 0, first
            while found < size and block.state in (FREE, UNMAPPED):
                found += block.size
                if block.after is None:
                    break
                block = block.after
            if found >= size:
                return first
        return self._range(pool)

    def _range(self, pool: Pool) -> Block:
        """A new range, nothing of it mapped."""
        page = SMALL_SEGMENT if pool.small else self._page
        span = Range(0, page, -(-(self._total + self._total // 8) // page) * page)
        span.base = self._driver.reserve(span.size)
        block = Block(pool, span.base, span.size, UNMAPPED, span)
        self.heads[span.base] = block
        pool.add_unmapped(block)
        return block

    def _map(self, block: Block, size: int) -> bool:
        """Pages behind the first ``size`` bytes of an unmapped block, which then is free and one with its free neighbours."""
        span, pool = block.expandable, block.pool
        assert span is not None
        size = -(-size // span.page) * span.page
        if not self._driver.map(block.address, size):
            return False
        pool.remove_unmapped(block)
        if size < block.size:
            rest = Block(pool, block.address + size, block.size - size, UNMAPPED, span)
            _follow(block, rest)
            pool.add_unmapped(rest)
            block.size = size
        block.state = FREE
        self.mapped += size
        self.maps += 1
        self._join(block)
        pool.add(block)
        return True

    def _join(self, block: Block) -> None:
        """``block``, itself in no list, takes in the neighbours of its own state."""
        pool = block.pool
        forget = pool.remove if block.state == FREE else pool.remove_unmapped
        near = block.before
        if near is not None and near.state == block.state:
            forget(near)
            block.address = near.address
            block.size += near.size
            block.before = near.before
            if near.before is None:
                self.heads[near.address] = block
            else:
                near.before.after = block
        near = block.after
        if near is not None and near.state == block.state:
            forget(near)
            block.size += near.size
            block.after = near.after
            if near.after is not None:
                near.after.before = block


def fitting(pool: Pool, at: int, wanted: bool) -> int:
    """Where free block number ``at`` of a pool is part of a range: the number of the one that is taken instead. If ranges are ``wanted``,
    the first that could grow to least; else the next that is in no range."""
    keys, blocks = pool.keys, pool.blocks
    if wanted:
        while blocks[keys[at]].expandable and at + 1 < len(keys) and _reach(blocks[keys[at + 1]]) < _reach(blocks[keys[at]]):
            at += 1
        return at
    at += 1
    while at < len(keys) and blocks[keys[at]].expandable:
        at += 1
    return at


def _reach(block: Block) -> int:
    after = block.after
    return block.size + (after.size if after is not None and after.state == UNMAPPED else 0)


def _follow(block: Block, rest: Block) -> None:
    """``rest`` comes right after ``block``."""
    rest.before, rest.after = block, block.after
    if block.after is not None:
        block.after.before = rest
    block.after = rest
