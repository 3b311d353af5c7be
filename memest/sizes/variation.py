"""Other sizes at which the conditions of a network hold: where else to look whether it stays the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from memest.sizes.conditions import Conditions, solved_for
from memest.sizes.dims import Expr, substituted

TRIED = 64  # sizes looked at along one symbol
FACTORS = (2, 3, 4, 6, 8)

Sizes = dict[str, int]


def varied(conditions: Conditions, sizes: Mapping[str, int], *, without: frozenset[str] = frozenset()) -> Iterator[Sizes]:
    """Sizes of which as many as can be are others than in ``sizes``, and apart from one another: at first all that are free; then all by
    one factor, where they are tied; then one alone. Those ``without`` stay."""
    start = dict(sizes)
    free = {s: numbers for s in sizes if s not in without and (numbers := _along(conditions, start, s))}
    apart = {s: numbers[0] for s, numbers in _apart(free)}
    scaled = [{s: n * factor for s, n in start.items() if s not in without} for factor in FACTORS]
    spatial = [{s: n for s, n in chosen.items() if s != "N"} for chosen in scaled]
    for chosen in (apart, *scaled, *spatial, *({s: numbers[0]} for s, numbers in free.items())):
        found = {**start, **chosen}
        if found != start and conditions.hold(found):
            yield found


def one_by_one(conditions: Conditions, sizes: Mapping[str, int], other: Mapping[str, int]) -> Iterator[tuple[frozenset[str], Sizes]]:
    """The symbols that are ``other``, each alone where conditions let it, and those together that are tied; with the sizes."""
    left = [s for s in sizes if other[s] != sizes[s]]
    tied = []
    for s in left:
        alone = {**sizes, s: other[s]}
        if conditions.hold(alone):
            yield frozenset({s}), alone
        else:
            tied.append(s)
    if tied:
        yield frozenset(tied), {**sizes, **{s: other[s] for s in tied}}


def where(conditions: Conditions, sizes: Mapping[str, int], e: Expr, number: int) -> Iterator[tuple[str, Sizes]]:
    """Sizes of which one is another, such that ``e`` is ``number``: the symbol and the sizes, for each symbol that can be."""
    for s in sorted(e.symbols()):
        rest = substituted(e, {name: n for name, n in sizes.items() if name != s})
        solved = solved_for(rest, number) if isinstance(rest, Expr) else None
        at = None if solved is None else {**sizes, s: solved[1]}
        if at is not None and at != sizes and e.evaluate(at) == number and conditions.hold(at):
            yield s, at


def least(conditions: Conditions, sizes: Mapping[str, int], s: str) -> Sizes | None:
    """The same with ``s`` as small as it can be; None where it is."""
    by = conditions.multiple.get(s, 1)
    tried = range(max(by, -(-conditions.least.get(s, 1) // by) * by), sizes[s], by)
    return next((at for n in islice(tried, TRIED) if conditions.hold(at := {**sizes, s: n})), None)


def _along(conditions: Conditions, sizes: Sizes, s: str) -> list[int]:
    """Other numbers for one symbol alone, those far away first."""
    found = (n for n in _candidates(conditions, s, sizes[s]) if n != sizes[s] and conditions.hold({**sizes, s: n}))
    return list(islice(found, 3))


def _candidates(conditions: Conditions, s: str, now: int) -> Iterator[int]:
    """Numbers that bounds and divisors allow: about twice as large, odd multiples first; then smaller ones; then all that are near."""
    by, least, most = conditions.multiple.get(s, 1), conditions.least.get(s, 1), conditions.most.get(s)
    start = (2 * now) // by + 1
    tried = [by * k for k in range(start, start + 8)] + [now * f for f in FACTORS]
    tried += [by * k for k in range(now // by - 1, max(now // by - 9, 0), -1)]
    tried += [by * k for k in range(now // by + 1, now // by + 1 + TRIED)] + [least, most or least]
    return (n for n in dict.fromkeys(tried) if n >= least and (most is None or n <= most))


def _apart(free: Mapping[str, list[int]]) -> Iterator[tuple[str, list[int]]]:
    """The numbers of each symbol from one on that no other begins with."""
    taken: set[int] = set()
    for s, numbers in free.items():
        i = next((i for i, n in enumerate(numbers) if n not in taken), 0)
        taken.add(numbers[i])
        yield s, numbers[i:]
