"""The steps that lead to the one asked about, and what comes and goes before and between them.

A script is: the network's tensors, the inputs and the target are made, what lies in channels_last as a copy of what was contiguous
(``module.to("cuda").to(memory_format=torch.channels_last)``); what wraps the network takes its own (a reducer's buckets, shards in the
place of whole parameters); what is cached is given back; the first step, in which the optimizer's state appears and libraries take their
workspaces; a second one; the one asked about. Between steps what a step leaves (gradients, outputs) is given back
(``zero_grad(set_to_none=True)``), what appeared for good stays; a whole step of a user's finds what the one before left.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from copy import copy
from itertools import count
from typing import NamedTuple

from memest.errors import UnsupportedError
from memest.memory.stream import Event, Move, Storage, Stream
from memest.runtimes.runtime import Steps
from memest.runtimes.torch.step.parallel.replicas import is_bucket

STEPS = 3
"""The step that is asked about, counted from 1, where it is not the first: the second finds the blocks that the first left, the third those
of a step like itself."""
MADE, BETWEEN = "before the steps", "between steps"
STAYS = frozenset({"optimizer_state", "workspace"})
NETWORK = frozenset({"parameter", "buffer"})


def number_of(asked: Stream) -> int:
    """The number of the step that is asked about, where that is not the first: one that finds the blocks of a step like itself."""
    return max(STEPS, asked.remade_at + 1)


def staying(steps: Steps) -> set[int]:
    """The numbers of what the first step makes for good."""
    stays = STAYS | {"gradient"} if steps.keeps_gradients else STAYS
    made = (e.storage for _, e in steps.first().once() if e.delta > 0 and e.storage.refs)
    return {s.id for s in made if s.category in stays or is_bucket(s)}


def gives_back(steps: Steps) -> bool:
    """Whether something came and went before the first step, so that what is cached is given back."""
    return bool(steps.converted) or not all(move.made for move in steps.first().made)


def moves_before(first: Stream, converted: frozenset[str]) -> Iterator[Move]:
    """The way to what is there before the first step: the network, whose tensors are then ``converted`` one by one; the inputs, each
    converted at once; the rest."""
    given = first.made or tuple(Move(s, True) for s in first.residents)
    numbers = count(1 + max((move.storage.id for move in given), default=0))
    waiting: list[Storage] = []

    def convert() -> Iterator[Move]:
        for before in waiting:
            yield from (Move(_numbered(before, next(numbers)), True), Move(before, False))
        waiting.clear()

    for move in given:
        storage = move.storage
        if storage.category not in NETWORK:
            yield from convert()
        if storage.nbytes:
            yield move
            if move.made and storage.layer in converted:
                waiting.append(storage)
                if storage.category not in NETWORK:
                    yield from convert()
    yield from convert()


def exchanged(first: Stream, asked: Stream) -> Iterator[Move]:
    """What is exchanged when a later step begins: before the new buckets of DistributedDataParallel's reducer come, the old ones go
    (``Reducer::rebuild_buckets``)."""
    old = [s for s in first.residents if is_bucket(s)]
    for move in asked.remade:
        if is_bucket(move.storage):
            yield from (Move(s, False) for s in old)
            old = []
        yield move


class Found(NamedTuple):
    """A tensor between two steps, and its bytes."""

    storage: Storage
    nbytes: int


class Handed(NamedTuple):
    """What of a whole step goes before the next one (``cleared``), and what that one gives back, by its number there and its number in the
    step before (``taken``). The rest stays."""

    cleared: tuple[int, ...]
    taken: tuple[tuple[int, int], ...]


def handed(left: Mapping[int, Found], found: Mapping[int, Found], released: Container[int]) -> Handed:
    """What a step ``left``, for one that has ``found`` as residents and gives back those that are ``released``: the gradient of the same
    tensor, or else what is as large. Gradients go where it finds none. UnsupportedError where the step before left no such tensor."""
    rest = dict(left)
    taken: list[tuple[int, int]] = []
    for n, (storage, nbytes) in found.items():
        if n in released:
            alike = [m for m, other in rest.items() if other.nbytes == nbytes]
            same = [m for m in alike if (rest[m].storage.category, rest[m].storage.reason) == (storage.category, storage.reason)]
            if not alike:
                raise UnsupportedError(f"{storage.layer} stands before the step, and no step before left it: ask for the first step")
            taken.append((n, (same or alike)[0]))
            del rest[taken[-1][1]]
    stand = any(storage.category == "gradient" for storage, _ in found.values())
    return Handed(() if stand else tuple([n for n, f in rest.items() if f.storage.category == "gradient"]), tuple(taken))


def script(steps: Steps) -> tuple[list[Event], tuple[int, ...]]:
    """All that is played as one list (storages of different steps have numbers of their own; one of 0 bytes empties the cache), and where
    each step begins."""
    first = steps.first()
    events = [_event(move) for move in moves_before(first, steps.converted)]
    numbers = count(1 + max((e.storage.id for e in events), default=0))
    if gives_back(steps):
        events.append(Event(0, Storage(next(numbers), 0, "", "", "", ""), MADE, "", "empty_cache"))
    stay = staying(steps)
    begins: list[int] = []
    live: dict[int, Storage] = {}
    last = 1 if steps.is_first else number_of(steps.asked())
    for number in range(1, last + 1):
        begins.append(len(events))
        stream = first if number == 1 else steps.asked()
        if number == stream.remade_at:
            events += _renumbered((_event(move) for move in exchanged(first, stream)), {}, numbers)
        events += _renumbered(stream.events, live, numbers)
        if number < last:
            gone, live = _between(steps, live) if steps.whole else ([s for n, s in live.items() if number > 1 or n not in stay], {})
            events += [Event(-s.nbytes, s, BETWEEN, "", "zero_grad") for s in gone]
    return events, tuple(begins)


def _between(steps: Steps, live: Mapping[int, Storage]) -> tuple[list[Storage], dict[int, Storage]]:
    """What goes between two whole steps, and what the second gives back, by its number there."""
    asked = steps.asked()
    residents = {s.id: Found(s, s.nbytes) for s in asked.residents}
    released = {e.storage.id for _, e in asked.once() if e.delta < 0}
    cleared, taken = handed({n: Found(s, s.nbytes) for n, s in live.items()}, residents, released)
    return [live[n] for n in cleared], {n: live[before] for n, before in taken}


def _event(move: Move) -> Event:
    s = move.storage
    return Event(s.nbytes if move.made else -s.nbytes, s, MADE, s.layer, MADE)


def _renumbered(events: Iterable[Event], live: dict[int, Storage], numbers: Iterator[int]) -> Iterator[Event]:
    """The events on storages of their own, those that stay in ``live``; what was there before goes by its own number."""
    for e in events:
        if e.delta > 0:
            live[e.storage.id] = _numbered(e.storage, next(numbers))
            yield e._replace(storage=live[e.storage.id])
        else:
            yield e._replace(storage=live.pop(e.storage.id, e.storage))


def _numbered(storage: Storage, number: int) -> Storage:
    own = copy(storage)
    own.id = number
    return own
