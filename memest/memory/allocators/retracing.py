"""A recorded history played again: does every allocation come at its recorded address, and where do record and replay part?

New segments take their addresses from the record, and what the driver gave back goes when the record says so; which block answers a
request, when a new segment is asked for, how large it is, and what is split or merged is decided here and compared. A record whose
beginning is lost (a ring buffer that was full) starts from the state that its events, undone from the end, leave. Blocks of that state
that are given back later have their size from what lies behind them: in the large pool up to 1 MiB more than was asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from memest.errors import OutOfMemoryError
from memest.memory.allocators.beginning import beginning
from memest.memory.allocators.blocks import FREE, LARGE_FROM, SMALL, SMALL_SEGMENT, SMALLEST, USED, Block, Driver
from memest.memory.allocators.caching import CachingAllocator, Statistics, blocks_of
from memest.memory.allocators.history import Entry, History
from memest.memory.allocators.restoring import carve, restore
from memest.memory.allocators.settings import Settings

PADDINGS = {0: "torch's CUDA allocator", 32: "an allocator that adds 32 bytes to each request, as torch_npu's does"}
MAX_PARTINGS = 1000


class Parting(NamedTuple):
    """An event of the record that the replay answers otherwise."""

    event: int
    why: str


class Lifetime(NamedTuple):
    """An allocation: the numbers of the events that made and ended it (-1: before the record; None: it stands at the end)."""

    start: int
    end: int | None
    size: int
    asked: int
    lane: int
    stack: int


class Exhaustion(NamedTuple):
    """An ``oom`` of the record: what was asked for, what the driver had left, and what the allocator held."""

    event: int
    asked: int
    device_free: int
    allocated: int
    reserved: int
    largest: int
    lane: int
    stack: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Retraced:
    """What came out. ``placed`` of ``allocations`` came at their recorded address; ``layout`` says whether segments and blocks stand at the
    end as recorded. Peaks carry the number of the event that first reached them."""

    padding: int
    allocations: int
    placed: int
    partings: tuple[Parting, ...]
    given_up_at: int | None
    layout: bool
    began_with: int
    allocated: int
    allocated_at: int
    reserved: int
    reserved_at: int
    lifetimes: tuple[Lifetime, ...]
    exhaustions: tuple[Exhaustion, ...]
    at_peak: Statistics


def retrace(history: History) -> Retraced:
    """The replay under the history's settings, by the allocator of the family that agrees with most of it."""
    history = replace(history, settings=replace(history.settings, large_segment_size=_large_segment(history)))
    best: Retraced | None = None
    for padding in PADDINGS:
        found = _Player(history, padding).played()
        if best is None or found.placed > best.placed:
            best = found
        if best.placed == best.allocations and best.layout:
            break
    assert best is not None  # there are paddings
    return replace(best, at_peak=_Player(history, best.padding).until(best.allocated_at))


def _large_segment(history: History) -> int:
    """What the record itself shows to be asked of the driver for a request of 1 to 10 MiB; files seldom say it."""
    seen: Counter[int] = Counter()
    rounded = CachingAllocator(history.settings).rounded
    for grown, entry in pairwise(history.entries):
        if (
            grown.action in ("segment_alloc", "segment_map")
            and entry.action == "alloc"
            and SMALL < rounded(entry.size) < LARGE_FROM - SMALLEST
        ):
            seen[grown.size] += 1
    return seen.most_common(1)[0][0] if seen else history.settings.large_segment_size


class _Parted(Exception):  # noqa: N818 - it is caught one call above
    """Where the driver is asked for something that the record does not have there."""


class RecordedDriver(Driver):
    """A driver that gives what the record says it gave: its segments and pages, in its order."""

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[Entry] = []
        self.unmapped: tuple[int, int] | None = None

    def malloc(self, nbytes: int) -> int | None:
        """The next segment of the record, of the same size."""
        if not self.pending:
            raise _Parted(f"the record has a cached block for it, the replay none: it asks for a segment of {nbytes:,} bytes")
        entry = self.pending[0]
        if entry.action != "segment_alloc" or entry.size != nbytes:
            raise _Parted(f"the record asks the driver for {entry.size:,} bytes ({entry.action}), the replay for {nbytes:,}")
        return self.pending.pop(0).address

    def reserve(self, nbytes: int) -> int:
        """Where the record maps its next pages."""
        if not self.pending or self.pending[0].action != "segment_map":
            raise _Parted("the replay begins an expandable segment, the record does not")
        return self.pending[0].address

    def map(self, address: int, nbytes: int) -> bool:
        """The next pages of the record, at the same place."""
        if not self.pending:
            raise _Parted(f"the record has room for it, the replay maps {nbytes:,} bytes more")
        entry = self.pending[0]
        if (entry.action, entry.address, entry.size) != ("segment_map", address, nbytes):
            raise _Parted(f"the record maps {entry.size:,} bytes at {entry.address:#x}, the replay {nbytes:,} at {address:#x}")
        self.pending.pop(0)
        return True

    def unmap(self, address: int, nbytes: int) -> None:
        """Noted, to be compared."""
        self.unmapped = (address, nbytes)

    def release(self, address: int, nbytes: int) -> None:
        """Nothing to be done."""


class _Player:
    """One replay."""

    def __init__(self, history: History, padding: int) -> None:
        self._history = history
        self._driver = RecordedDriver()
        # what these settings make the allocator give back is in the record
        settings = replace(
            history.settings,
            padding=padding,
            garbage_collection_threshold=0.0,
            per_process_memory_fraction=1.0,
            throw_on_cudamalloc_oom=False,
        )
        self._allocator = CachingAllocator(settings, driver=self._driver)
        start = beginning(history, self._allocator)
        self._blocks = restore(self._allocator, start.spans, start.live)
        self._began_with = self._allocator.reserved
        self._padding = padding
        growth = [e.action == "segment_map" for e in history.entries if e.action in ("segment_alloc", "segment_map")]
        self._switched = len(set(growth)) > 1  # expandable segments were turned on or off meanwhile
        if self._switched:
            self._allocator.switch(expandable=growth[0])
        self._lifetimes = [Lifetime(-1, None, b.size, b.asked, b.pool.stream, start.stacks[a]) for a, b in self._blocks.items()]
        self._open = {address: at for at, address in enumerate(self._blocks)}
        self._partings: list[Parting] = []
        self._exhaustions: list[Exhaustion] = []
        self._placed = 0
        self._lost = False  # the driver has something back that the replay still holds

    def until(self, event: int) -> Statistics:
        """Where the allocator stands after an event."""
        for at, entry in enumerate(self._history.entries[: event + 1]):
            self._step(at, entry)
        return self._allocator.statistics()

    def played(self) -> Retraced:
        """All of it, or as much as can be followed."""
        allocator, entries = self._allocator, self._history.entries
        allocated, allocated_at, reserved, reserved_at = allocator.allocated, -1, allocator.reserved, -1
        given_up_at = None
        for at, entry in enumerate(entries):
            if self._lost or len(self._partings) >= MAX_PARTINGS:
                given_up_at = at
                break
            self._step(at, entry)
            if allocator.allocated > allocated:
                allocated, allocated_at = allocator.allocated, at
            if allocator.reserved > reserved:
                reserved, reserved_at = allocator.reserved, at
        return Retraced(
            padding=self._padding,
            allocations=sum(e.action == "alloc" for e in entries),
            placed=self._placed,
            partings=tuple(self._partings),
            given_up_at=given_up_at,
            layout=given_up_at is None and self._as_recorded(),
            began_with=self._began_with,
            allocated=allocated,
            allocated_at=allocated_at,
            reserved=reserved,
            reserved_at=reserved_at,
            lifetimes=tuple(self._lifetimes),
            exhaustions=tuple(self._exhaustions),
            at_peak=allocator.statistics(),
        )

    def _step(self, at: int, entry: Entry) -> None:
        action = entry.action
        if action == "alloc":
            self._allocate(at, entry)
        elif action in ("free_requested", "free_completed"):
            self._free(at, entry)
        elif action in ("segment_alloc", "segment_map"):
            self._driver.pending.append(entry)
        elif action in ("segment_free", "segment_unmap"):
            self._take_over_pending()
            self._give_back(at, entry)
        elif action == "oom":
            self._take_over_pending()
            a = self._allocator
            small = entry.size <= SMALL
            largest = a.pool(entry.lane, small=small).largest
            self._exhaustions.append(Exhaustion(at, entry.size, entry.address, a.allocated, a.reserved, largest, entry.lane, entry.stack))
            if largest >= entry.size:
                self._part(at, f"the record has no room for {entry.size:,} bytes, the replay a free block of {largest:,}")

    def _allocate(self, at: int, entry: Entry) -> None:
        """One allocation, compared; where the replay parts, it goes on from where the record is."""
        block, why = None, ""
        if self._switched and self._driver.pending:
            self._allocator.switch(expandable=self._driver.pending[0].action == "segment_map")
        try:
            block = self._allocator.malloc(entry.size, entry.lane)
        except _Parted as parted:
            why = str(parted)
        if block is None and not why:
            return  # no bytes
        if block is not None and block.address != entry.address:
            why = f"recorded at {entry.address:#x}, replayed at {block.address:#x}"
        elif block is not None and self._driver.pending:
            why = "the record asks the driver for more, the replay finds a free block"
        if why:
            self._part(at, f"{entry.size:,} bytes: {why}")
            if block is not None:
                self._allocator.free(block)
            self._take_over_pending()
            block = self._placed_at(entry)
        else:
            self._placed += 1
        if block is not None:
            self._blocks[entry.address] = block
            self._open[entry.address] = len(self._lifetimes)
            self._lifetimes.append(Lifetime(at, None, block.size, entry.size, entry.lane, entry.stack))

    def _free(self, at: int, entry: Entry) -> None:
        """Half of a release, or both where the record has lost the first."""
        block = self._blocks.get(entry.address)
        if block is None:
            return  # of an allocation that could not be followed
        if block.state == USED:
            self._allocator.request_free(block)
            number = self._open.pop(entry.address)
            self._lifetimes[number] = self._lifetimes[number]._replace(end=at)
        if entry.action == "free_completed":
            self._allocator.complete_free(self._blocks.pop(entry.address))

    def _give_back(self, at: int, entry: Entry) -> None:
        """Memory that the driver got back, which must be free here, too."""
        if entry.action == "segment_free":
            block = self._allocator.head(entry.address)
            if block is None or block.state != FREE or block.after is not None or block.size != entry.size:
                self._part(at, f"a segment of {entry.size:,} bytes goes back to the driver, in the replay it is in use")
                self._lost = True
            else:
                self._allocator.release_segment(block)
            return
        block, self._driver.unmapped = self._free_block(entry), None
        if block is not None and block.expandable is not None:
            self._allocator.shrink(block)
        if self._driver.unmapped != (entry.address, entry.size):
            self._part(at, f"{entry.size:,} bytes at {entry.address:#x} are unmapped, in the replay {self._driver.unmapped or 'none'}")
            self._lost = True

    def _free_block(self, entry: Entry) -> Block | None:
        """The free block that holds an address."""
        for small in (True, False):
            for block in self._allocator.pool(entry.lane, small=small).blocks.values():
                if block.address <= entry.address < block.address + block.size:
                    return block
        return None

    def _take_over_pending(self) -> None:
        """Segments and pages that the record got, and the replay did not ask for, stand free."""
        pending, page = self._driver.pending, self._allocator.settings.large_segment_size
        while pending:
            _, address, size, lane, _ = entry = pending[0]
            paged = entry.action == "segment_map"
            pool = self._allocator.pool(lane, small=size % page != 0 if paged else size == SMALL_SEGMENT)
            if paged:
                with suppress(_Parted):
                    self._allocator.cover(pool, address, size)
            else:
                pool.add(block := Block(pool, address, size, FREE))
                self._allocator.adopt(block, size)
            if pending and pending[0] is entry:
                del pending[0]

    def _placed_at(self, entry: Entry) -> Block | None:
        """The block of an allocation where the record has it; None where that place is not free here."""
        block = self._free_block(entry)
        return None if block is None else carve(self._allocator, block, entry.address, entry.size)

    def _part(self, event: int, why: str) -> None:
        self._partings.append(Parting(event, why))

    def _as_recorded(self) -> bool:
        """True where segments and blocks are those of the record."""
        ours = [(first.address, size, tuple(_layout(first))) for first, size in self._allocator.segments()]
        return ours == [(s.address, s.size, tuple((p.address, p.size, p.state) for p in s.pieces)) for s in self._history.segments]


def _layout(first: Block) -> Iterator[tuple[int, int, int]]:
    for block in blocks_of(first):
        yield block.address, block.size, block.state


@dataclass(frozen=True, slots=True, kw_only=True)
class Otherwise:
    """The same requests under other settings: bytes reserved at most, and whether there was room for all of them."""

    reserved: int
    fits: bool


def otherwise(found: Retraced, settings: Settings, *, until: Exhaustion | None = None) -> Otherwise:
    """Plays a record's requests and releases from empty, what stood before it first. With ``until``, on the memory there was then, and up
    to the request that failed there. What the program itself gave back to the driver stays here as long as there is room."""
    capacity = None if until is None else until.reserved + until.device_free
    allocator = CachingAllocator(settings, capacity=capacity)
    last = None if until is None else until.event
    moments = [(lifetime.start, True, number) for number, lifetime in enumerate(found.lifetimes)]
    moments += [(lifetime.end, False, number) for number, lifetime in enumerate(found.lifetimes) if lifetime.end is not None]
    live: dict[int, Block | None] = {}
    try:
        for event, begins, number in sorted(moments):
            if last is not None and event > last:
                break
            lifetime = found.lifetimes[number]
            if begins:
                live[number] = allocator.malloc(lifetime.asked, lifetime.lane)
            else:
                allocator.free(live.pop(number))
        if until is not None:
            allocator.malloc(until.asked, until.lane)
    except OutOfMemoryError:
        return Otherwise(reserved=allocator.reserved_peak, fits=False)
    return Otherwise(reserved=allocator.reserved_peak, fits=True)
