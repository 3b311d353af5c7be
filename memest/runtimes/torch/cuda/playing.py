"""A course of steps played on the caching allocator: pool by pool where pools do not know of one another, else request by request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from memest.memory.allocators.blocks import Block
from memest.memory.allocators.caching import CachingAllocator, Shortage
from memest.memory.allocators.pools import BRIEF, LARGE, UNIT, LonePool
from memest.memory.allocators.replaying import Replayed, Stretch, replay_stretches
from memest.memory.allocators.settings import UNLIMITED, Settings
from memest.memory.listing import Numbers, Part
from memest.runtimes.torch.cuda.course import Course

AGAIN = 2
"""How often the step asked about comes, where it is not the first: the first time it finds the blocks that the first step left, the second
time those of a step like itself."""


class Taken(NamedTuple):
    """What the allocator made of the step asked about: the most it handed out, the number of the event that first reached it (-1: it
    stood before), and what it took from the driver up to the end of it; or in a step that the card had no room for, what it had taken
    by then, and what stood there."""

    allocated: int
    allocated_at: int
    reserved: int
    shortage: Shortage | None = None


def is_plain(settings: Settings, course: Course) -> bool:
    """Whether pools do not know of one another, on a card without end, and no pass comes again."""
    rules = not settings.expandable_segments and settings.max_split_size == UNLIMITED and settings.per_process_memory_fraction == 1
    return rules and len(course.first) <= 1 and len(course.asked) == 1


# request by request ------------------------------------------------------------------------------------------------------


def play_whole(course: Course, sizes: Sequence[int], streams: Sequence[int], allocator: CachingAllocator) -> Taken:
    """Every request, on an allocator that stands empty. ``sizes`` and ``streams`` are by number."""
    live: dict[int, Block] = {}
    on = {n: stream for n, stream in enumerate(streams) if stream}

    def played(*parts: Part) -> Replayed:
        return replay_stretches((Stretch(_moves(p.events, sizes), p.start, p.times) for p in parts), allocator, live, on)

    def ran_out(found: Replayed) -> bool:
        return found.failed_at is not None

    found = played(Part(course.placing))
    if course.converts and not ran_out(found):
        allocator.empty_cache()
    if course.offset:
        for parts in (course.first, (Part(course.after),)):
            found = found if ran_out(found) else played(*parts)
        for number in range(AGAIN):
            if number and not ran_out(found):
                played(Part(course.between))
            found = found if ran_out(found) else played(*course.asked)
    elif not ran_out(found):
        found = played(*course.asked)
    return Taken(found.allocated, found.allocated_at, found.reserved, found.shortage)


def _moves(events: Numbers, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    return ((sizes[n], n) if n >= 0 else (-sizes[~n], ~n) for n in events)


# pool by pool ------------------------------------------------------------------------------------------------------------


def play_pools(course: Course, sizes: Sequence[int], streams: Sequence[int], settings: Settings) -> Taken:
    """The same, of a course and settings that are plain."""
    units = _units(sizes, settings)
    has = list(units)  # what blocks of a small pool have, and what they have in a large one where it is split
    reserved = 0
    for kind, lists in _by_pool(course, units, streams).items():
        pool = LonePool(small=not kind & 1, large_segment=settings.large_segment_size, has=has)
        pool.play(lists[0], units)
        if course.converts:
            pool.empty()
        pool.play(lists[1], units)
        before = pool.segments
        pool.play(lists[2], units)
        if course.offset and pool.segments != before:  # else what comes again finds what it found before
            pool.play(lists[3], units)
            pool.play(lists[2], units)
        reserved += pool.segments
    return _peak(course, has, reserved)


def _peak(course: Course, has: list[int], reserved: int) -> Taken:
    changes = [*has, *[-n for n in reversed(has)]]  # that of ~n stands at ~n
    standing = sum([has[n] for n in course.held])
    totals = list(accumulate(map(changes.__getitem__, course.asked[0].events)))
    most = max(totals, default=0)
    if most <= 0:
        return Taken(standing * UNIT, -1, reserved * UNIT)
    return Taken((standing + most) * UNIT, totals.index(most), reserved * UNIT)


def _units(sizes: Sequence[int], settings: Settings) -> list[int]:
    """What each number asks for, rounded, in units; 0 for nothing."""
    if not settings.padding and not any(settings.divisions):
        return [n + UNIT - 1 >> 9 for n in sizes]
    rounded = CachingAllocator(settings).rounded
    return [rounded(n) // UNIT if n else 0 for n in sizes]


def _by_pool(course: Course, units: Sequence[int], streams: Sequence[int]) -> dict[int, list[list[int]]]:
    """The requests of each pool (twice its stream, and one where it is large): before the first step, up to the one asked about, in that,
    and after it."""
    if streams:
        kinds = [-1 if not u else 2 * stream + (u > LARGE) for u, stream in zip(units, streams, strict=True)]
    else:
        kinds = [-1 if not u else u > LARGE for u in units]
    kinds += kinds[::-1]  # that of ~n stands at ~n
    found: dict[int, list[list[int]]] = {}
    for kind in {*kinds} - {-1}:
        found[kind] = [[n for n in part if kinds[n] == kind] for part in _four(course)]
    return {kind: [_brief(part) for part in parts] for kind, parts in found.items()}


def _four(course: Course) -> tuple[Numbers, ...]:
    begun = (*(course.first[0].events if course.first else ()), *course.after)
    return course.placing, begun, course.asked[0].events, course.between


def _brief(events: list[int]) -> list[int]:
    """With ``n + BRIEF`` for ``n`` right before ``~n``."""
    found: list[int] = []
    back = 0  # what would give back the one before
    for n in events:
        if n < 0 and n == back:
            found[-1] += BRIEF
            back = 0
        else:
            found.append(n)
            back = ~n
    return found
