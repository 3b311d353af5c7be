"""What torch's allocator recorded of itself: segments as they stood when the record was written, and the events that led there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from memest.memory.allocators.settings import Settings


class Frame(NamedTuple):
    """A line of a program."""

    name: str
    filename: str
    line: int


class Piece(NamedTuple):
    """A block of a segment. ``state`` is FREE, USED or AWAITING (of :mod:`memest.memory.allocators.blocks`), ``stack`` the number of the
    frames that asked for it, ``asked`` the bytes they asked for."""

    address: int
    size: int
    asked: int
    state: int
    stack: int


class Segment(NamedTuple):
    """Memory of the driver. ``lane`` is the number of a stream and a pool of its own: blocks never change it."""

    address: int
    size: int
    lane: int
    small: bool
    expandable: bool
    pieces: tuple[Piece, ...]


class Entry(NamedTuple):
    """An event, by torch's name of the ``action``. ``size`` is what was asked for; of ``oom``, ``address`` is what the driver had left."""

    action: str
    address: int
    size: int
    lane: int
    stack: int


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One device's record: ``segments`` by address as they stood after the last of ``entries``; ``stacks`` are frames, innermost first, the
    first of them empty. ``lanes`` are counted; without ``recorded`` no event was kept at all. ``unknown``: actions that are not known here,
    and how many records of each were passed over."""

    device: int
    segments: tuple[Segment, ...]
    entries: tuple[Entry, ...]
    stacks: tuple[tuple[Frame, ...], ...]
    lanes: int
    settings: Settings
    settings_text: str
    recorded: bool
    unknown: tuple[tuple[str, int], ...] = ()

    @property
    def reserved(self) -> int:
        """Bytes of all segments."""
        return sum(s.size for s in self.segments)
