"""The steps that lead to the one asked about, as one list of requests by number.

The network's tensors, the inputs and the target are made, what lies in channels_last as a copy of what was contiguous
(``module.to("cuda").to(memory_format=torch.channels_last)``), and what is cached is given back; the first step, in which the optimizer's
state appears and libraries take their workspaces; a second one; the one asked about. Between steps what a step leaves (gradients, outputs)
is given back (``zero_grad(set_to_none=True)``), what appeared for good stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memest.memory.listing import Listing, Numbers, Part
from memest.runtimes.torch.step.parallel.replicas import is_bucket

STAYS = frozenset({"optimizer_state", "workspace"})
NETWORK = frozenset({"parameter", "buffer"})


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """Requests as in a :class:`Listing`, those of ``first`` by their own numbers, copies of what is converted behind them, those of the
    step asked about behind both, from ``offset`` on.

    ``placing`` is what happens before the first step (where something ``converts`` the cache is emptied then), ``first`` the first step,
    ``after`` what is given back after it and DistributedDataParallel's buckets made anew, ``asked`` the step asked about, ``between`` what
    is given back before it comes again. Where that is the first step, there is nothing after it. ``held`` is what is there as it begins."""

    placing: Numbers
    converts: bool
    first: tuple[Part, ...]
    after: Numbers
    asked: tuple[Part, ...]
    between: Numbers
    held: Numbers
    copied: Numbers
    offset: int

    def of_all(self, first: Sequence[int], asked: Sequence[int]) -> list[int]:
        """Sizes (or the like) of all numbers, from those of the first step and of the one asked about."""
        return [*first, *[first[n] for n in self.copied], *(asked if self.offset else ())]


def course(first: Listing, asked: Listing, *, converted: frozenset[str], is_first: bool, keeps_gradients: bool) -> Course:
    """The course of the steps; where the one asked about ``is_first``, ``asked`` does not count."""
    placing, copied, places = _placed(first, converted)
    begun = [n for n in places if n >= 0]
    if is_first:
        return Course(placing, bool(converted), (), (), first.parts, (), tuple(begun), copied, 0)
    offset = len(first.storages) + len(copied)
    stays = STAYS | {"gradient"} if keeps_gradients else STAYS
    left = first.left()
    staying = [n for n in left if first.storages[n].category in stays and first.storages[n].refs]
    gone = set(left).difference(staying)
    old, new = _rebuilt(first, asked)
    after = [~n for n in left if n in gone] + [~places[n] for n in old] + [n + offset for n in new]
    replaced = {places[n] for n in old}
    held = [n for n in begun if n not in replaced] + staying + [n + offset for n in new]
    return Course(
        placing=placing,
        converts=bool(converted),
        first=first.parts,
        after=tuple(after),
        asked=tuple([part._replace(events=_moved(part.events, offset)) for part in asked.parts]),
        between=tuple([~(n + offset) for n in asked.left()]),
        held=tuple(held),
        copied=copied,
        offset=offset,
    )


def _moved(events: Numbers, offset: int) -> Numbers:
    return tuple([n + offset if n >= 0 else n - offset for n in events])


def _placed(first: Listing, converted: frozenset[str]) -> tuple[Numbers, Numbers, list[int]]:
    """What is there before the first step: the network, whose tensors are then ``converted`` one by one; the inputs, each converted at
    once; the rest. The requests, of what the copies are, and each resident's number in the end."""
    requests: list[int] = []
    copied: list[int] = []
    places = list(range(first.residents))
    waiting: list[int] = []

    def convert() -> None:
        for n in waiting:
            places[n] = len(first.storages) + len(copied)
            copied.append(n)
            requests.extend((places[n], ~n))
        waiting.clear()

    for n, storage in enumerate(first.storages[: first.residents]):
        if storage.category not in NETWORK:
            convert()
        requests.append(n)
        if storage.layer in converted:
            waiting.append(n)
    convert()
    return tuple(requests), tuple(copied), places


def _rebuilt(first: Listing, asked: Listing) -> tuple[list[int], list[int]]:
    """DistributedDataParallel's first buckets, and those of later steps (``Reducer::rebuild_buckets``); none where they are the same."""
    old, new = ([n for n in range(of.residents) if is_bucket(of.storages[n])] for of in (first, asked))
    return ([], []) if [first.sizes[n] for n in old] == [asked.sizes[n] for n in new] else (old, new)
