"""A page's data evaluated: what the browser does, in Python. The peak of a choice at a setting, and what it is made of."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from memest.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """The peak, what was there before the step, the bytes at the peak by category (those that hold any), and the event that reaches it."""

    peak_bytes: int
    standing_bytes: int
    by_category: Mapping[str, int]
    where: tuple[str, str, str]


class Reading:
    """Evaluates the plain data of :class:`memest.planning.page.PageModel`."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data

    def sizes_at(self, setting: int) -> dict[str, int]:
        """The symbols' sizes at a setting (the last axis runs fastest)."""
        sizes = {}
        for axis in reversed(self.data["axes"]):
            setting, i = divmod(setting, len(axis["values"]))
            sizes[axis["symbol"]] = axis["values"][i]
        return sizes

    def at(self, choice: int, setting: int) -> Read:
        """The peak there. UsageError with the network's own reason where it cannot run."""
        data, chosen = self.data, self.data["choices"][choice]
        program = chosen["programs"][setting]
        if program < 0:
            raise UsageError(chosen["refusals"][-1 - program])
        sizes = self.sizes_at(setting)
        terms = [valued(t, sizes) for t in data["terms"]]
        forms = [f[0] + sum(c * terms[t] for c, t in zip(f[1::2], f[2::2], strict=True)) for f in data["forms"]]
        held = [k["entries"][3 * k["codes"][setting] :][:3] for k in data["kernels"]]
        alive = [0] * len(data["categories"])
        for size, category, _ in data["programs"][program]["residents"]:
            alive[category] += forms[size]
        resident = best = sum(alive)
        peak, where = list(alive), ("standing", "", "")
        for shares, place in self._changes(program, forms, held):
            for category, n in shares:
                alive[category] += n
            if sum(alive) > best:
                best, peak, where = sum(alive), list(alive), place
        names = dict(zip(data["categories"], peak, strict=True))
        return Read(peak_bytes=best, standing_bytes=resident, by_category={c: n for c, n in names.items() if n}, where=where)

    def _changes(self, program: int, forms: list[int], held: list[list[int]]) -> Any:
        """Each event: what it adds to categories, and where it is (phase, layer, operator)."""
        strings = self.data["strings"]
        segments = [self.data["segments"][s] for s in self.data["programs"][program]["segments"]]
        made = [n for s in segments for n in s["made"]]
        moves = [n for s in segments for n in s["moves"]]
        runs = [n for s in segments for n in s["runs"]]
        places = [tuple(strings[n] for n in runs[i : i + 3]) for i in range(0, len(runs), 4) for _ in range(runs[i + 3])]
        count = 0
        for move, place in zip(moves, places, strict=True):
            number = count if move == 0 else move - 1
            count += move == 0
            sign = 1 if move == 0 else -1
            yield [(c, sign * n) for c, n in self._shares(number, made, forms, held)], place

    def _shares(self, number: int, made: list[int], forms: list[int], held: list[list[int]]) -> list[tuple[int, int]]:
        """What an allocation adds to which category. A kernel's results are the allocations that follow it."""
        size, category = made[3 * number], made[3 * number + 1]
        if size >= 0:
            return [(category, forms[size])]
        total, bits, temporaries = held[-1 - size]
        shares = [(self.data["categories"].index("temporary"), temporaries)]
        follower = number + 1
        while bits:
            if bits & 1:
                shares.append((made[3 * follower + 1], forms[made[3 * follower]]))
            bits >>= 1
            follower += 1
        return [*shares, (category, total - sum(n for _, n in shares))]


def valued(tree: Any, sizes: Mapping[str, int]) -> int:
    """The number behind a tree of :func:`memest.planning.page.model.tree`."""
    if isinstance(tree, str):
        return sizes[tree]
    if isinstance(tree, int):
        return tree
    op, left, right = tree
    return _COMPUTE[op](valued(left, sizes), valued(right, sizes))


_COMPUTE: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "max": max,
    "min": min,
}
