"""One machine's memory: tiers in the order they fill."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """One kind of memory: nominal bytes, those a program can use, and what the second number rests on."""

    name: str
    nbytes: int
    usable_bytes: int
    basis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """An accelerator, a server, or a bare budget. ``tiers`` fill in order; the first is where a step runs at full speed. ``sockets`` and
    ``cores`` are those of the whole machine, where the entry says them."""

    name: str
    title: str
    kind: str
    tiers: tuple[Tier, ...]
    source: str
    sockets: int | None = None
    cores: int | None = None

    @property
    def usable_bytes(self) -> int:
        """What all tiers together can hold."""
        return sum(t.usable_bytes for t in self.tiers)
