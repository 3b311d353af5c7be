"""The regime: which moment is the peak around the sizes at hand, what is alive then, and where it provably stays the peak.

Every other moment is compared with the winner. Where no kernel's inside is in question, or where the most it could hold leaves no doubt,
the comparison is one of polynomials: always true, true from or up to some number of elements, or kept as it is. A kernel that comes
close is taken for what its formula says, and the regime then holds only while the library chooses so (:attr:`Regime.watched`), which
:meth:`Regime.holds` checks by asking the kernel itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from memest.estimate.formulas.domain import Domain, Interval, covers
from memest.estimate.formulas.moments import Inside, alive_at, inside
from memest.estimate.formulas.notation import monomial, signed_sum
from memest.estimate.formulas.polynomial import ONE, Monomial, Polynomial, degree, number, total
from memest.memory.live_sets import Instant, LiveSets
from memest.sizes.dims import Opaque


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A kernel taken for its formula: what it holds must not be more (for the winner: must be just that)."""

    instant: Instant
    inner: Opaque
    held: Polynomial
    inside: Inside


@dataclass(frozen=True, kw_only=True)
class Regime:
    """The peak around some sizes: ``alive`` bytes without scratchpads, ``by_category`` too, plus ``scratchpad_bytes``. It holds in the
    ``domain`` where ``scale`` lies in ``interval``, every one of ``comparisons`` is at least 0 and the ``watched`` kernels hold what
    their formulas say (the winner's own, if it has one, is ``own``)."""

    instant: Instant | None
    domain: Domain
    alive: Polynomial
    by_category: Mapping[str, Polynomial]
    own: Watched | None
    scale: Monomial
    interval: Interval
    comparisons: tuple[Polynomial, ...]
    watched: tuple[Watched, ...]
    rivals: int

    @cached_property
    def peak(self) -> Polynomial:
        """Bytes at the peak, scratchpads included."""
        return self.alive + number(self.scratchpad_bytes)

    @property
    def scratchpad_bytes(self) -> int:
        """What the library works in at the winner's highest event, at the sizes at hand."""
        return self.own.inside.scratchpad_bytes if self.own else 0

    @property
    def kernels(self) -> tuple[Watched, ...]:
        """Every kernel whose formula counts: the winner's own first."""
        return (*((self.own,) if self.own else ()), *self.watched)

    def texts(self, order: Sequence[str]) -> tuple[str, ...]:
        """The conditions that are comparisons, one line each, with sizes in the given ``order``."""
        low, high = self.interval
        name = monomial(self.scale, order)
        found = [*self.domain.texts]
        if low is not None and high is not None:
            found.append(f"{low:,} <= {name} <= {high:,}")
        elif low is not None or high is not None:
            found.append(f"{name} >= {low:,}" if high is None else f"{name} <= {high:,}")
        return (*found, *(f"{signed_sum(c, order)} >= 0" for c in self.comparisons))

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """True where ``peak`` is the peak: every condition checked, kernels asked."""
        low, high = self.interval
        if not self.domain.holds(sizes):
            return False
        size = Polynomial({self.scale: number(1).constant}).evaluate(sizes)
        if (low is not None and size < low) or (high is not None and size > high):
            return False
        return all(c.evaluate(sizes) >= 0 for c in self.comparisons) and self.chooses(sizes)

    def chooses(self, sizes: Mapping[str, int]) -> bool:
        """True where the kernels, asked, hold what their formulas say."""
        if self.own and self.own.inner.evaluate(sizes) != self.own.held.evaluate(sizes):
            return False
        return all(w.inner.evaluate(sizes) <= w.held.evaluate(sizes) for w in self.watched)


def regime(program: LiveSets, domain_: Domain, sizes: Mapping[str, int]) -> Regime:
    """The regime around ``sizes``, which lie in the domain."""
    rows = _Rows(program, domain_, sizes)
    winner = rows.highest()
    instant = None if winner is None else program.instants[winner]
    own = None if winner is None else rows.watched(winner)
    parts: dict[str, list[tuple[Polynomial, int]]] = {}
    for category, _, size in alive_at(program, instant, own.inside if own else None):
        parts.setdefault(category, []).append((domain_.polynomial(size), 1))
    by_category = {c: total(p) for c, p in parts.items()}
    alive = total((p, 1) for p in by_category.values())
    if winner is None:
        return Regime(
            instant=None, domain=domain_, alive=alive, by_category=by_category, own=None, scale=ONE, interval=(None, None),
            comparisons=(), watched=(), rivals=0,
        )  # fmt: skip
    top = rows.exact(winner)
    scale = max((m for m in top.terms), key=degree, default=ONE)
    found = _Comparisons(domain_, scale, sizes)
    others = [i for i in range(len(program.instants)) if i != winner]
    close = []
    for i in others:
        if program.instants[i].inner is None:
            found.add(top - rows.alive[i])
        elif not all(domain_.is_nonnegative(top - bound) for bound in rows.bounds(i)):
            close.append(i)
            found.add(top - rows.exact(i))
    return Regime(
        instant=instant,
        domain=domain_,
        alive=alive,
        by_category=by_category,
        own=own,
        scale=scale,
        interval=(found.low, found.high),
        comparisons=tuple(found.kept),
        watched=tuple(w for w in map(rows.watched, (i for i in close if not rows.implied(i, top, found))) if w),
        rivals=len(others),
    )


def dominant(program: LiveSets, domain_: Domain, sizes: Mapping[str, int]) -> list[int]:
    """Instants that could be the peak somewhere in the domain: those that no other equals or exceeds throughout it."""
    rows = _Rows(program, domain_, sizes)
    shifted = [domain_.shifted(p) for p in rows.alive]
    kept: list[int] = []
    for i in sorted(range(len(shifted)), key=lambda i: -rows.alive[i].evaluate(sizes)):
        inner = program.instants[i].inner
        bounds = [shifted[i]] if inner is None else [domain_.shifted(b) for b in rows.bounds(i)]
        if not any(all(covers(shifted[j], b) for b in ([shifted[i]] if program.instants[j].inner is inner else bounds)) for j in kept):
            kept.append(i)
    return sorted(kept)


class _Rows:
    """The instants of a program as polynomials: bytes of counted tensors, with bounds of kernels, with formulas of kernels."""

    def __init__(self, program: LiveSets, domain_: Domain, sizes: Mapping[str, int]) -> None:
        self.program = program
        self.sizes = sizes
        self._domain = domain_
        self._terms = [*(domain_.polynomial(t) for t in program.terms), number(1)]
        self.alive = [total(zip(self._terms, map(int, row), strict=True)) for row in program.coefficients]
        self._bounds: dict[int, list[Polynomial]] = {}
        self._watched: dict[int, Watched] = {}

    def bounds(self, i: int) -> list[Polynomial]:
        """Of these the greatest is the most that can be alive at an instant."""
        if i not in self._bounds:
            rows = self.program.bounds[self.program.bounds_at(i)]
            self._bounds[i] = [total(zip(self._terms, map(int, row), strict=True)) for row in rows]
        return self._bounds[i]

    def implied(self, i: int, top: Polynomial, found: _Comparisons) -> bool:
        """True where the comparisons kept leave an instant no chance."""
        return all(found.implies(top - bound) for bound in self.bounds(i))

    def watched(self, i: int) -> Watched | None:
        """The kernel of an instant with its formula."""
        instant = self.program.instants[i]
        if instant.inner is None:
            return None
        if i not in self._watched:
            within = inside(instant.inner, self.sizes)
            sizes = [*(size for _, size in within.tensors), *within.scratch, within.scratchpad_bytes]
            held = total((self._domain.polynomial(size), 1) for size in sizes)
            self._watched[i] = Watched(instant=instant, inner=instant.inner, held=held, inside=within)
        return self._watched[i]

    def exact(self, i: int) -> Polynomial:
        """What is alive at an instant, a kernel taken for its formula."""
        kernel = self.watched(i)
        return self.alive[i] if kernel is None else self.alive[i] + kernel.held

    def highest(self) -> int | None:
        """The instant that is the peak at the sizes at hand; the first of equals."""
        best, where = 0, None
        for i, bound in self._by_bound():
            if bound <= best and where is not None:
                break
            inner = self.program.instants[i].inner
            value = int(self.alive[i].evaluate(self.sizes)) + (0 if inner is None else inner.evaluate(self.sizes))
            if value > best or where is None or (value == best and i < where):
                best, where = value, i
        return where

    def _by_bound(self) -> Iterator[tuple[int, int]]:
        bounds = [max(int(b.evaluate(self.sizes)) for b in self.bounds(i)) for i in range(len(self.alive))]
        for i in sorted(range(len(bounds)), key=lambda i: (-bounds[i], i)):
            yield i, bounds[i]


class _Comparisons:
    """Differences that must not fall below 0, merged into one interval of ``scale`` where that is possible."""

    def __init__(self, domain_: Domain, scale: Monomial, sizes: Mapping[str, int]) -> None:
        self._domain = domain_
        self._scale = scale
        self._here = Polynomial({scale: number(1).constant}).evaluate(sizes)
        self.low: int | None = None
        self.high: int | None = None
        self.kept: list[Polynomial] = []

    def add(self, difference: Polynomial) -> None:
        """One more; an interval that leaves out the sizes at hand is no use, and the difference is kept as it is."""
        found = self._domain.interval(difference, self._scale)
        if found is None or not _within(self._here, found):
            self.kept.append(difference)
            return
        low, high = found
        self.low = low if self.low is None else self.low if low is None else max(low, self.low)
        self.high = high if self.high is None else self.high if high is None else min(high, self.high)

    def implies(self, difference: Polynomial) -> bool:
        """True when the interval alone makes it at least 0."""
        found = self._domain.interval(difference, self._scale)
        if found is None:
            return False
        low, high = found
        return (low is None or (self.low is not None and self.low >= low)) and (
            high is None or (self.high is not None and self.high <= high)
        )


def _within(value: object, interval: Interval) -> bool:
    low, high = interval
    return (low is None or value >= low) and (high is None or value <= high)  # type: ignore[operator]
