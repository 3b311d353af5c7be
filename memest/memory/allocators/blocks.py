"""What a caching allocator keeps: blocks of segments, pools of free blocks in the order of best fit, and the driver behind it."""

from __future__ import annotations

from bisect import bisect_left, insort
from operator import attrgetter

MIB = 1 << 20
SMALLEST = 512  # every block is a multiple of it
SMALL = 1 * MIB  # the largest request of the small pool
SMALL_SEGMENT = 2 * MIB
LARGE_FROM = 10 * MIB  # from here on a segment is as large as the request
GRANULE = 2 * MIB  # that segments are rounded to, and their addresses aligned to
FIRST_ADDRESS = 0x700000000000

FREE, USED, AWAITING, UNMAPPED = range(4)  # AWAITING: freed, but another stream may still use it


_ADDRESS = attrgetter("address")


class Range:
    """Addresses set aside for an expandable segment, to be backed by pages."""

    __slots__ = ("base", "page", "size")

    def __init__(self, base: int, page: int, size: int) -> None:
        self.base = base
        self.page = page
        self.size = size


class Block:
    """A piece of a segment, between its neighbours ``before`` and ``after``; ``asked`` is the request that it answers."""

    __slots__ = ("address", "after", "asked", "before", "born", "expandable", "pool", "size", "state", "uses")

    def __init__(self, pool: Pool, address: int, size: int, state: int, expandable: Range | None = None) -> None:
        self.pool = pool
        self.address = address
        self.size = size
        self.state = state
        self.expandable = expandable
        self.asked = 0
        self.before: Block | None = None
        self.after: Block | None = None
        self.born = 0
        self.uses = 0


class Pool:
    """Free blocks of one stream, small or large, by size and then address. ``least`` and ``below`` are the rule of splitting: more than
    ``least`` must be left, and the request be smaller than ``below``."""

    __slots__ = ("below", "blocks", "keys", "least", "small", "stream", "unmapped")

    def __init__(self, stream: int, *, small: bool, least: int, below: int) -> None:
        self.stream = stream
        self.small = small
        self.least = least
        self.below = below
        self.keys: list[int] = []
        self.blocks: dict[int, Block] = {}
        self.unmapped: list[Block] = []  # by address

    def add(self, block: Block) -> None:
        """A block that became free."""
        key = block.size << 64 | block.address
        self.blocks[key] = block
        insort(self.keys, key)

    def remove(self, block: Block) -> None:
        """A free block that is taken, merged or given back."""
        key = block.size << 64 | block.address
        del self.blocks[key]
        del self.keys[bisect_left(self.keys, key)]

    @property
    def largest(self) -> int:
        """Bytes of the largest of them."""
        return self.keys[-1] >> 64 if self.keys else 0

    def add_unmapped(self, block: Block) -> None:
        """Addresses without memory behind them."""
        insort(self.unmapped, block, key=_ADDRESS)

    def remove_unmapped(self, block: Block) -> None:
        """Addresses that get memory, or go."""
        del self.unmapped[self.unmapped.index(block, bisect_left(self.unmapped, block.address, key=_ADDRESS))]


class Driver:
    """cudaMalloc and the mapping of pages: growing addresses, 2 MiB apart, as long as ``capacity`` holds (None: always)."""

    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.used = 0
        self._next = FIRST_ADDRESS

    @property
    def free(self) -> int | None:
        """Bytes that are left, None where nothing bounds them."""
        return None if self.capacity is None else self.capacity - self.used

    def reserve(self, nbytes: int) -> int:
        """Addresses alone."""
        address = self._next
        self._next += -(-nbytes // GRANULE) * GRANULE
        return address

    def map(self, address: int, nbytes: int) -> bool:
        """Memory behind ``nbytes`` of addresses; False where there is none."""
        return self._given(nbytes)

    def unmap(self, address: int, nbytes: int) -> None:
        """The memory behind ``nbytes`` of addresses goes back."""
        self.used -= nbytes

    def malloc(self, nbytes: int) -> int | None:
        """The address of new memory, None where there is none."""
        return self.reserve(nbytes) if self._given(-(-nbytes // GRANULE) * GRANULE) else None

    def release(self, address: int, nbytes: int) -> None:
        """Memory from :meth:`malloc` goes back."""
        self.used -= -(-nbytes // GRANULE) * GRANULE

    def _given(self, nbytes: int) -> bool:
        if self.capacity is not None and self.used + nbytes > self.capacity:
            return False
        self.used += nbytes
        return True
