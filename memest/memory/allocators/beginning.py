"""Where a record began: its end, with every event undone from the last to the first."""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass, field

from memest.errors import FileError
from memest.memory.allocators.blocks import AWAITING, FREE, MIB, SMALL_SEGMENT, USED
from memest.memory.allocators.caching import CachingAllocator
from memest.memory.allocators.history import Entry, History
from memest.memory.allocators.restoring import Live, Span

LEFTOVER = 1 * MIB  # the most that a block of the large pool holds more than was asked for


@dataclass(slots=True)
class Beginning:
    """Segments and live blocks before the first event, by address; ``stacks`` are the frames that asked for the blocks, where known."""

    spans: list[Span] = field(default_factory=list)
    live: dict[int, Live] = field(default_factory=dict)
    stacks: dict[int, int] = field(default_factory=dict)


class _Runs:
    """Runs of mapped pages, by address; those that touch and are of one lane and kind are one."""

    def __init__(self, runs: list[Span]) -> None:
        self.runs = runs

    def around(self, address: int) -> tuple[Span | None, Span | None]:
        """The runs that begin at or below an address, and above it."""
        at = bisect_right(self.runs, (address, 1 << 64))
        return self.runs[at - 1] if at else None, self.runs[at] if at < len(self.runs) else None

    def add(self, run: Span) -> None:
        at = bisect_right(self.runs, run)
        for near in (at, at - 1):  # the one behind first: what stands before keeps its number
            if 0 <= near < len(self.runs):
                other = self.runs[near]
                touches = other.address + other.size == run.address or run.address + run.size == other.address
                if touches and other.lane == run.lane:
                    del self.runs[near]
                    start = min(other.address, run.address)
                    run = Span(start, run.size + other.size, run.lane, other.small, True)
        insort(self.runs, run)

    def remove(self, address: int, size: int) -> None:
        """Pages that were not there yet."""
        at = bisect_right(self.runs, (address, 1 << 64)) - 1
        if at < 0 or self.runs[at].address + self.runs[at].size < address + size:
            return
        run = self.runs.pop(at)
        for start, end in ((run.address, address), (address + size, run.address + run.size)):
            if start < end:
                insort(self.runs, Span(start, end - start, run.lane, run.small, True))


def beginning(history: History, allocator: CachingAllocator) -> Beginning:
    """The state before the first event; ``allocator`` says how requests are rounded. FileError for a record that cannot be."""
    segments: dict[int, Span] = {}
    runs = _Runs([])
    live: dict[int, tuple[int | None, int, int, int]] = {}  # size where it is known, asked, state, stack
    for s in history.segments:
        span = Span(s.address, s.size, s.lane, s.small, s.expandable)
        if s.expandable:
            runs.add(span)
        else:
            segments[s.address] = span
        live |= {p.address: (p.size, p.asked, p.state, p.stack) for p in s.pieces if p.state != FREE}
    for e in reversed(history.entries):
        if e.action == "alloc":
            live.pop(e.address, None)
        elif e.action == "free_completed":
            live[e.address] = (None, e.size, AWAITING, 0)
        elif e.action == "free_requested":
            size, asked, _, stack = live.get(e.address, (None, e.size, USED, 0))
            live[e.address] = (size, asked, USED, stack)
        elif e.action == "segment_alloc":
            segments.pop(e.address, None)
        elif e.action == "segment_free":
            segments[e.address] = Span(e.address, e.size, e.lane, e.size == SMALL_SEGMENT, False)
        elif e.action == "segment_map":
            runs.remove(e.address, e.size)
        elif e.action == "segment_unmap":
            runs.add(Span(e.address, e.size, e.lane, e.size % allocator.settings.large_segment_size != 0, True))
    spans = sorted([*segments.values(), *runs.runs])
    _check(history.entries, spans)
    spans = sorted([*spans, *_lower_ends(history.entries, runs.runs)])
    return _measured(history, allocator, spans, live)


def _check(entries: tuple[Entry, ...], spans: list[Span]) -> None:
    """FileError where memory would stand in two segments at once."""
    starts, ends = [s.address for s in spans], [s.address + s.size for s in spans]
    at = next((i for i in range(1, len(spans)) if ends[i - 1] > starts[i]), None)
    if at is not None:
        raise FileError(f"the record contradicts itself: before its events segments overlap at {starts[at]:#x}")
    for number, e in enumerate(entries):
        if e.action.startswith("segment_") and not e.size:
            raise FileError(f"the record contradicts itself: event {number:,} ({e.action}) is about no bytes")
        at = bisect_right(starts, e.address)
        if e.action in ("segment_alloc", "segment_map"):
            if (at and ends[at - 1] > e.address) or (at < len(starts) and starts[at] < e.address + e.size):
                raise FileError(f"the record contradicts itself: event {number:,} ({e.action}) at {e.address:#x}, where a segment stands")
            starts.insert(at, e.address)
            ends.insert(at, e.address + e.size)
        elif e.action in ("segment_free", "segment_unmap"):
            stop = e.address + e.size
            while at and ends[at - 1] > e.address:  # pages may be unmapped together that were mapped apart
                at -= 1
            while at < len(starts) and starts[at] < stop:
                start, end = starts.pop(at), ends.pop(at)
                for left, right in ((start, e.address), (stop, end)):
                    if left < right:
                        starts.insert(at, left)
                        ends.insert(at, right)
                        at += 1


def _lower_ends(entries: tuple[Entry, ...], runs: list[Span]) -> list[Span]:
    """Where pages are mapped right below a run later on, with nothing that grew up to there: an empty run, for its range begins there."""
    now, found = _Runs(list(runs)), []
    for e in entries:
        if e.action == "segment_map":
            below, above = now.around(e.address)
            ends = below is not None and below.address + below.size == e.address and below.lane == e.lane
            if above is not None and not ends and above.lane == e.lane and e.address + e.size == above.address and above in runs:
                found.append(Span(e.address, 0, above.lane, above.small, True))
            now.add(Span(e.address, e.size, e.lane, above.small if above is not None and not ends else False, True))
        elif e.action == "segment_unmap":
            now.remove(e.address, e.size)
    return found


def _measured(
    history: History, allocator: CachingAllocator, spans: list[Span], live: dict[int, tuple[int | None, int, int, int]]
) -> Beginning:
    """Sizes for the blocks that have none: what was asked for, rounded, and in the large pool what is left behind it where that is too
    little to be a free block. Later allocations behind a block say where it ends, as long as it lives."""
    found = Beginning(spans=spans)
    hints = _ends(history.entries, {a: allocator.rounded(row[1]) for a, row in live.items() if row[0] is None})
    addresses = sorted(live)
    for number, address in enumerate(addresses):
        size, asked, state, stack = live[address]
        at = bisect_right(spans, (address, 1 << 64)) - 1
        if at < 0 or address >= spans[at].address + spans[at].size:
            continue  # in a segment that the record does not know
        end = spans[at].address + spans[at].size
        if number + 1 < len(addresses):
            end = min(end, addresses[number + 1])
        if size is None:
            size = allocator.rounded(asked)
            if not (spans[at].small or spans[at].expandable):
                never_split = size >= allocator.settings.max_split_size
                size = end - address if never_split or end - address - size <= LEFTOVER else hints.get(address, size)
        found.live[address] = Live(min(size, end - address), asked, state)
        found.stacks[address] = stack
    return found


def _ends(entries: tuple[Entry, ...], sizes: dict[int, int]) -> dict[int, int]:
    """For blocks of the beginning, by address: their size, where an allocation that came right behind them while they lived tells."""
    alive, found = sorted(sizes), dict[int, int]()
    living = set(alive)
    for e in entries:
        if e.action == "alloc":
            at = bisect_right(alive, e.address) - 1
            if at >= 0 and alive[at] in living:
                behind = e.address - alive[at] - sizes[alive[at]]
                if 0 <= behind <= LEFTOVER:
                    found.setdefault(alive[at], e.address - alive[at])
        elif e.action == "free_completed":
            living.discard(e.address)
    return found
