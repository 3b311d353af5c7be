"""A course of steps played on the caching allocator: pool by pool where pools do not know of one another, else request by request."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from itertools import accumulate, repeat
from typing import NamedTuple

from memest.memory.allocators.blocks import Block
from memest.memory.allocators.caching import CachingAllocator, Shortage
from memest.memory.allocators.pools import BRIEF, LARGE, UNIT, UNIT_BITS, LonePool
from memest.memory.allocators.replaying import Replayed, Stretch, replay_stretches
from memest.memory.allocators.settings import UNLIMITED, Settings
from memest.memory.listing import Numbers, Part, signed
from memest.runtimes.torch.cuda.course import Course

NOTHING = 0xFF  # the pool of what takes no bytes
MOST_SPLITS, MOST_SMALL = 8, 64  # ways into which requests fall, and answers of small pools, that are remembered of a course
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
    """Whether pools do not know of one another, on a card without end: nothing empties the cache in the midst of a step. And whether no
    pass comes again, and a step finds what it found before."""
    rules = not settings.expandable_segments and settings.max_split_size == UNLIMITED and settings.per_process_memory_fraction == 1
    alike = not course.leaves and not any(course.taken)
    return rules and alike and not course.trials and all(part.times == 1 for part in course.before) and len(course.asked) == 1


# request by request ------------------------------------------------------------------------------------------------------


def play_whole(course: Course, sizes: Sequence[int], streams: Sequence[int], allocator: CachingAllocator) -> Taken:
    """Every request, on an allocator that stands empty. ``sizes`` and ``streams`` are by number."""
    live: dict[int, Block] = {}
    on = {n: stream for n, stream in enumerate(streams) if stream}

    def played(*parts: Part) -> Replayed:
        stretches = (Stretch(_moves(p.events, sizes, course.trials), p.start, p.times) for p in parts)
        return replay_stretches(stretches, allocator, live, on, course.trials)

    def ran_out(found: Replayed) -> bool:
        return found.failed_at is not None

    found = played(Part(course.placing))
    if course.gives_back and not ran_out(found):
        allocator.empty_cache()
    if course.offset:
        found = found if ran_out(found) else played(*course.before)
        for number in range(AGAIN):
            if number and not ran_out(found):
                played(Part(course.between))
            if not ran_out(found):
                live.update([(n, live.pop(before)) for n, before in course.taken[number]])
                found = played(*course.asked)
    elif not ran_out(found):
        found = played(*course.asked)
    return Taken(found.allocated, found.allocated_at, found.reserved, found.shortage)


def _moves(events: Numbers, sizes: Sequence[int], trials: Container[int]) -> Iterator[tuple[int, int]]:
    """A trial that takes nothing is given back, too."""
    return ((sizes[n], n) if n >= 0 else (-(sizes[~n] or (~n in trials)), ~n) for n in events)


# pool by pool ------------------------------------------------------------------------------------------------------------


class Requests(NamedTuple):
    """What one pool is asked: before the first step, up to the one asked about, in that, and after it; and the numbers that stand there."""

    placing: Numbers
    begun: Numbers
    asked: Numbers
    between: Numbers
    numbers: Numbers


def play_pools(course: Course, sizes: Sequence[int], streams: Sequence[int], settings: Settings) -> Taken:
    """The same, of a course and settings that are plain. Small blocks are split to the unit, so that what they have is what is asked for;
    how many segments of theirs there are is remembered, since from one batch to the next few of their sizes change."""
    units = _units(sizes, settings)
    has = list(units)
    reserved = 0
    kinds = _kinds(units, streams)
    for kind, requests in course.memo.find("pools", kinds, MOST_SPLITS, lambda: _by_pool(course, kinds)).items():

        def play(small: bool, requests: Requests = requests) -> int:
            return _play_pool(course, requests, LonePool(small=small, large_segment=settings.large_segment_size, has=has), units)

        if kind % 2:
            reserved += play(False)
        else:
            at = kinds, kind, tuple(map(units.__getitem__, requests.numbers))
            reserved += course.memo.find("small", at, MOST_SMALL, lambda: play(True))
    return _peak(course, has, reserved)


def _play_pool(course: Course, requests: Requests, pool: LonePool, units: list[int]) -> int:
    """The segments that are there in the end, in units."""
    pool.play(requests.placing, units)
    if course.gives_back:
        pool.empty()
    pool.play(requests.begun, units)
    before = pool.segments
    pool.play(requests.asked, units)
    if course.offset and pool.segments != before:  # else what comes again finds what it found before
        pool.play(requests.between, units)
        pool.play(requests.asked, units)
    return pool.segments


def _peak(course: Course, has: list[int], reserved: int) -> Taken:
    standing = sum(map(has.__getitem__, course.held))
    changes = signed(has[course.offset :] if course.offset else has[: len(course.form.storages)])
    totals = list(accumulate(map(changes.__getitem__, course.form.parts[0].events)))
    most = max(totals, default=0)
    if most <= 0:
        return Taken(standing * UNIT, -1, reserved * UNIT)
    return Taken((standing + most) * UNIT, totals.index(most), reserved * UNIT)


def _units(sizes: Sequence[int], settings: Settings) -> list[int]:
    """What each number asks for, rounded, in units; 0 for nothing."""
    if not settings.padding and not any(settings.divisions):
        return [n + UNIT - 1 >> UNIT_BITS for n in sizes]
    rounded = CachingAllocator(settings).rounded
    return [rounded(n) // UNIT if n else 0 for n in sizes]


def _kinds(units: Sequence[int], streams: Sequence[int]) -> bytes:
    """The pool of each number: twice its stream, and one more where it is large."""
    if not streams and 0 not in units:
        return bytes(map(LARGE.__lt__, units))
    return bytes([2 * s + (u > LARGE) if u else NOTHING for u, s in zip(units, streams or repeat(0), strict=bool(streams))])


def _by_pool(course: Course, kinds: bytes) -> dict[int, Requests]:
    begun = [n for part in course.before for n in part.events]
    found: dict[int, Requests] = {}
    for kind in sorted({*kinds} - {NOTHING}):
        parts = (course.placing, begun, course.asked[0].events, course.between)
        lists = [[n for n in part if kinds[max(n, ~n)] == kind] for part in parts]
        placing, before, asked, between = map(_brief, lists)
        found[kind] = Requests(placing, before, asked, between, tuple(dict.fromkeys(n for part in lists for n in part if n >= 0)))
    return found


def _brief(events: list[int]) -> Numbers:
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
    return tuple(found)
