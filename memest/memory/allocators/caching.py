"""torch's CUDA caching allocator: what a stream of requests makes it reserve, where each block lies, and when a card is full.

Requests are rounded to 512 bytes and taken from the pool of their stream and kind (small: up to 1 MiB), the smallest free block first,
of equal ones the lowest address. A block is split where at least 512 bytes are left (small), or more than 1 MiB (large); else it is
handed out, and counted, whole. Without a fitting block a segment is asked of the driver: 2 MiB, 20 MiB, or from 10 MiB on the request
rounded up to 2 MiB. If there is none, cached segments go back and it is asked once more. Free neighbours become one block.

Source: pytorch's c10/cuda/CUDACachingAllocator.cpp and c10/core/AllocatorConfig.h (torch 2.9 to 2.14); captured graphs and pools of the
user's own are not described. A step takes O(log n) comparisons, n being the free blocks of a pool.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from memest.errors import OutOfMemoryError, UsageError
from memest.memory.allocators.blocks import (
    AWAITING,
    FREE,
    GRANULE,
    LARGE_FROM,
    SMALL,
    SMALL_SEGMENT,
    SMALLEST,
    UNMAPPED,
    USED,
    Block,
    Driver,
    Pool,
)
from memest.memory.allocators.expandable import Expansion, fitting
from memest.memory.allocators.settings import DEFAULT, UNLIMITED, Settings
from memest.sizes.units import format_bytes

SPACE = 1 << 40  # of addresses for an expandable segment where no card is named


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """What the allocator held when a request failed. ``asked`` is the rounded request, ``segment`` what was asked of the driver for it,
    ``free`` what the driver had left, ``largest`` the largest free block that the request could have come from."""

    asked: int
    segment: int
    stream: int
    capacity: int
    free: int
    allocated: int
    reserved: int
    largest: int

    @property
    def cached(self) -> int:
        """Bytes reserved and not allocated, all in segments that are partly in use."""
        return self.reserved - self.allocated

    def __str__(self) -> str:
        return (
            f"CUDA out of memory: {format_bytes(self.asked)} asked for, {format_bytes(self.free)} free of {format_bytes(self.capacity)}, "
            f"{format_bytes(self.allocated)} allocated, {format_bytes(self.cached)} reserved and unallocated, "
            f"the largest free block {format_bytes(self.largest)}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Bytes by the names of ``torch.cuda.memory_stats``, now and at most, and what was done to get there."""

    allocated: int
    reserved: int
    active: int
    requested: int
    allocated_peak: int
    reserved_peak: int
    active_peak: int
    requested_peak: int
    inactive_split: int
    segments: int
    num_alloc_retries: int
    num_ooms: int
    num_oom_rejections: int
    num_device_alloc: int
    num_device_free: int


class CachingAllocator:
    """Plays requests one by one. ``capacity`` is what the driver can give (None: everything), ``total`` the card's memory, of which
    fractions are taken (without it: ``capacity``)."""

    def __init__(
        self, settings: Settings = DEFAULT, *, capacity: int | None = None, total: int | None = None, driver: Driver | None = None
    ) -> None:
        self.settings = settings
        self.driver = Driver(capacity) if driver is None else driver
        self.allocated = self.active = self.requested = self.reserved = 0
        self.allocated_peak = self.active_peak = self.requested_peak = self.reserved_peak = 0
        self.num_alloc_retries = self.num_ooms = self.num_oom_rejections = 0
        self.shortage: Shortage | None = None  # of the last request that failed
        self._mallocs = self._frees = self._mapped = 0
        memory = total if total is not None else self.driver.capacity
        fraction = settings.per_process_memory_fraction
        if fraction < 1 and memory is None:
            raise UsageError("alloc_conf: per_process_memory_fraction is a part of a card, and no card is given")
        self._memory = SPACE if memory is None else memory
        self._allowed = int(fraction * self._memory) if fraction < 1 else UNLIMITED
        # of the two refusals before the driver is asked, the fraction's comes first, and leads to retries
        self._refused = self._memory if settings.throw_on_cudamalloc_oom and fraction == 1 and memory is not None else UNLIMITED
        self._collects = fraction < 1 and settings.garbage_collection_threshold > 0
        self._expansion = Expansion(self.driver, total=self._memory, page=settings.large_segment_size)
        self._small = _Pools(settings, small=True)
        self._large = _Pools(settings, small=False)
        self._heads: dict[int, Block] = {}  # the first block of each segment that was not mapped page by page
        self._waiting: list[Block] = []  # freed while another stream used them
        self._lookups = {True: 0, False: 0}
        self._bump = SMALLEST - 1 + settings.padding
        self._divides = any(d > 1 for d in settings.divisions)
        self._plain = not settings.expandable_segments and settings.max_split_size == UNLIMITED and not self._collects

    def malloc(self, nbytes: int, stream: int = 0) -> Block | None:
        """A block for ``nbytes`` (None for none at all). OutOfMemoryError where the card has no room."""
        if nbytes == 0:
            return None
        if self._waiting:
            self._complete_all()
        size = self.rounded(nbytes) if self._divides else nbytes + self._bump & -SMALLEST
        pool = (self._small if size <= SMALL else self._large)[stream]
        block: Block | None
        if self._plain:
            keys = pool.keys
            at = bisect_left(keys, size << 64)
            block = pool.blocks.pop(keys.pop(at)) if at < len(keys) else None
        else:
            block = self._found(pool, size)
        if block is None:
            block = self._grown(pool, size)
        left = block.size - size
        if left > pool.least and size < pool.below:
            rest = Block(pool, block.address + size, left, FREE, block.expandable)
            after = block.after
            rest.before = block
            block.after = rest
            if after is not None:
                rest.after = after
                after.before = rest
            block.size = size
            key = left << 64 | rest.address
            pool.blocks[key] = rest
            insort(pool.keys, key)
            if self._collects:
                rest.born = self._lookups[pool.small]
        block.state = USED
        block.asked = nbytes
        self.allocated += block.size
        self.active += block.size
        self.requested += nbytes
        if self.allocated > self.allocated_peak:
            self.allocated_peak = self.allocated
        if self.active > self.active_peak:
            self.active_peak = self.active
        if self.requested > self.requested_peak:
            self.requested_peak = self.requested
        return block

    def free(self, block: Block | None) -> None:
        """``block`` goes back, at the next request if other streams used it (their work is taken to be done by then)."""
        if block is None:
            return
        self.request_free(block)
        if block.uses:
            self._waiting.append(block)
        else:
            self.complete_free(block)

    def record_stream(self, block: Block, stream: int) -> None:
        """``block`` is used on another stream than its own."""
        if stream != block.pool.stream:
            block.uses += 1

    def request_free(self, block: Block) -> None:
        """The first half of a release: no longer allocated, still active."""
        if block.state != USED:
            raise UsageError(f"free: the block at {block.address:#x} is not allocated")
        block.state = AWAITING
        self.allocated -= block.size

    def complete_free(self, block: Block) -> None:
        """The second half: the block may be handed out again, as one with its free neighbours."""
        self.active -= block.size
        self.requested -= block.asked
        block.uses = 0
        pool = block.pool
        keys, blocks = pool.keys, pool.blocks
        near = block.after
        if near is not None and near.state == FREE:
            key = near.size << 64 | near.address
            del blocks[key], keys[bisect_left(keys, key)]
            block.size += near.size
            block.after = after = near.after
            if after is not None:
                after.before = block
        near = block.before
        if near is not None and near.state == FREE:
            key = near.size << 64 | near.address
            del blocks[key], keys[bisect_left(keys, key)]
            near.size += block.size
            near.after = after = block.after
            if after is not None:
                after.before = near
            block = near
        block.state = FREE
        key = block.size << 64 | block.address
        blocks[key] = block
        insort(keys, key)
        if self._collects:
            block.born = self._lookups[pool.small]

    def answers(self) -> tuple[Any, ...] | None:
        """What decides how requests are answered, besides which blocks are in use: two moments with the same blocks in use that are equal
        in it answer the same requests the same way. None where the past decides, too."""
        if self._collects or self._waiting:
            return None
        free = (tuple(pools[stream].keys) for pools in (self._small, self._large) for stream in sorted(pools))
        return (self._mallocs, self._frees, self._expansion.maps, self._expansion.unmaps, *free)

    def empty_cache(self) -> None:
        """Every segment without a block in use goes back to the driver, and every whole page inside free blocks."""
        self._complete_all()
        for pools in (self._large, self._small):
            for stream in sorted(pools):
                pool = pools[stream]
                free = [pool.blocks[key] for key in pool.keys]
                for block in free:
                    if block.expandable is None and block.before is None and block.after is None:
                        self.release_segment(block)
                for block in free:
                    if block.expandable is not None:
                        self._expansion.shrink(block)
        self._update_reserved()

    def release_segment(self, block: Block) -> None:
        """A free block that is a whole segment goes back to the driver."""
        block.pool.remove(block)
        del self._heads[block.address]
        self.driver.release(block.address, block.size)
        self.reserved -= block.size
        self._frees += 1

    def switch(self, *, expandable: bool) -> None:
        """``expandable_segments`` from here on; blocks of the other kind stay, and are found by what may use them."""
        self.settings = replace(self.settings, expandable_segments=expandable)
        self._plain = False
        for pools in (self._small, self._large):
            pools.rule(self.settings)

    def pool(self, stream: int, *, small: bool) -> Pool:
        """The free blocks of a stream, small or large."""
        return (self._small if small else self._large)[stream]

    def adopt(self, first: Block, size: int) -> None:
        """A segment of ``size`` bytes that stood before, by the first of its blocks, with what they hold."""
        self._heads[first.address] = first
        self.reserved += size
        self._hold(first)

    def adopt_range(self, first: Block, mapped: int) -> None:
        """An expandable segment that stood before, with ``mapped`` bytes of pages."""
        self._expansion.heads[first.address] = first
        self._expansion.mapped += mapped
        self._hold(first)

    def _hold(self, first: Block) -> None:
        for block in _along(first):
            if block.state in (USED, AWAITING):
                self.count(block)
        self._update_reserved()

    def count(self, block: Block) -> None:
        """A block that is in use without :meth:`malloc`."""
        self.active += block.size
        self.requested += block.asked
        self.allocated += block.size if block.state == USED else 0
        self.active_peak, self.requested_peak = max(self.active_peak, self.active), max(self.requested_peak, self.requested)
        self.allocated_peak = max(self.allocated_peak, self.allocated)

    def head(self, address: int) -> Block | None:
        """The first block of the segment at ``address``, if there is one that is not expandable."""
        return self._heads.get(address)

    def shrink(self, block: Block) -> None:
        """A free block of an expandable segment gives back the whole pages inside it."""
        self._expansion.shrink(block)
        self._update_reserved()

    def cover(self, pool: Pool, address: int, nbytes: int) -> None:
        """Pages are mapped at ``address`` without a request."""
        self._expansion.cover(pool, address, nbytes)
        self._update_reserved()

    def segments(self) -> Iterator[tuple[Block, int]]:
        """The first block and the bytes of each segment (of each run of mapped pages), by address."""
        firsts = [b for head in self._expansion.heads.values() for b in _along(head) if b.state != UNMAPPED]
        firsts = [b for b in firsts if b.before is None or b.before.state == UNMAPPED]
        for first in sorted([*self._heads.values(), *firsts], key=lambda b: b.address):
            yield first, sum(b.size for b in blocks_of(first))

    def statistics(self) -> Statistics:
        """Where the allocator stands."""
        return Statistics(
            allocated=self.allocated,
            reserved=self.reserved,
            active=self.active,
            requested=self.requested,
            allocated_peak=self.allocated_peak,
            reserved_peak=self.reserved_peak,
            active_peak=self.active_peak,
            requested_peak=self.requested_peak,
            inactive_split=self._inactive_split(),
            segments=len(self._heads),
            num_alloc_retries=self.num_alloc_retries,
            num_ooms=self.num_ooms,
            num_oom_rejections=self.num_oom_rejections,
            num_device_alloc=self._mallocs + self._expansion.maps,
            num_device_free=self._frees + self._expansion.unmaps,
        )

    def reset_peaks(self) -> None:
        """Peaks count from here."""
        self.allocated_peak, self.active_peak = self.allocated, self.active
        self.requested_peak, self.reserved_peak = self.requested, self.reserved

    def rounded(self, nbytes: int) -> int:
        """Up to 512 bytes, or to the next of so many steps between powers of two (roundup_power2_divisions)."""
        nbytes += self.settings.padding
        if nbytes < SMALLEST:
            return SMALLEST
        bits = nbytes.bit_length()
        steps = self.settings.divisions[min(max(bits - 21, 0), len(self.settings.divisions) - 1)]
        if steps > 1 and nbytes > SMALLEST * steps:
            if nbytes & (nbytes - 1) == 0:
                return nbytes
            step = (1 << (bits - 1)) // steps
            return -(-nbytes // step) * step
        return nbytes + SMALLEST - 1 & -SMALLEST

    def _found(self, pool: Pool, size: int) -> Block | None:
        """The free block for ``size`` under the settings that narrow the choice, out of its pool."""
        if self._collects:
            self._lookups[pool.small] += 1
        keys, blocks = pool.keys, pool.blocks
        at = bisect_left(keys, size << 64)
        if at < len(keys) and blocks[keys[at]].expandable is not None:
            at = fitting(pool, at, self.settings.expandable_segments)
        if at >= len(keys):
            return None
        has, limit = keys[at] >> 64, self.settings.max_split_size
        if size < limit <= has or (size >= limit and has >= size + self.settings.max_non_split_rounding):
            return None
        return blocks.pop(keys.pop(at))

    def _grown(self, pool: Pool, size: int) -> Block:
        """A block from the driver: at once, after oversize blocks went, after all cached ones went; else OutOfMemoryError."""
        segment = self._segment_size(size)
        if self._collects:
            self._collect()
        block = self._taken(pool, size, segment)
        if block is None and self.settings.max_split_size != UNLIMITED and self._release_oversize(pool, size):
            block = self._taken(pool, size, segment)
        if block is None:
            self.empty_cache()
            self.num_alloc_retries += 1
            block = self._taken(pool, size, segment)
        if block is None:
            self.num_ooms += 1
            raise self._out_of_memory(pool, size, segment)
        return block

    def _segment_size(self, size: int) -> int:
        if size <= SMALL:
            return SMALL_SEGMENT
        if size < LARGE_FROM:
            return self.settings.large_segment_size
        return -(-size // GRANULE) * GRANULE

    def _taken(self, pool: Pool, size: int, segment: int) -> Block | None:
        """A new segment, or a range that grew; None where the driver, or the allowed fraction, has no room. OutOfMemoryError where
        throw_on_cudamalloc_oom refuses."""
        if self.reserved + segment > self._allowed:
            return None
        if self.reserved + segment > self._refused:
            self.num_oom_rejections += 1
            raise self._out_of_memory(pool, size, segment)
        if self.settings.expandable_segments:
            found = self._expansion.take(pool, size)
            self._update_reserved()
            return found
        address = self.driver.malloc(segment)
        if address is None:
            return None
        block = Block(pool, address, segment, USED)
        self._heads[address] = block
        self.reserved += segment
        self._mallocs += 1
        self._update_reserved()
        return block

    def _update_reserved(self) -> None:
        """Mapped pages count as reserved, too."""
        self.reserved += self._expansion.mapped - self._mapped
        self._mapped = self._expansion.mapped
        if self.reserved > self.reserved_peak:
            self.reserved_peak = self.reserved

    def _release_oversize(self, pool: Pool, size: int) -> bool:
        """Blocks that are never split go back, the fitting one or the largest, until they cover ``size``; False where they do not."""
        keys, limit = pool.keys, self.settings.max_split_size
        wanted, released = max(size, limit), 0
        at = bisect_left(keys, wanted << 64)
        if at < len(keys):
            self.release_segment(pool.blocks[keys[at]])
            return True
        while released < wanted and keys and keys[-1] >> 64 >= limit:
            released += keys[-1] >> 64
            self.release_segment(pool.blocks[keys[-1]])
        return released >= wanted

    def _collect(self) -> None:
        """garbage_collection_threshold: unsplit large blocks at least as old as the mean go back, until enough did."""
        bound = int(self.settings.garbage_collection_threshold * self._allowed)
        target, freed = self.reserved - bound, 0
        if target <= 0:
            return
        now = self._lookups[False]
        whole = [b for stream in sorted(self._large) for b in self._large[stream].blocks.values() if b.before is None and b.after is None]
        whole = [b for b in whole if b.expandable is None]
        age = sum(now - b.born for b in whole)
        while freed < target and whole:
            mean = age / len(whole)
            old = [b for b in whole if now - b.born >= mean]
            whole = [b for b in whole if now - b.born < mean]
            age -= sum(now - b.born for b in old)
            freed += sum(b.size for b in old)
            for block in old:
                self.release_segment(block)

    def _complete_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for block in waiting:
            self.complete_free(block)

    def _inactive_split(self) -> int:
        pools = [*self._small.values(), *self._large.values()]
        free = (b for pool in pools for b in pool.blocks.values() if b.expandable is None)
        return sum(b.size for b in free if b.before is not None or b.after is not None)

    def _out_of_memory(self, pool: Pool, size: int, segment: int) -> OutOfMemoryError:
        free = self.driver.free
        left = self._allowed - self.reserved
        self.shortage = Shortage(
            asked=size,
            segment=segment,
            stream=pool.stream,
            capacity=min(self._memory if self.driver.capacity is None else self.driver.capacity, self._allowed),
            free=left if free is None else min(free, left),
            allocated=self.allocated,
            reserved=self.reserved,
            largest=pool.largest,
        )
        return OutOfMemoryError(str(self.shortage))


def blocks_of(first: Block) -> Iterator[Block]:
    """A segment's blocks that have memory, from its first on."""
    for block in _along(first):
        if block.state == UNMAPPED:
            return
        yield block


def _along(first: Block) -> Iterator[Block]:
    block: Block | None = first
    while block is not None:
        yield block
        block = block.after


class _Pools(dict[int, Pool]):
    """A pool for each stream, made when first asked for."""

    def __init__(self, settings: Settings, *, small: bool) -> None:
        super().__init__()
        self.small = small
        self.rule(settings)

    def rule(self, settings: Settings) -> None:
        """When the blocks of all of them are split."""
        often = self.small or settings.expandable_segments
        self.least, self.below = (SMALLEST - 1, UNLIMITED) if often else (SMALL, settings.max_split_size)
        for pool in self.values():
            pool.least, pool.below = self.least, self.below

    def __missing__(self, stream: int) -> Pool:
        pool = self[stream] = Pool(stream, small=self.small, least=self.least, below=self.below)
        return pool
