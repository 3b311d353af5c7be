"""Numbers and polynomials as people and programs read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from memest.estimate.formulas.polynomial import Monomial, Polynomial
from memest.sizes.dims import Expr


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """How the parts of a polynomial are written; ``power`` has places for a name and a number."""

    number: Callable[[int], str]
    size: Callable[[str], str]
    times: str
    power: str


HUMAN = Script(number=lambda n: f"{n:,}", size=str, times="·", power="{}^{}")
PLAIN = Script(number=str, size=str, times="*", power="{}**{}")


def signed_sum(p: Polynomial, order: Sequence[str], script: Script = HUMAN, extra: Sequence[str] = ()) -> str:
    """``1,684·N·H·W + 8·N + 12``; sizes in the given ``order``, ``extra`` names last."""
    parts = [(c < 0, _term(abs(c), m, order, script)) for m, c in p.ordered]
    parts += [(False, name) for name in extra]
    if not parts:
        return script.number(0)
    (negative, first), *others = parts
    return ("-" if negative else "") + first + "".join(f" {'-' if negative else '+'} {text}" for negative, text in others)


def _term(c: Fraction, m: Monomial, order: Sequence[str], script: Script) -> str:
    factors = [_power(e, power, script) for e, power in sorted(m, key=lambda item: _place(item[0], order))]
    if c.numerator != 1 or not factors:
        factors.insert(0, script.number(c.numerator))
    text = script.times.join(factors)
    return text if c.denominator == 1 else f"{text}/{script.number(c.denominator)}"


def _power(e: Expr, power: int, script: Script) -> str:
    name = script.size(e.args[0]) if e.op == "symbol" else f"({e.text})"
    return name if power == 1 else script.power.format(name, power)


def _place(e: Expr, order: Sequence[str]) -> tuple[int, str]:
    return (order.index(e.args[0]) if e.op == "symbol" and e.args[0] in order else len(order), e.text)


def monomial(m: Monomial, order: Sequence[str]) -> str:
    """``N·H·W``."""
    return signed_sum(Polynomial({m: Fraction(1)}), order)
