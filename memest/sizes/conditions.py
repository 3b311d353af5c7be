"""The conditions under which a compiled step holds: comparisons of sizes, reduced to those that say something.

Sizes are at least 1, so most comparisons made on the way can come out one way only. What is left of the others bounds a single size
(``(H + 31)//32 > 1`` is ``H >= 33``), says what divides it (``(D//2)*2 == D``), or stands as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import lcm, prod
from typing import Any

from memest.errors import GraphError
from memest.sizes.dims import COMPARE, Expr, Guard, Opaque, every_factor, linear, product, resolved, substituted, symbol, symbols_of
from memest.sizes.functions import compile_sizes
from memest.sizes.remembering import Later, Restated, Shelf

MOST_OUTCOMES = 256  # of the comparisons of some sizes, by their values
SOON = 2  # times that comparisons are evaluated before a function is made of them


@dataclass(frozen=True, kw_only=True)
class Conditions(Restated):
    """Where a compiled step holds: every symbol is at least ``least`` and at most ``most`` (where given) and a multiple of
    ``multiple``, and ``others`` are true."""

    least: Mapping[str, int]
    most: Mapping[str, int] = field(default_factory=dict)
    multiple: Mapping[str, int] = field(default_factory=dict)
    others: tuple[Guard, ...] = ()

    def hold(self, sizes: Mapping[str, int]) -> bool:
        """True at these sizes."""
        for s, n in self.least.items():
            if sizes[s] < n:
                return False
        for s, n in self.most.items():
            if sizes[s] > n:
                return False
        for s, n in self.multiple.items():
            if sizes[s] % n:
                return False
        return not self.others or all(part.hold(sizes) for part in self._parts)

    @cached_property
    def _parts(self) -> tuple[_Part, ...]:
        """``others`` by the sizes they speak of."""
        found: dict[tuple[str, ...], list[Guard]] = {}
        for guard in self.others:
            found.setdefault(tuple(sorted(symbols_of((guard.left, guard.right)))), []).append(guard)
        return tuple(_Part(symbols, tuple(guards)) for symbols, guards in sorted(found.items(), key=lambda part: len(part[0])))

    def both(self, other: Conditions) -> Conditions:
        """Where ``self`` and ``other`` hold."""
        return Conditions(
            least={s: max(self.least.get(s, 1), other.least.get(s, 1)) for s in {**self.least, **other.least}},
            most={s: min(c.most[s] for c in (self, other) if s in c.most) for s in {**self.most, **other.most}},
            multiple={s: lcm(self.multiple.get(s, 1), other.multiple.get(s, 1)) for s in {**self.multiple, **other.multiple}},
            others=tuple(dict.fromkeys((*self.others, *other.others))),
        )

    def along(self, free: str, fixed: Mapping[str, int]) -> Conditions:
        """What they say of one size where the others are ``fixed``."""
        done: dict[Expr, Any] = {}
        sides = (Guard(g.op, substituted(g.left, fixed, done), substituted(g.right, fixed, done)) for g in self.guards)
        return reduced(sides, (free,))

    @property
    def guards(self) -> tuple[Guard, ...]:
        """The same as single comparisons."""
        found = [Guard(">=", symbol(s), n) for s, n in self.least.items() if n > 1]
        found += [Guard("<=", symbol(s), n) for s, n in self.most.items()]
        found += [Guard("==", Expr("%", (symbol(s), n)), 0) for s, n in self.multiple.items() if n > 1]
        return (*found, *self.others)

    @property
    def texts(self) -> tuple[str, ...]:
        """One line each, as Python writes comparisons."""
        bounds = []
        for s, n in self.least.items():
            if s in self.most:
                bounds.append(f"{s} == {n}" if self.most[s] == n else f"{n} <= {s} <= {self.most[s]}")
            elif n > 1:
                bounds.append(f"{s} >= {n}")
        return (*bounds, *(f"{s} % {n} == 0" for s, n in self.multiple.items()), *(str(g) for g in self.others))


class _Part:
    """Comparisons that speak of the same sizes, and how they came out before."""

    __slots__ = ("_function", "_guards", "_known", "_sides", "_symbols")

    def __init__(self, symbols: tuple[str, ...], guards: tuple[Guard, ...]) -> None:
        self._symbols = symbols
        self._guards = guards
        self._sides = tuple([side for g in guards for side in (g.left, g.right)])
        self._known: Shelf[bool] = Shelf(MOST_OUTCOMES)
        self._function = Later(lambda: compile_sizes(self._sides, symbols), SOON)

    def hold(self, sizes: Mapping[str, int]) -> bool:
        """True where all come out true."""
        try:
            at = tuple([sizes[s] for s in self._symbols])
        except KeyError:  # said of the comparison that needs it
            return all(g.holds(sizes) for g in self._guards)
        known = self._known.get(at)
        return self._known.keep(at, self._holds(at, sizes)) if known is None else known

    def _holds(self, at: tuple[int, ...], sizes: Mapping[str, int]) -> bool:
        try:
            compute = self._function.get()
            values = resolved(self._sides, sizes) if compute is None else compute(*at)
        except (GraphError, ZeroDivisionError):  # perhaps only where an earlier one is false
            return all(g.holds(sizes) for g in self._guards)
        return all([COMPARE[g.op](a, b) for g, a, b in zip(self._guards, values[::2], values[1::2], strict=True)])


def reduced(guards: Iterable[Guard], symbols: Iterable[str]) -> Conditions:
    """What ``guards`` say together about sizes of at least 1."""
    known = _Known(symbols)
    pending = list(dict.fromkeys(guards))
    before = -1
    while before != len(pending):
        before = len(pending)
        known.round()
        pending = [g for g in pending if not known.learn(g)]
        pending = [g for g in pending if not known.implies(g)]
    known.round()
    others = tuple(g for g in pending if not known.implies(g))
    return Conditions(least=known.least, most=known.most, multiple=known.multiple, others=others)


class _Known:
    """What is known of each symbol so far."""

    def __init__(self, symbols: Iterable[str]) -> None:
        self.least: dict[str, int] = dict.fromkeys(symbols, 1)
        self.most: dict[str, int] = {}
        self.multiple: dict[str, int] = {}
        self._ends: tuple[dict[Expr, int | None], dict[Expr, int | None]] = ({}, {})
        self._written: dict[Expr, Any] = {}

    def _change(self, bounds: dict[str, int], name: str, value: int) -> None:
        """Something else is known of a symbol: what followed from it is found anew."""
        if bounds.get(name) != value:
            bounds[name] = value
            self._ends[0].clear()
            self._ends[1].clear()
            if bounds is self.multiple:
                self._written.clear()

    def round(self) -> None:
        """Bounds to the multiples that lie within them."""
        for name, m in self.multiple.items():
            self._change(self.least, name, -(-self.least[name] // m) * m)
            if name in self.most:
                self._change(self.most, name, self.most[name] // m * m)

    def learn(self, guard: Guard) -> bool:
        """True when the comparison is a bound of one symbol or what divides it, and is now known."""
        op, left, right = guard
        if isinstance(left, int) and isinstance(right, Expr):
            op, left, right = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(op, op), right, left
        if op == "==":
            return self._learn_equal(left, right)
        if not isinstance(left, Expr) or not isinstance(right, int):
            return False
        if op == "!=":
            if self.lowest(left) != right:
                return False
            op = ">"
        if op in (">", ">="):
            found = solved_for(left, right + (op == ">"))
            if found is not None:
                self._change(self.least, found[0], max(self.least[found[0]], found[1]))
        else:
            found = solved_for(left, right + (op == "<="))  # left < right: what reaches right is too much
            if found is not None:
                self._change(self.most, found[0], min(self.most.get(found[0], found[1] - 1), found[1] - 1))
        return found is not None

    def _learn_equal(self, left: Expr | int, right: Expr | int) -> bool:
        """``(x//(c*k))*c == x//k`` for an x that k divides: c*k divides x. ``x == n`` is a bound on both sides."""
        if isinstance(left, Expr) and isinstance(right, int):
            if left.op != "symbol":
                return False
            name = left.args[0]
            self._change(self.least, name, max(self.least[name], right))
            self._change(self.most, name, min(self.most.get(name, right), right))
            return True
        for whole, part in ((left, right), (right, left)):
            found = _divisor(whole, part)
            if found is not None and self.multiple.get(found[0], 1) % found[1] == 0:
                name, of, by = found
                self._change(self.multiple, name, lcm(self.multiple.get(name, 1), of * by))
                return True
        return False

    def implies(self, guard: Guard) -> bool:
        """True when the comparison holds for all sizes that fit what is known."""
        op, left, right = guard
        left, right = self._in_multiples(left), self._in_multiples(right)
        if op in ("<", "<="):
            op, left, right = (">" if op == "<" else ">="), right, left
        left, right = self._without_common_factors(left, right)
        if op in (">", ">="):
            return _above(self.lowest(left), self.highest(right), op == ">=")
        if op == "!=":
            return _above(self.lowest(left), self.highest(right)) or _above(self.lowest(right), self.highest(left))
        return left == right or (self.lowest(left) == self.highest(left) == self.lowest(right) == self.highest(right) is not None)

    def lowest(self, e: Expr | int) -> int | None:
        """A number that ``e`` is at least; None where none is known."""
        return self._end(e, 0)

    def highest(self, e: Expr | int) -> int | None:
        """A number that ``e`` is at most; None where none is known."""
        return self._end(e, 1)

    def _end(self, e: Expr | int, end: int) -> int | None:
        if isinstance(e, int):
            return e
        known = self._ends[end]
        if e not in known:
            known[e] = self._found_end(e, end)
        return known[e]

    def _found_end(self, e: Expr, end: int) -> int | None:
        if e.op == "symbol":
            return self._end_of_symbol(e.args[0], end)
        if isinstance(e, Opaque):
            return None if end else 1
        if e.op in ("+", "-"):
            return self._end_of_sum(e, end)
        ends = [self._end(a, end) for a in e.args]
        numbers = [n for n in ends if n is not None]
        if len(numbers) < len(ends):
            return 0 if e.op == "%" and not end else None
        if e.op == "*":
            return prod(numbers) if all((self._end(a, 0) or 0) >= 0 for a in e.args) else None
        if e.op == "//":
            return numbers[0] // e.args[1] if isinstance(e.args[1], int) and e.args[1] > 0 else None
        if e.op == "%":
            return numbers[1] - 1 if end else 0
        return max(numbers) if e.op == "max" else min(numbers)

    def _in_multiples(self, e: Expr | int) -> Any:
        """``e`` with every symbol written as its known divisor times a symbol of its own."""
        if not isinstance(e, Expr):
            return e
        return substituted(e, {name: product((symbol(f"{name}/{m}"), m)) for name, m in self.multiple.items()}, self._written)

    def _end_of_symbol(self, name: str, end: int) -> int | None:
        name, _, divisor = name.partition("/")
        by = int(divisor or 1)
        if end:
            return self.most[name] // by if name in self.most else None
        return -(-self.least.get(name, 1) // by)

    def _end_of_sum(self, e: Expr, end: int) -> int | None:
        terms, total = linear(e)
        for term, coefficient in terms.items():
            value = self._end(term, end if coefficient > 0 else 1 - end)
            if value is None:
                return None
            total += coefficient * value
        return total

    def _without_common_factors(self, left: Expr | int, right: Expr | int) -> tuple[Expr | int, Expr | int]:
        """Both sides divided by the positive factors they share."""
        a, b = every_factor(left), every_factor(right)
        for factor in list(a):
            if isinstance(factor, Expr) and factor in b and (self.lowest(factor) or 0) > 0:
                a.remove(factor)
                b.remove(factor)
        return product(a), product(b)


def _above(low: int | None, high: int | None, equal: bool = False) -> bool:
    return low is not None and high is not None and (low > high or (equal and low == high))


def solved_for(e: Expr, least: int) -> tuple[str, int] | None:
    """``e >= least`` as (symbol, its least value), where ``e`` grows with one symbol alone."""
    while e.op != "symbol":
        if e.op not in ("+", "-", "*", "//") or not isinstance(e.args[0], Expr) or not isinstance(e.args[1], int):
            return None
        by = e.args[1]
        if e.op == "+":
            least -= by
        elif e.op == "-":
            least += by
        elif by <= 0:
            return None
        else:
            least = -(-least // by) if e.op == "*" else least * by
        e = e.args[0]
    return e.args[0], least


def _divisor(whole: Expr | int, part: Expr | int) -> tuple[str, int, int] | None:
    """(symbol, k, c) of ``x//k == (x//(c*k))*c``, both rounded down or both up."""
    if not isinstance(part, Expr) or part.op != "*" or not isinstance(part.args[1], int):
        return None
    name, k, up = _rounded(whole)
    inner, ck, up_too = _rounded(part.args[0])
    c = part.args[1]
    return (name, k, c) if name is not None and name == inner and ck == c * k and (k == 1 or up == up_too) else None


def _rounded(e: Expr | int) -> tuple[str | None, int, bool]:
    """(symbol, k, whether up) of ``x//k`` or ``(x + k - 1)//k``; k is 1 for ``x`` itself."""
    if isinstance(e, Expr) and e.op == "symbol":
        return e.args[0], 1, False
    if not isinstance(e, Expr) or e.op != "//" or not isinstance(e.args[1], int):
        return None, 1, False
    inner, k = e.args
    up = isinstance(inner, Expr) and inner.op == "+" and inner.args[1] == k - 1
    if up:
        inner = inner.args[0]
    return (inner.args[0], k, up) if isinstance(inner, Expr) and inner.op == "symbol" else (None, 1, False)
