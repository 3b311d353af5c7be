"""A list of requests and releases, played on the caching allocator: what it reserves at most, when, and whether a card runs out."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from memest.errors import OutOfMemoryError
from memest.memory.allocators.blocks import Block
from memest.memory.allocators.caching import CachingAllocator, Shortage, Statistics
from memest.memory.allocators.settings import DEFAULT, Settings

MOST_STATES = 64  # of the allocator, between passes, that are compared


class Stretch(NamedTuple):
    """``events`` (see :func:`replay`), ``times`` times over, the first of them number ``start``. Those that come several times give back
    what they ask for."""

    events: Iterable[tuple[int, int]]
    start: int = 0
    times: int = 1


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
    return replay_stretches((Stretch(events),), player, {} if live is None else live)


def replay_stretches(
    stretches: Iterable[Stretch],
    player: CachingAllocator,
    held: dict[int, Block],
    streams: Mapping[int, int] | None = None,
    trials: Container[int] = (),
) -> Replayed:
    """:func:`replay` of one stretch after the other; ``streams`` are those of the names that are not on stream 0. Of ``trials`` as many
    halves are taken as there is room, and with them all that is cached is given back. Of equal passes only
    those are played that could still differ: once the allocator stands as it did some passes before, what came between comes again."""
    player.reset_peaks()
    play = _Play(player, held, streams or {}, trials)
    for stretch in stretches:
        if not _passes(play, stretch):
            break
    statistics = player.statistics()
    return Replayed(
        allocated=statistics.allocated_peak,
        allocated_at=play.allocated_at,
        reserved=statistics.reserved_peak,
        reserved_at=play.reserved_at,
        active=statistics.active_peak,
        requested=statistics.requested_peak,
        failed_at=play.failed_at,
        shortage=None if play.failed_at is None else player.shortage,
        statistics=statistics,
    )


class _Play:
    """An allocator, what is held of it, and when its peaks were first reached."""

    def __init__(self, player: CachingAllocator, held: dict[int, Block], streams: Mapping[int, int], trials: Container[int]) -> None:
        self.player, self.held, self.streams, self.trials = player, held, streams, trials
        self.allocated, self.reserved = player.allocated, player.reserved
        self.allocated_at = self.reserved_at = -1
        self.failed_at: int | None = None

    def run(self, events: Iterable[tuple[int, int]], start: int) -> bool:
        """The events, the first of them number ``start``; False where the card had no room."""
        player, held, malloc, free, streams = self.player, self.held, self.player.malloc, self.player.free, self.streams
        trials = self.trials
        for at, (delta, name) in enumerate(events, start):
            if trials and name in trials:
                self._try(delta, name, at)
            elif delta < 0:
                free(held.pop(name))
            elif delta > 0:
                try:
                    block = malloc(delta, streams.get(name, 0)) if streams else malloc(delta)
                except OutOfMemoryError:
                    self.failed_at = at
                    return False
                assert block is not None  # there are bytes to hold
                held[name] = block
                if player.allocated > self.allocated:
                    self.allocated, self.allocated_at = player.allocated, at
                if player.reserved > self.reserved:
                    self.reserved, self.reserved_at = player.reserved, at
        return True

    def _try(self, delta: int, name: int, at: int) -> None:
        """A buffer to try plans in, halved until there is room for it (``generate_and_filter_plans``); when it goes, the cache does."""
        player = self.player
        if delta < 0:
            block = self.held.pop(name, None)
            if block is not None:
                player.free(block)
            player.empty_cache()
            return
        while delta:
            try:
                block = player.malloc(delta)
            except OutOfMemoryError:
                delta //= 2
                continue
            assert block is not None
            self.held[name] = block
            break
        if player.allocated > self.allocated:
            self.allocated, self.allocated_at = player.allocated, at
        if player.reserved > self.reserved:
            self.reserved, self.reserved_at = player.reserved, at


def _passes(play: _Play, stretch: Stretch) -> bool:
    """The passes of a stretch; False where the card had no room."""
    if stretch.times == 1:
        return play.run(stretch.events, stretch.start)
    events = tuple(stretch.events)
    seen: dict[Any, int] = {}
    done, start = 0, stretch.start
    while done < stretch.times:
        state = play.player.answers()
        if state in seen:
            period = done - seen[state]
            skipped = (stretch.times - done) // period * period
            done, start = done + skipped, start + skipped * len(events)
            seen = {}
            if done == stretch.times:
                break
        elif state is not None and len(seen) < MOST_STATES:
            seen[state] = done
        if not play.run(events, start):
            return False
        done, start = done + 1, start + len(events)
    return True
