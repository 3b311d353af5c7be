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


def unknown(reason: str) -> Figure:
    """No figure, and why."""
    return Figure(bytes=None, low=None, high=None, claim="unknown", reason=reason)
