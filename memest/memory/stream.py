"""What a runtime asks of its allocator: storages with an owner and a reason, and the ordered stream of allocations and releases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from memest.network.tensor import Spec
from memest.shown import counted


class Storage:
    """Bytes with an owner. ``refs`` counts the tensors that hold it; when none does, it is released. ``spread`` is the range of bytes
    that are modelled (None: they are exact). ``stream`` is the device's stream that it is made on (0: the current one). Of its
    bytes ``unwritten`` are never touched. Where it ``empties``, all that the allocator has cached is given back with it, and of the bytes
    it asks for as many halves are taken as there is room."""

    __slots__ = ("category", "empties", "id", "layer", "nbytes", "op", "reason", "refs", "spread", "stream", "unwritten")

    def __init__(self, ident: int, nbytes: int, category: str, layer: str, op: str, reason: str) -> None:
        self.id = ident
        self.nbytes = nbytes
        self.category = category
        self.layer = layer
        self.op = op
        self.reason = reason
        self.refs = 0
        self.spread: tuple[int, int] | None = None
        self.stream = 0
        self.unwritten = 0
        self.empties = False


class Event(NamedTuple):
    """One allocation (``delta`` > 0) or release (``delta`` < 0)."""

    delta: int
    storage: Storage
    phase: str
    layer: str
    op: str


class Move(NamedTuple):
    """A storage comes (``made``) or goes before a step begins."""

    storage: Storage
    made: bool


class Repeat(NamedTuple):
    """From event ``start`` on, the ``length`` events before it come ``times`` times again. Each time they give back what they ask for."""

    start: int
    length: int
    times: int

    @property
    def stop(self) -> int:
        """The event after."""
        return self.start + self.length * self.times


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What is there before a step, and what is asked for and given back during it, in order. ``values`` are the named tensors;
    ``overwriting`` names the layers that the recipe made write over their input, ``ran_again`` those that ran once more in backward;
    ``repeats``, in order, which of the events are those before once more. ``made`` is the way to what is there before the first step
    (nothing: the residents one after the other); ``remade`` what is exchanged when step ``remade_at`` begins."""

    residents: tuple[Storage, ...]
    events: tuple[Event, ...]
    values: Mapping[str, Spec]
    overwriting: tuple[str, ...] = ()
    ran_again: tuple[str, ...] = ()
    repeats: tuple[Repeat, ...] = ()
    made: tuple[Move, ...] = ()
    remade: tuple[Move, ...] = ()
    remade_at: int = 0

    def once(self) -> Iterator[tuple[int, Event]]:
        """The events, with their numbers, without those that are others once more."""
        at = 0
        for repeat in self.repeats:
            yield from enumerate(self.events[at : repeat.start], at)
            at = repeat.stop
        yield from enumerate(self.events[at:], at)

    def __repr__(self) -> str:
        return f"<Stream: {counted(len(self.events), 'event')} on top of {counted(len(self.residents), 'resident tensor')}>"
