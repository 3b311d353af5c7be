"""The steps that lead to the one asked about, as one list of requests by number.

The network's tensors, the inputs and the target are made, what lies in channels_last as a copy of what was contiguous
(``module.to("cuda").to(memory_format=torch.channels_last)``), and what is cached is given back; the first step, in which the optimizer's
state appears and libraries take their workspaces; a second one; the one asked about. Between steps what a step leaves (gradients, outputs)
is given back (``zero_grad(set_to_none=True)``), what appeared for good stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from memest.memory.listing import Form, Listing, Numbers, Part
from memest.runtimes.torch.step.parallel.replicas import is_bucket
from memest.sizes.remembering import Memo

STAYS = frozenset({"optimizer_state", "workspace"})
NETWORK = frozenset({"parameter", "buffer"})
MOST_COURSES = 4  # that begin with one form


@dataclass(frozen=True, eq=False)
class Course:
    """Requests as in a :class:`Form`, those of the first step by their own numbers, copies of what is converted behind them, those of the
    step asked about behind both, from ``offset`` on.

    ``placing`` is what happens before the first step (where something ``converts`` the cache is emptied then), ``first`` the first step,
    ``after`` what is given back after it and DistributedDataParallel's buckets made anew, ``asked`` the step asked about, of a ``form``,
    ``between`` what is given back before it comes again. Where that is the first step, there is nothing after it, and ``offset`` is 0.
    ``held`` is what is there as it begins, ``copied`` what the copies are of."""

    form: Form
    placing: Numbers
    converts: bool
    first: tuple[Part, ...]
    after: Numbers
    asked: tuple[Part, ...]
    between: Numbers
    held: Numbers
    copied: Numbers
    offset: int
    memo: Memo = field(default_factory=Memo, repr=False)

    def of_all(self, first: Sequence[int], asked: Sequence[int]) -> list[int]:
        """Sizes (or the like) of all numbers, from those of the first step and of the one asked about."""
        return [*first, *[first[n] for n in self.copied], *(asked if self.offset else ())]


def course_of(first: Listing, asked: Listing, *, converted: frozenset[str], is_first: bool, keeps_gradients: bool) -> Course:
    """The course of the steps; where the one asked about ``is_first``, ``asked`` does not count."""
    old, new = _rebuilt(first, asked)
    at = asked.form, converted, is_first, keeps_gradients, bool(old or new)
    memo = first.form.memo
    if is_first:
        return memo.find("course", at, MOST_COURSES, lambda: _alone(first.form, converted))
    stays = STAYS | {"gradient"} if keeps_gradients else STAYS
    return memo.find("course", at, MOST_COURSES, lambda: _after_first(first.form, asked.form, converted, stays, old, new))


def _alone(first: Form, converted: frozenset[str]) -> Course:
    placing, copied, places = _placed(first, converted)
    return Course(first, placing, bool(converted), (), (), first.parts, (), tuple(places), copied, 0)


def _after_first(
    first: Form, asked: Form, converted: frozenset[str], stays: frozenset[str], old: Sequence[int], new: Sequence[int]
) -> Course:
    placing, copied, places = _placed(first, converted)
    offset = len(first.storages) + len(copied)
    staying = [n for n in first.left if first.storages[n].category in stays and first.storages[n].refs]
    gone = set(first.left).difference(staying)
    replaced = {places[n] for n in old}
    return Course(
        form=asked,
        placing=placing,
        converts=bool(converted),
        first=first.parts,
        after=(*[~n for n in first.left if n in gone], *[~places[n] for n in old], *[n + offset for n in new]),
        asked=tuple([part._replace(events=_moved(part.events, offset)) for part in asked.parts]),
        between=tuple([~(n + offset) for n in asked.left]),
        held=(*[n for n in places if n not in replaced], *staying, *[n + offset for n in new]),
        copied=copied,
        offset=offset,
    )


def _moved(events: Numbers, offset: int) -> Numbers:
    return tuple([n + offset if n >= 0 else n - offset for n in events])


def _placed(first: Form, converted: frozenset[str]) -> tuple[Numbers, Numbers, list[int]]:
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
    old, new = (of.form.memo.find("buckets", None, 1, partial(_buckets, of.form)) for of in (first, asked))
    return ([], []) if [first.sizes[n] for n in old] == [asked.sizes[n] for n in new] else (old, new)


def _buckets(form: Form) -> list[int]:
    return [n for n, s in enumerate(form.storages[: form.residents]) if is_bucket(s)]
