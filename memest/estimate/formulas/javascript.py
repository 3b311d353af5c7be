"""Formulas as JavaScript: one function of the symbols that gives the value of many expressions.

Promises the integers that Python gives. Numbers are doubles only where no intermediate result can reach 2**53 (:func:`magnitude` bounds
them), else BigInts: the caller decides for a whole program and gives the same answer to :func:`helpers` and :func:`function`. Refuses what
has no formula (:class:`memest.sizes.dims.Opaque`). Symbols never reach the text: arguments are called ``s0``, ``s1``, … so a name
cannot be code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from memest.errors import UnsupportedError
from memest.sizes.dims import Expr, Opaque

SAFE = 2**53

_DOUBLES = """const floorDivide = (a, b) => Math.floor(a / b);
const modulo = (a, b) => a - b * Math.floor(a / b);
const larger = (a, b) => (a > b ? a : b);
const smaller = (a, b) => (a < b ? a : b);
"""
# a/b of integers below 2**53 is never rounded up to the next integer: it is at least 1/b away from it, more than half the gap between
# doubles there. BigInt division cuts towards zero, so negative dividends are corrected.
_BIGINTS = """const floorDivide = (a, b) => a / b - (a % b !== 0n && a < 0n !== b < 0n ? 1n : 0n);
const modulo = (a, b) => a - b * floorDivide(a, b);
const larger = (a, b) => (a > b ? a : b);
const smaller = (a, b) => (a < b ? a : b);
"""
_CALLS = {"//": "floorDivide", "%": "modulo", "max": "larger", "min": "smaller"}


def helpers(*, big: bool) -> str:
    """The functions that :func:`function` calls."""
    return _BIGINTS if big else _DOUBLES


def function(name: str, expressions: Sequence[Expr | int], symbols: Sequence[str], *, big: bool) -> str:
    """``function name(s0, s1, …)`` that returns the values of ``expressions`` as an array. Shared subexpressions are computed once."""
    writer = _Writer(symbols, big)
    values = [writer.term(e) for e in expressions]
    return "\n".join(
        [f"function {name}({', '.join(writer.arguments.values())}) {{", *writer.lines, f"  return [{', '.join(values)}];", "}", ""]
    )


class _Writer:
    """Turns expressions into constants, each distinct one once."""

    def __init__(self, symbols: Sequence[str], big: bool) -> None:
        self.arguments = {name: f"s{i}" for i, name in enumerate(symbols)}
        self.lines: list[str] = []
        self._suffix = "n" if big else ""
        self._names: dict[Expr, str] = {}

    def term(self, e: Expr | int) -> str:
        if not isinstance(e, Expr):
            return f"{e}{self._suffix}" if e >= 0 else f"(-{-e}{self._suffix})"
        if isinstance(e, Opaque):
            raise UnsupportedError(f"{e.op!r} has no formula")
        if e.op == "symbol":
            return self.arguments[e.args[0]]
        if e not in self._names:
            a, b = (self.term(x) for x in e.args)
            body = f"{_CALLS[e.op]}({a}, {b})" if e.op in _CALLS else f"{a} {e.op} {b}"
            self._names[e] = f"t{len(self._names)}"
            self.lines.append(f"  const {self._names[e]} = {body};")
        return self._names[e]


def magnitude(e: Expr | int, largest: Mapping[str, int]) -> int:
    """A number that neither ``e`` nor any part of it exceeds in magnitude where every symbol is between 0 and its ``largest``."""
    return _magnitude(e, largest, {})[1]


def _magnitude(e: Expr | int, largest: Mapping[str, int], done: dict[Expr, tuple[int, int]]) -> tuple[int, int]:
    """(bound of the value, bound of the value and everything computed on the way)."""
    if not isinstance(e, Expr):
        return abs(e), abs(e)
    if isinstance(e, Opaque):
        raise UnsupportedError(f"{e.op!r} has no formula")
    if e not in done:
        if e.op == "symbol":
            done[e] = largest[e.args[0]], largest[e.args[0]]
        else:
            (a, most_a), (b, most_b) = (_magnitude(x, largest, done) for x in e.args)
            value = {"+": a + b, "-": a + b, "*": a * b, "//": a + 1, "%": b}.get(e.op, max(a, b))
            done[e] = value, max(value, most_a, most_b, a + b if e.op in ("//", "%") else 0)
    return done[e]
