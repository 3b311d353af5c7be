"""Blocks: what a planner places. Each has a size and lives from one event to another; no addresses yet."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from memest.memory.stream import Storage, Stream


@dataclass(frozen=True, slots=True)
class Block:
    """``size`` bytes, alive from event ``lower`` up to, not including, event ``upper``. Blocks of one ``kind`` (shape and bytes of an
    element) stand for one another where an engine reuses whole buffers; None: by the size."""

    id: int
    lower: int
    upper: int
    size: int
    kind: Hashable = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """An offset for each block, in the order of the blocks, and the bytes they take together (the highest end)."""

    offsets: tuple[int, ...]
    nbytes: int


def blocks_of(stream: Stream, alignment: int = 1) -> tuple[tuple[Block, Storage], ...]:
    """What is asked for during a step, in order, sizes rounded up to ``alignment``. What is not given back lives to the end."""
    last = len(stream.events)
    born: dict[int, tuple[int, Storage]] = {}
    ended: dict[int, int] = {}
    for number, event in enumerate(stream.events):
        if event.delta > 0:
            born[event.storage.id] = number, event.storage
        else:
            ended[event.storage.id] = number
    return tuple(
        (Block(n, lower, ended.get(ident, last), aligned(storage.nbytes, alignment)), storage)
        for n, (ident, (lower, storage)) in enumerate(born.items())
    )


def aligned(nbytes: int, alignment: int) -> int:
    """``nbytes`` rounded up."""
    return -(-nbytes // alignment) * alignment


def plan_of(blocks: Sequence[Block], offsets: Iterable[int]) -> Plan:
    """The plan of these offsets."""
    placed = tuple(offsets)
    return Plan(offsets=placed, nbytes=max((o + b.size for b, o in zip(blocks, placed, strict=True)), default=0))
