"""The sizes among which floors are gone: every symbol is its remainder plus a multiple of a fixed number.

The numbers are the least that make all divisions come out even, and the remainders those of the sizes at hand, so these always lie in
the domain. Inside it every size is a polynomial, and comparisons of polynomials can be proved: with each symbol written as its least
value plus something that is not negative, a difference without negative coefficients never falls below 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from math import ceil, floor, gcd, lcm

from memest.estimate.formulas.polynomial import Monomial, Polynomial, atom, degree, expanded, number, quotient, total
from memest.sizes.conditions import Conditions
from memest.sizes.dims import Dim, Expr, Opaque, expression, linear, substituted, symbol

LARGEST_STEP = 1 << 16
ROUNDS = 8
Interval = tuple[int | None, int | None]


@dataclass(frozen=True, kw_only=True)
class Domain:
    """Sizes under ``conditions`` with ``size % steps[name] == rests[name]``."""

    conditions: Conditions
    steps: Mapping[str, int]
    rests: Mapping[str, int]
    _known: dict[Expr, Polynomial] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def least(self) -> dict[str, int]:
        """The smallest value each symbol can take."""
        return {s: lowest + (self.rests[s] - lowest) % self.steps[s] for s, lowest in self.conditions.least.items()}

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """True for sizes that lie in it."""
        return self.conditions.hold(sizes) and all(sizes[s] % n == self.rests[s] for s, n in self.steps.items())

    @property
    def texts(self) -> tuple[str, ...]:
        """The conditions, divisibility included, one line each."""
        plain = Conditions(least=self.least, most=self.conditions.most, others=self.conditions.others).texts
        return (*plain, *(f"{s} % {n} == {self.rests[s]}" for s, n in self.steps.items() if n > 1))

    def polynomial(self, e: Expr | int) -> Polynomial:
        """``e`` in the symbols themselves; equal to it throughout the domain."""
        return expanded(substituted(e, self._inner), self._known).replaced(self._outward)

    @cached_property
    def _inner(self) -> dict[str, Expr | int]:
        """Each symbol in terms of how often its step fits; one that has a single value is that number."""
        fixed = {s: n for s, n in self.conditions.most.items() if self.least.get(s) == n}
        return fixed | {s: expression(Dim(1, symbol(f"{s}'")) * n + self.rests[s]) for s, n in self.steps.items() if s not in fixed}

    @cached_property
    def _back(self) -> dict[str, Expr | int]:
        return {f"{s}'": expression((Dim(1, symbol(s)) - self.rests[s]) // n) for s, n in self.steps.items()}

    def _outward(self, e: Expr) -> Polynomial:
        if e.op != "symbol":
            whole = substituted(e, self._back)
            return number(0) if self._is_zero(whole) else atom(whole)
        name = e.args[0].removesuffix("'")
        step = self.steps[name]
        return total(((atom(symbol(name)), Fraction(1, step)), (number(self.rests[name]), Fraction(-1, step))))

    def _is_zero(self, e: Expr) -> bool:
        """True for ``n // e`` where ``e`` is always more than the number n."""
        if e.op != "//" or not isinstance(e.args[0], int) or e.args[0] < 0 or not isinstance(e.args[1], Expr):
            return False
        return self.is_nonnegative(self.polynomial(e.args[1]) - number(e.args[0] + 1))

    def shifted(self, p: Polynomial) -> Polynomial:
        """``p`` in how far each symbol is above its least value."""
        return p.replaced(lambda e: atom(e) + number(self.least[e.args[0]]) if e.op == "symbol" else atom(e))

    def is_nonnegative(self, p: Polynomial) -> bool:
        """True where a proof is found that ``p`` is at least 0 throughout the domain."""
        return covers(self.shifted(p), number(0))

    def interval(self, p: Polynomial, scale: Monomial) -> Interval | None:
        """(least, most) of the monomial ``scale`` between which ``p`` is surely at least 0 (None: no bound needed on that side); None
        where no such bounds are found.

        A negative term that divides ``scale`` is at least itself over the smallest value of the quotient, times ``scale``; a positive
        one is at least its smallest value."""
        if self.is_nonnegative(p):
            return None, None
        slope, rest = Fraction(0), Fraction(0)
        for m, c in p.terms.items():
            if degree(m) == 0:
                rest += c
                continue
            if any(e.op != "symbol" for e, _ in m):
                return None
            if m == scale:
                slope += c
            elif c > 0:
                rest += c * self._smallest(m)
            else:
                others = quotient(scale, m)
                if others is None:
                    return None
                slope += c / self._smallest(others)
        if slope > 0:
            return (None, None) if rest >= 0 else (ceil(-rest / slope), None)
        if slope == 0:
            return (None, None) if rest >= 0 else None
        return (None, floor(rest / -slope)) if rest > 0 else None

    def _smallest(self, m: Monomial) -> int:
        result = 1
        for e, power in m:
            result *= self.least[e.args[0]] ** power
        return result


def covers(a: Polynomial, b: Polynomial) -> bool:
    """True when shifted ``a`` has no coefficient below ``b``'s, and the same of what is no symbol: then it is nowhere below ``b``."""
    for m in a.terms.keys() | b.terms.keys():
        difference = a.terms.get(m, 0) - b.terms.get(m, 0)
        if difference and (difference < 0 or any(e.op != "symbol" for e, _ in m)):
            return False
    return True


def domain(expressions: Iterable[Expr | int], conditions: Conditions, sizes: Mapping[str, int]) -> Domain:
    """The domain around ``sizes`` in which ``expressions`` have no floors, as far as multiples of single symbols can do that."""
    wanted = [e for e in dict.fromkeys(expressions) if isinstance(e, Expr)]
    steps = {s: conditions.multiple.get(s, 1) for s in conditions.least}
    for _ in range(ROUNDS):
        found = Domain(conditions=conditions, steps=steps, rests={s: sizes[s] % n for s, n in steps.items()})
        factors = _factors([substituted(e, found._inner) for e in wanted])
        grown = {s: n * factors.get(s, 1) for s, n in steps.items()}
        grown = {s: n if n <= LARGEST_STEP else steps[s] for s, n in grown.items()}
        if grown == steps:
            return found
        steps = grown
    return found


def _factors(expressions: Iterable[Expr | int]) -> dict[str, int]:
    """By what each symbol's step must still be multiplied, as floors and remainders of sums of symbols tell."""
    found: dict[str, int] = {}
    seen: set[Expr] = set()
    stack: list[object] = list(expressions)
    while stack:
        e = stack.pop()
        if not isinstance(e, Expr) or e in seen:
            continue
        seen.add(e)
        if e.op != "symbol" and not isinstance(e, Opaque):
            stack.extend(e.args)
        if e.op in ("//", "%") and isinstance(e.args[0], Expr) and isinstance(e.args[1], int) and e.args[1] > 0:
            for term, c in linear(e.args[0])[0].items():
                if term.op == "symbol":
                    name = term.args[0].removesuffix("'")
                    found[name] = lcm(found.get(name, 1), e.args[1] // gcd(c, e.args[1]))
    return found
