"""From our own expressions to sympy's: the one door to sympy.

Symbols are positive integers. A floor is ``floor`` of a rational, which sympy carries out exactly for integers of any size; what a
library's kernel holds is a function that plays the kernel once all of its arguments are numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import reduce
from typing import Any

import sympy

from memest.estimate.formulas.polynomial import Polynomial
from memest.sizes.dims import Expr, Opaque


class Largest(sympy.Function):  # type: ignore[misc]
    """The largest of its arguments. Unlike ``sympy.Max`` it does not compare them while they are symbolic, which takes minutes for the
    hundred moments of a network; ``rewrite(sympy.Max)`` does."""

    @classmethod
    def eval(cls, *args: Any) -> Any:
        """A number as soon as all arguments are."""
        return max(args) if all(a.is_Integer for a in args) else None

    def _eval_is_integer(self) -> bool:
        return True

    def _eval_rewrite_as_Max(self, *args: Any, **hints: Any) -> Any:  # noqa: N802 - sympy looks for the name
        return sympy.Max(*args)

    def _latex(self, printer: Any, exp: Any = None) -> str:
        return rf"\max\left({', '.join(map(printer.doprint, self.args))}\right)"

    def _sympystr(self, printer: Any) -> str:
        return f"Max({', '.join(map(printer.doprint, self.args))})"


class Kernel(sympy.Function):  # type: ignore[misc]
    """What a sealed kernel holds, in bytes, as a function of the sizes it depends on; ``inside`` computes it."""

    inside: Callable[..., int]

    @classmethod
    def eval(cls, *args: Any) -> Any:
        """The kernel played, as soon as all arguments are numbers."""
        return sympy.Integer(cls.inside(*map(int, args))) if all(a.is_Integer for a in args) else None

    def _eval_is_integer(self) -> bool:
        return True


def size(name: str) -> Any:
    """The symbol of a named size."""
    return sympy.Symbol(name, positive=True, integer=True)


class Translator:
    """Turns expressions into sympy's, each distinct one once; kernels are numbered as they come: ``w_1``, ``w_2``, …"""

    def __init__(self) -> None:
        self._known: dict[Expr, Any] = {}
        self._kernels: dict[Any, Any] = {}

    def expression(self, e: Expr | int) -> Any:
        """``e`` in sympy."""
        if not isinstance(e, Expr):
            return sympy.Integer(e)
        if e not in self._known:
            self._known[e] = self._translated(e)
        return self._known[e]

    def polynomial(self, p: Polynomial) -> Any:
        """``p`` in sympy, expanded."""
        return sympy.Add(*(self._monomial(c, m) for m, c in p.terms.items()))

    def _monomial(self, c: Fraction, m: Iterable[tuple[Expr, int]]) -> Any:
        return sympy.Mul(sympy.Rational(c.numerator, c.denominator), *(self.expression(a) ** n for a, n in m))

    def _translated(self, e: Expr) -> Any:
        if e.op == "symbol":
            return size(e.args[0])
        args = [self.expression(a) for a in e.args]
        if isinstance(e, Opaque):
            return self._kernel(e)(*args)
        return _OPERATORS[e.op](*args)

    def _kernel(self, e: Opaque) -> Any:
        if e.function not in self._kernels:
            name = f"w_{len(self._kernels) + 1}"
            self._kernels[e.function] = type(name, (Kernel,), {"inside": staticmethod(e.function)})
        return self._kernels[e.function]


def largest(expressions: Iterable[Any]) -> Any:
    """The largest of them (0 of none)."""
    distinct = list(dict.fromkeys(expressions))
    return Largest(*distinct) if len(distinct) > 1 else distinct[0] if distinct else sympy.Integer(0)


def as_int(value: Any) -> int:
    """The number a substituted expression has become."""
    return int(value)


def _quotient(a: Any, b: Any) -> Any:
    return sympy.floor(a / b)


def _remainder(a: Any, b: Any) -> Any:
    return a - b * sympy.floor(a / b)


def _smaller(a: Any, b: Any) -> Any:
    return -Largest(-a, -b)


_OPERATORS: dict[str, Callable[..., Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda *args: reduce(lambda a, b: a * b, args),
    "//": _quotient,
    "%": _remainder,
    "max": Largest,
    "min": _smaller,
}
