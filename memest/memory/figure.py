"""A figure of memory: bytes with their range, what is claimed for them, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Claim = Literal["exact", "modelled", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """``bytes`` expected, which lie from ``low`` to ``high``; ``exact`` ones have no range, of ``unknown`` ones there are none (None).
    ``reason`` says what the figure rests on, or why there is none."""

    bytes: int | None
    low: int | None
    high: int | None
    claim: Claim
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {name: getattr(self, name) for name in self.__slots__}


class Range(NamedTuple):
    """The bytes of a figure that is known."""

    low: int
    bytes: int
    high: int

    def figure(self, reason: str) -> Figure:
        """The same as a figure."""
        return modelled(self.bytes, self.low, self.high, reason)


class Figures(NamedTuple):
    """The three figures of a step, and the number of the event at which ``allocated`` is reached (None: where the bytes asked for are
    most, -1: before the first event). ``besides`` has further ones by name, such as an arena's regions."""

    allocated: Figure
    reserved: Figure
    process: Figure
    event: int | None = None
    besides: tuple[tuple[str, Figure], ...] = ()

    @property
    def outermost(self) -> tuple[Literal["allocated", "reserved", "process"], Figure]:
        """The figure nearest to what the machine holds that is known, and its name."""
        if self.process.bytes is not None:
            return "process", self.process
        return ("allocated", self.allocated) if self.reserved.bytes is None else ("reserved", self.reserved)


def exact(nbytes: int, reason: str) -> Figure:
    """A figure without a range."""
    return Figure(bytes=nbytes, low=nbytes, high=nbytes, claim="exact", reason=reason)


def modelled(nbytes: int, low: int, high: int, reason: str) -> Figure:
    """A figure with its range."""
    return Figure(bytes=nbytes, low=low, high=high, claim="modelled", reason=reason)


def range_of(figure: Figure) -> Range:
    """The bytes of a figure that is known."""
    assert figure.low is not None and figure.bytes is not None and figure.high is not None
    return Range(figure.low, figure.bytes, figure.high)


def plus(figure: Figure, more: Figure, reason: str) -> Figure:
    """The sum of two figures, with the sum of their ranges; unknown where one is."""
    if figure.bytes is None or more.bytes is None:
        return unknown(figure.reason if figure.bytes is None else more.reason)
    return Range(*(a + b for a, b in zip(range_of(figure), range_of(more), strict=True))).figure(reason)


def unknown(reason: str) -> Figure:
    """No figure, and why."""
    return Figure(bytes=None, low=None, high=None, claim="unknown", reason=reason)
