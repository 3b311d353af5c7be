"""Polynomials of sizes with rational coefficients: what a size is once its floors are gone.

A monomial is a product of atoms: symbols, and expressions that no polynomial is equal to (a floor that stays, what a library's
scratchpad takes). Nothing is rounded: coefficients are fractions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from memest.sizes.dims import Expr, Opaque, linear

Monomial = tuple[tuple[Expr, int], ...]
ONE: Monomial = ()


@dataclass(frozen=True, slots=False, eq=False)
class Polynomial:
    """Coefficients by monomial; none of them is 0."""

    terms: Mapping[Monomial, Fraction]

    def __add__(self, other: Polynomial) -> Polynomial:
        return total(((self, 1), (other, 1)))

    def __sub__(self, other: Polynomial) -> Polynomial:
        return total(((self, 1), (other, -1)))

    def __mul__(self, other: Polynomial) -> Polynomial:
        found: dict[Monomial, Fraction] = {}
        for a, m in self.terms.items():
            for b, n in other.terms.items():
                product = times(a, b)
                found[product] = found.get(product, Fraction(0)) + m * n
        return Polynomial({k: c for k, c in found.items() if c})

    @cached_property
    def atoms(self) -> frozenset[Expr]:
        """All atoms in it."""
        return frozenset(atom for m in self.terms for atom, _ in m)

    @property
    def constant(self) -> Fraction:
        """The coefficient of 1."""
        return self.terms.get(ONE, Fraction(0))

    def evaluate(self, sizes: Mapping[str, int]) -> Fraction:
        """Its value where symbols have ``sizes``."""
        values = {atom: atom.evaluate(sizes) for atom in self.atoms}
        return sum((c * _value(m, values) for m, c in self.terms.items()), Fraction(0))

    def replaced(self, value: Callable[[Expr], Polynomial]) -> Polynomial:
        """With ``value(atom)`` in the place of every atom."""
        known = {atom: value(atom) for atom in self.atoms}
        parts = []
        for m, c in self.terms.items():
            part = number(c)
            for atom, power in m:
                for _ in range(power):
                    part = part * known[atom]
            parts.append((part, 1))
        return total(parts)

    @property
    def ordered(self) -> list[tuple[Monomial, Fraction]]:
        """Its terms as they are read: the highest degree first, the constant last."""
        return sorted(self.terms.items(), key=lambda item: (-degree(item[0]), [(a.rank, -p) for a, p in item[0]]))


def number(value: int | Fraction) -> Polynomial:
    """A constant."""
    return Polynomial({ONE: Fraction(value)} if value else {})


def atom(e: Expr) -> Polynomial:
    """``e`` as it is."""
    return Polynomial({((e, 1),): Fraction(1)})


def total(parts: Iterable[tuple[Polynomial, int | Fraction]]) -> Polynomial:
    """The sum of polynomials, each times a number."""
    found: dict[Monomial, Fraction] = {}
    for p, factor in parts:
        for m, c in p.terms.items() if factor else ():
            found[m] = found.get(m, Fraction(0)) + c * factor
    return Polynomial({m: c for m, c in found.items() if c})


def expanded(e: Expr | int, known: dict[Expr, Polynomial] | None = None) -> Polynomial:
    """``e`` as a polynomial; floors, remainders, maxima and opaque functions in it become atoms. ``known`` remembers parts."""
    known = {} if known is None else known
    if isinstance(e, int):
        return number(e)
    if e not in known:
        known[e] = _expanded(e, known)
    return known[e]


def _expanded(e: Expr, known: dict[Expr, Polynomial]) -> Polynomial:
    if isinstance(e, Opaque) or e.op not in ("+", "-", "*"):
        return atom(e)
    if e.op == "*":
        return expanded(e.args[0], known) * expanded(e.args[1], known)
    terms, constant = linear(e)
    return total([(number(constant), 1), *((expanded(t, known), c) for t, c in terms.items())])


def times(a: Monomial, b: Monomial) -> Monomial:
    """The product of two monomials."""
    powers = dict(a)
    for factor, power in b:
        powers[factor] = powers.get(factor, 0) + power
    return tuple(sorted(powers.items(), key=lambda item: item[0].rank))


def quotient(a: Monomial, b: Monomial) -> Monomial | None:
    """``a / b``; None where it is no monomial."""
    powers = dict(a)
    for factor, power in b:
        powers[factor] = powers.get(factor, 0) - power
    if any(p < 0 for p in powers.values()):
        return None
    return tuple((f, p) for f, p in sorted(powers.items(), key=lambda item: item[0].rank) if p)


def degree(m: Monomial) -> int:
    """The sum of the powers."""
    return sum(power for _, power in m)


def _value(m: Monomial, values: Mapping[Expr, int]) -> int:
    result = 1
    for factor, power in m:
        result *= values[factor] ** power
    return result
