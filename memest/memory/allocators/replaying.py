"""A list of requests and releases, played on the caching allocator: what it reserves at most, when, and whether a card runs out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from memest.errors import OutOfMemoryError
from memest.memory.allocators.blocks import Block
from memest.memory.allocators.caching import CachingAllocator, Shortage, Statistics
from memest.memory.allocators.settings import DEFAULT, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What came out. ``allocated``, ``reserved``, ``active`` and ``requested`` are the most bytes during the list, the first two with the
    number of the event that first reached them (-1: before the list); ``failed_at`` is the event that the card had no room for, which
    ended the play, and ``shortage`` what stood then; both None where all went well."""

    allocated: int
    allocated_at: int
    reserved: int
    reserved_at: int
    active: int
    requested: int
    failed_at: int | None
    shortage: Shortage | None
    statistics: Statistics


def replay(
    events: Iterable[tuple[int, int]],
    settings: Settings = DEFAULT,
    *,
    capacity: int | None = None,
    total: int | None = None,
    allocator: CachingAllocator | None = None,
    live: dict[int, Block] | None = None,
) -> Replayed:
    """Plays ``(delta, id)``: ``delta`` > 0 asks for so many bytes under a name, < 0 gives that name back, 0 is nothing. A list that goes
    on where another ended takes its ``allocator`` and what was ``live`` there, by name; both are changed."""
    player = CachingAllocator(settings, capacity=capacity, total=total) if allocator is None else allocator
    held: dict[int, Block] = {} if live is None else live
    player.reset_peaks()
    malloc, free = player.malloc, player.free
    allocated, reserved, allocated_at, reserved_at = player.allocated, player.reserved, -1, -1
    failed_at = None
    for at, (delta, name) in enumerate(events):
        if delta < 0:
            free(held.pop(name))
        elif delta > 0:
            try:
                block = malloc(delta)
            except OutOfMemoryError:
                failed_at = at
                break
            assert block is not None  # there are bytes to hold
            held[name] = block
            if player.allocated > allocated:
                allocated, allocated_at = player.allocated, at
            if player.reserved > reserved:
                reserved, reserved_at = player.reserved, at
    statistics = player.statistics()
    return Replayed(
        allocated=statistics.allocated_peak,
        allocated_at=allocated_at,
        reserved=statistics.reserved_peak,
        reserved_at=reserved_at,
        active=statistics.active_peak,
        requested=statistics.requested_peak,
        failed_at=failed_at,
        shortage=None if failed_at is None else player.shortage,
        statistics=statistics,
    )
