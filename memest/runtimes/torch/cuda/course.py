"""The :mod:`steps <memest.runtimes.torch.script>` that lead to the one asked about, as one list of requests by number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from memest.memory.listing import Form, Listing, Numbers, Part, standing
from memest.runtimes.torch.script import NETWORK, STAYS, Found, handed
from memest.runtimes.torch.step.parallel.replicas import is_bucket
from memest.sizes.remembering import Memo

MOST_COURSES = 4  # that begin with one form
SECOND = 2
Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Course:
    """Requests as in a :class:`Form`, those of the first step by their own numbers, copies of what is converted behind them, those of the
    step asked about behind both, from ``offset`` on.

    ``placing`` is what happens before the first step (the cache is emptied then where it ``gives_back``), ``before`` what leads from there
    to the step asked about (steps, and what is given back and made anew between them), ``asked`` that step, of a ``form``, ``between`` what
    is given back before it comes again. Where it is the first step, there is nothing before it, and ``offset`` is 0. ``held`` is what is
    there as it begins, ``copied`` what the copies are of. ``trials`` are buffers in which plans are tried. A whole step takes over tensors
    that the first one left, and then its own: ``taken`` are their new numbers and those before; ``leaves`` says that it leaves more than
    that."""

    form: Form
    placing: Numbers
    gives_back: bool
    before: tuple[Part, ...]
    asked: tuple[Part, ...]
    between: Numbers
    held: Numbers
    copied: Numbers
    offset: int
    trials: frozenset[int] = frozenset()
    taken: tuple[Pairs, Pairs] = ((), ())
    leaves: bool = False
    memo: Memo = field(default_factory=Memo, repr=False)

    def of_all(self, first: Sequence[int], asked: Sequence[int]) -> list[int]:
        """Sizes (or the like) of all numbers, from those of the first step and of the one asked about."""
        return [*first, *[first[n] for n in self.copied], *(asked if self.offset else ())]


def course_of(
    first: Listing, asked: Listing, *, converted: frozenset[str], is_first: bool, keeps_gradients: bool, whole: bool = False
) -> Course:
    """The course of the steps; where the one asked about ``is_first``, ``asked`` does not count."""
    at = asked.form, converted, is_first, keeps_gradients, _whole(first, asked) if whole and not is_first else None

    def made() -> Course:
        if is_first:
            return _alone(first.form, converted)
        return _after(first.form, asked.form, converted, at[-1] or _alike(first.form, asked.form, keeps_gradients))

    return first.form.memo.find("course", at, MOST_COURSES, made)


class _Between(NamedTuple):
    """What goes after the first step and after those that follow, what is ``taken`` over from either, and whether they leave more."""

    first: Numbers
    asked: Numbers
    taken: tuple[Pairs, Pairs] = ((), ())
    leaves: bool = False


def _alike(first: Form, asked: Form, keeps_gradients: bool) -> _Between:
    """All but what the first step makes for good."""
    stays = STAYS | {"gradient"} if keeps_gradients else STAYS
    staying = {n for n in first.left if (s := first.storages[n]).refs and (s.category in stays or is_bucket(s))}
    return _Between(tuple([n for n in first.left if n not in staying]), asked.left)


def _whole(first: Listing, asked: Listing) -> _Between:
    """What the code of a whole step says."""
    found = {n: Found(asked.form.storages[n], asked.sizes[n]) for n in range(asked.form.residents)}
    left = [{n: Found(of.form.storages[n], of.sizes[n]) for n in of.form.left} for of in (first, asked)]
    after_first, after_asked = (handed(each, found, asked.form.released) for each in left)
    leaves = len(left[1]) > len(after_asked.cleared) + len(after_asked.taken)
    return _Between(after_first.cleared, after_asked.cleared, (after_first.taken, after_asked.taken), leaves)


def _alone(first: Form, converted: frozenset[str]) -> Course:
    placing, copied, _ = _placed(first, converted)
    return Course(first, placing, _gives_back(first, converted), (), first.parts, (), standing(placing), copied, 0, _trials(first))


def _after(first: Form, asked: Form, converted: frozenset[str], given_back: _Between) -> Course:
    placing, copied, places = _placed(first, converted)
    offset = len(first.storages) + len(copied)
    exchanged = tuple(_exchanged(first, asked, places, offset))
    parts = tuple([part._replace(events=_moved(part.events, offset)) for part in asked.parts])
    between = tuple([~(n + offset) for n in given_back.asked])
    gone = tuple([~n for n in given_back.first])
    before = [*first.parts, Part(gone)]
    if asked.remade_at > SECOND:
        before += [*parts, Part(between)]
    released = [~n for n in first.released]
    of_first, of_asked = given_back.taken
    return Course(
        form=asked,
        placing=placing,
        gives_back=_gives_back(first, converted),
        before=(*before, Part(exchanged)),
        asked=parts,
        between=between,
        held=standing((*placing, *released, *first.left, *gone, *exchanged)),
        copied=copied,
        offset=offset,
        trials=_trials(first),
        taken=(tuple([(n + offset, m) for n, m in of_first]), tuple([(n + offset, m + offset) for n, m in of_asked])),
        leaves=given_back.leaves,
    )


def _gives_back(first: Form, converted: frozenset[str]) -> bool:
    """Whether something came and went before the first step."""
    return bool(converted) or any(n < 0 for n in first.before)


def _trials(first: Form) -> frozenset[int]:
    return frozenset(n for n, s in enumerate(first.storages) if s.empties)


def _moved(events: Numbers, offset: int) -> Numbers:
    return tuple([n + offset if n >= 0 else n - offset for n in events])


def _placed(first: Form, converted: frozenset[str]) -> tuple[Numbers, Numbers, list[int]]:
    """The way to what is there before the first step: the network, whose tensors are then ``converted`` one by one; the inputs, each
    converted at once; the rest. The requests, of what the copies are, and the number of each in the end."""
    requests: list[int] = []
    copied: list[int] = []
    places = list(range(len(first.storages)))
    waiting: list[int] = []

    def convert() -> None:
        for n in waiting:
            places[n] = len(first.storages) + len(copied)
            copied.append(n)
            requests.extend((places[n], ~n))
        waiting.clear()

    for n in first.before or range(first.residents):
        storage = first.storages[max(n, ~n)]
        if storage.category not in NETWORK:
            convert()
        requests.append(n)
        if n >= 0 and storage.layer in converted:
            waiting.append(n)
            if storage.category not in NETWORK:
                convert()
    convert()
    return tuple(requests), tuple(copied), places


def _exchanged(first: Form, asked: Form, places: Sequence[int], offset: int) -> Iterator[int]:
    """Before the new buckets of DistributedDataParallel's reducer come, the old ones go (``Reducer::rebuild_buckets``)."""
    old = [n for n, s in enumerate(first.storages[: first.residents]) if is_bucket(s)]
    for n in asked.remade:
        if is_bucket(asked.storages[max(n, ~n)]):
            yield from (~places[bucket] for bucket in old)
            old = []
        yield n + offset if n >= 0 else n - offset
