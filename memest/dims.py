"""Symbolic dims: expressions over named sizes (``N``, ``H // 2``), and ``Dim``, an int that carries its expression.

Rows are plain arithmetic, so they run unchanged on a ``Dim`` and give their formula along with the number.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from memest.errors import GraphError

_BINARY: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "max": max,
    "min": min,
}
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "//": 2, "%": 2}
_AST_OPS: dict[type, str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%"}
MAX_DEPTH = 64


class Expr:
    """An immutable integer expression. Its text is its identity."""

    __slots__ = ("args", "op", "text")

    def __init__(self, op: str, args: tuple[Any, ...]) -> None:
        self.op = op
        self.args = args
        self.text = self._print()

    def _print(self) -> str:
        if self.op == "symbol":
            return str(self.args[0])
        if self.op in ("max", "min"):
            return f"{self.op}({', '.join(str(a) for a in self.args)})"
        level = _PRECEDENCE[self.op]
        left, right = (_wrapped(a, level, side) for side, a in enumerate(self.args))
        return f"{left}{self.op}{right}" if level == 2 else f"{left} {self.op} {right}"

    def evaluate(self, sizes: Mapping[str, int]) -> int:
        """Its value where symbols have ``sizes``."""
        if self.op == "symbol":
            try:
                return sizes[self.args[0]]
            except KeyError:
                raise GraphError(f"size {self.args[0]!r} is not a dim of any input") from None
        values = [a.evaluate(sizes) if isinstance(a, Expr) else a for a in self.args]
        if self.op in ("//", "%") and values[1] == 0:
            raise GraphError(f"division by zero in {self.text!r}")
        return _BINARY[self.op](values[0], values[1])

    def symbols(self) -> set[str]:
        """Names of the sizes it depends on."""
        if self.op == "symbol":
            return {self.args[0]}
        found: set[str] = set()
        for a in self.args:
            if isinstance(a, Expr):
                found |= a.symbols()
        return found

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Expr({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expr) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


def _wrapped(arg: Any, level: int, side: int) -> str:
    if not isinstance(arg, Expr) or arg.op in ("symbol", "max", "min"):
        return str(arg) if not isinstance(arg, int) or arg >= 0 else f"({arg})"
    inner = _PRECEDENCE[arg.op]
    loose = inner < level or (inner == level and (side == 1 or level == 2))
    return f"({arg})" if loose else str(arg)


def symbol(name: str) -> Expr:
    """A named size."""
    return Expr("symbol", (name,))


@lru_cache(maxsize=4096)
def parse(text: str) -> Expr | int:
    """The expression written in ``text``: names, integers, ``+ - * // %``, ``max``, ``min``, parentheses. Nothing is executed."""
    if len(text) > 1000:
        raise GraphError("expression of more than 1000 characters")
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise GraphError(f"not an integer expression: {text!r}") from None
    return _build(tree, text, 0)


def _build(node: ast.AST, text: str, depth: int) -> Expr | int:
    if depth > MAX_DEPTH:
        raise GraphError(f"expression nested deeper than {MAX_DEPTH}: {text[:40]!r}…")
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name):
        return symbol(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _combine("-", 0, _build(node.operand, text, depth + 1))
    if isinstance(node, ast.BinOp) and type(node.op) in _AST_OPS:
        return _combine(_AST_OPS[type(node.op)], _build(node.left, text, depth + 1), _build(node.right, text, depth + 1))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("max", "min") and len(node.args) == 2:
        return _combine(node.func.id, _build(node.args[0], text, depth + 1), _build(node.args[1], text, depth + 1))
    raise GraphError(f"not an integer expression: {text!r}; use names, integers, + - * // % max min")


def _combine(op: str, a: Expr | int, b: Expr | int) -> Expr | int:
    if isinstance(a, int) and isinstance(b, int):
        if op in ("//", "%") and b == 0:
            raise GraphError("division by zero in an expression")
        return _BINARY[op](a, b)
    if (op in ("+", "-") and b == 0 and isinstance(b, int)) or (op in ("*", "//") and b == 1 and isinstance(b, int)):
        return a
    if (op == "+" and isinstance(a, int) and a == 0) or (op == "*" and isinstance(a, int) and a == 1):
        return b
    return Expr(op, (a, b))


class Dim(int):
    """An int that remembers how it was computed. Comparisons and anything not integer arithmetic see the plain number."""

    expr: Expr

    def __new__(cls, value: int, expr: Expr) -> Dim:
        self = super().__new__(cls, value)
        self.expr = expr
        return self


def _arithmetic(op: str, swapped: bool) -> Callable[[Any, Any], Any]:
    compute = _BINARY[op]

    def method(self: Dim, other: Any) -> Any:
        if not isinstance(other, int) or isinstance(other, bool):
            return NotImplemented if not isinstance(other, float) else _float(op, self, other, swapped)
        a, b = (other, self) if swapped else (self, other)
        value = compute(int(a), int(b))
        expr = _combine(op, expression(a), expression(b))
        return Dim(value, expr) if isinstance(expr, Expr) else value

    return method


def _float(op: str, a: int, b: float, swapped: bool) -> float:
    x: Any = int(a)
    return float(_BINARY[op](b, x) if swapped else _BINARY[op](x, b))  # type: ignore[arg-type]


for _op, _name in (("+", "add"), ("-", "sub"), ("*", "mul"), ("//", "floordiv"), ("%", "mod")):
    setattr(Dim, f"__{_name}__", _arithmetic(_op, False))
    setattr(Dim, f"__r{_name}__", _arithmetic(_op, True))


def expression(value: int | Expr) -> Expr | int:
    """What a size is written as: the expression of a ``Dim``, else the plain int."""
    if isinstance(value, Dim):
        return value.expr
    return value if isinstance(value, Expr) else int(value)


def resolve(value: Any, sizes: Mapping[str, int]) -> Any:
    """``value`` with every expression in it (nested tuples too) replaced by its number."""
    if isinstance(value, Expr):
        return value.evaluate(sizes)
    if isinstance(value, tuple):
        return tuple(resolve(v, sizes) for v in value)
    return value


def has_expr(value: Any) -> bool:
    """True when an expression stands anywhere in ``value``."""
    return isinstance(value, Expr) or (isinstance(value, tuple) and any(has_expr(v) for v in value))


def symbols_of(values: Iterable[Any]) -> set[str]:
    """Names of all sizes that ``values`` depend on."""
    found: set[str] = set()
    for v in values:
        if isinstance(v, Expr):
            found |= v.symbols()
    return found
