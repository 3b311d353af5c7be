"""Symbolic dims: expressions over named sizes (``N``, ``H // 2``), and ``Dim``, an int that carries its expression.

Rows are plain arithmetic, so they run unchanged on a ``Dim`` and give their formula along with the number.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from hashlib import blake2b
from math import prod
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from memest.errors import GraphError
from memest.sizes.interpreter import Lock
from memest.sizes.remembering import kept

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
MAX_DEPTH = 200
MOST_FACTORS = 4  # of a power that is written as a product
MAX_LENGTH = 20_000
LONG = 400

_KNOWN: WeakValueDictionary[Any, Expr] = WeakValueDictionary()
_MAKING = Lock()


class Expr:
    """An immutable integer expression. Equal expressions are one object, so large ones share their parts and compare at once."""

    __slots__ = ("__weakref__", "_rank", "_text", "args", "op")
    op: str
    args: tuple[Any, ...]
    _rank: str | None
    _text: str | None

    def __new__(cls, op: str, args: tuple[Any, ...]) -> Expr:
        key = (op, args)
        found = _KNOWN.get(key)
        if found is None:
            made = object.__new__(cls)
            made.op, made.args, made._text, made._rank = op, args, None, None
            found = _the_one(key, made)
        return found

    @property
    def rank(self) -> str:
        """What orders expressions: the text of a short one; of a long one a digest, as parts that are shared would be written over and
        over."""
        if self._rank is None:
            parts = _rank(self.args)
            short = len(parts) <= LONG and "~" not in parts
            self._rank = self.text if short else f"~{blake2b(f'{self.op}{parts}'.encode(), digest_size=12).hexdigest()}"
        return self._rank

    @property
    def text(self) -> str:
        """How a file writes it."""
        if self._text is None:
            self._text = self._print()
        return self._text

    def _print(self) -> str:
        if self.op == "symbol":
            return str(self.args[0])
        if self.op in ("max", "min"):
            return f"{self.op}({', '.join(str(a) for a in self.args)})"
        level = _PRECEDENCE[self.op]
        left, right = (_wrapped(a, level, side) for side, a in enumerate(self.args))
        return f"{left}{self.op}{right}" if level == 2 else f"{left} {self.op} {right}"

    def evaluate(self, sizes: Mapping[str, int], done: dict[Expr, int] | None = None) -> int:
        """Its value where symbols have ``sizes``; ``done`` collects those of its parts."""
        value: int = _evaluated(self, sizes, {} if done is None else done)
        return value

    def symbols(self) -> set[str]:
        """Names of the sizes it depends on."""
        found: set[str] = set()
        seen: set[Expr] = set()
        stack: list[Any] = [self]
        while stack:
            e = stack.pop()
            if isinstance(e, tuple):
                stack.extend(e)
            elif isinstance(e, Expr) and e not in seen:
                seen.add(e)
                if e.op == "symbol":
                    found.add(e.args[0])
                else:
                    stack.extend(e.args)
        return found

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Expr({self.text!r})"

    def __reduce__(self) -> Any:
        return Expr, (self.op, self.args)

    def __deepcopy__(self, memo: Any) -> Expr:
        return self


def _the_one(key: Any, made: Expr) -> Expr:
    """``made``, or what another thread made for the same ``key`` meanwhile."""
    with _MAKING:
        return _KNOWN.setdefault(key, made)


def _rank(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_rank, value))})"
    return value.rank if isinstance(value, Expr) else str(value)


def _evaluated(e: Any, sizes: Mapping[str, int], done: dict[Expr, int]) -> Any:
    if isinstance(e, tuple):
        return tuple(_evaluated(a, sizes, done) for a in e)
    if not isinstance(e, Expr):
        return e
    value = done.get(e)
    if value is None:
        value = done[e] = _computed(e, sizes, done)
    return value


def _computed(e: Expr, sizes: Mapping[str, int], done: dict[Expr, int]) -> int:
    if e.op == "symbol":
        try:
            return sizes[e.args[0]]
        except KeyError:
            raise GraphError(f"size {e.args[0]!r} is not a dim of any input") from None
    values = [_evaluated(a, sizes, done) for a in e.args]
    if isinstance(e, Opaque):
        return e.function(*values)
    if e.op in ("//", "%") and values[1] == 0:
        raise GraphError(f"division by zero in {e.text!r}")
    return _BINARY[e.op](values[0], values[1])


def _wrapped(arg: Any, level: int, side: int) -> str:
    if not isinstance(arg, Expr) or arg.op not in _PRECEDENCE:
        return str(arg) if not isinstance(arg, int) or arg >= 0 else f"({arg})"
    inner = _PRECEDENCE[arg.op]
    loose = inner < level or (inner == level and (side == 1 or level == 2))
    return f"({arg})" if loose else str(arg)


def symbol(name: str) -> Expr:
    """A named size."""
    return Expr("symbol", (name,))


@kept(4_096)
def parse(text: str) -> Expr | int:
    """The expression written in ``text``: names, integers, ``+ - * // %``, ``max``, ``min``, parentheses. Nothing is executed."""
    if len(text) > MAX_LENGTH:
        raise GraphError(f"expression of more than {MAX_LENGTH:,} characters")
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


@kept(16_384)
def _combine(op: str, a: Expr | int, b: Expr | int) -> Expr | int:
    """``a op b``, simplified: sums are linear forms with like terms merged, numbers are folded, exact divisions are carried out."""
    if isinstance(a, int) and isinstance(b, int):
        if op in ("//", "%") and b == 0:
            raise GraphError("division by zero in an expression")
        return _BINARY[op](a, b)
    if op in ("+", "-"):
        return _filled_up(*_added(linear(a), linear(b), 1 if op == "+" else -1))
    if op == "*":
        return product((a, b))
    if op in ("//", "%") and isinstance(b, int):
        return _divided(op, a, b)
    if op == "//" and isinstance(a, Expr) and isinstance(b, Expr):
        return _cancelled(a, b)
    if op == "%" and isinstance(b, Expr):
        return _remainder(a, b)
    return Expr(op, (a, b))


Linear = tuple[dict["Expr", int], int]


def linear(e: Expr | int) -> Linear:
    """``e`` as (coefficient of each term, constant): what sums of it are made of."""
    if isinstance(e, int):
        return {}, e
    if e.op in ("+", "-"):
        return _added(linear(e.args[0]), linear(e.args[1]), 1 if e.op == "+" else -1)
    if e.op == "*" and isinstance(e.args[1], int):
        return _added(({}, 0), linear(e.args[0]), e.args[1])
    return {e: 1}, 0


def _added(a: Linear, b: Linear, factor: int) -> Linear:
    terms = dict(a[0])
    for atom, coefficient in b[0].items():
        total = terms.get(atom, 0) + factor * coefficient
        if total:
            terms[atom] = total
        else:
            terms.pop(atom, None)
    return terms, a[1] + factor * b[1]


def from_linear(terms: dict[Expr, int], constant: int) -> Expr | int:
    """The sum of the terms, each so many times, and the constant."""
    result: Expr | int = 0
    for atom, coefficient in sorted(terms.items(), key=lambda term: term[1] < 0):
        size = abs(coefficient)
        part: Expr = atom if size == 1 else Expr("*", (atom, size))
        if isinstance(result, Expr):
            result = Expr("+" if coefficient > 0 else "-", (result, part))
        else:
            result = part if coefficient > 0 else Expr("-", (0, part))
    if not isinstance(result, Expr):
        return constant
    return result if constant == 0 else Expr("+", (result, constant)) if constant > 0 else Expr("-", (result, -constant))


def _filled_up(terms: dict[Expr, int], constant: int) -> Expr | int:
    """The same sum; ``x + -x % k``, which fills ``x`` up to a multiple of ``k``, is ``(x + k - 1) // k * k``."""
    for atom, coefficient in terms.items():
        if coefficient == 1 and atom.op == "%" and isinstance(atom.args[1], int) and atom.args[1] > 0:
            lacking, k = atom.args
            rest = {t: c for t, c in terms.items() if t is not atom}
            if _divided("%", from_linear(*_added((rest, constant), linear(lacking), 1)), k) == 0:
                return product((_divided("//", from_linear(rest, constant + k - 1), k), k))
    return from_linear(terms, constant)


def product(parts: Iterable[Expr | int]) -> Expr | int:
    """The product, flat: the number last, the other factors in order."""
    number = 1
    factors: list[Expr] = []
    stack: list[Expr | int] = list(parts)
    while stack:
        e = stack.pop()
        if isinstance(e, int):
            number *= e
        elif e.op == "*":
            stack.extend(reversed(e.args))
        else:
            factors.append(e)
    if number == 0 or not factors:
        return number
    factors.sort(key=lambda e: e.rank)
    result = factors[0]
    for factor in factors[1:]:
        result = Expr("*", (result, factor))
    return result if number == 1 else Expr("*", (result, number))


def _cancelled(a: Expr, b: Expr) -> Expr | int:
    """``a // b``; where the factors of ``b`` are among those of ``a``, what is left of them."""
    rest = every_factor(a)
    for factor in every_factor(b):
        if factor not in rest:
            return Expr("//", (a, b))
        rest.remove(factor)
    return product(rest)


def _remainder(a: Expr | int, b: Expr) -> Expr | int:
    """``a % b``, without the whole multiples of ``b`` in ``a``."""
    if a is b or a == 0:
        return 0
    terms, constant = linear(a)
    if b not in terms:
        return Expr("%", (a, b))
    return _combine("%", from_linear({t: c for t, c in terms.items() if t is not b}, constant), b)


def every_factor(e: Expr | int) -> list[Expr | int]:
    """What a product is made of, numbers too; anything else is its own factor."""
    if isinstance(e, Expr) and e.op == "*":
        return [*every_factor(e.args[0]), *every_factor(e.args[1])]
    return [e]


def _divided(op: str, a: Expr | int, b: int) -> Expr | int:
    """``a // b`` or ``a % b``: whole multiples of ``b`` come out, and a floor of a floor is one floor."""
    if b == 0:
        raise GraphError("division by zero in an expression")
    if b < 0:
        return Expr(op, (a, b))
    terms, constant = linear(a)
    if op == "%":
        terms, constant = _without_remainders(terms, constant, b)
    whole = {atom: c // b for atom, c in terms.items() if c % b == 0}
    rest = {atom: c for atom, c in terms.items() if c % b}
    outside, inside = divmod(constant, b)
    if op == "%":
        remainder = from_linear(rest, inside)
        return remainder % b if isinstance(remainder, int) else Expr("%", (remainder, b))
    return from_linear(*_added((whole, outside), linear(_floor(rest, inside, b)), 1))


def _without_remainders(terms: dict[Expr, int], constant: int, b: int) -> Linear:
    """What leaves the same remainder by ``b``: ``x % m`` leaves that of ``x`` where ``b`` divides ``m``."""
    found: Linear = {}, constant
    for atom, coefficient in terms.items():
        by = atom.args[1] if atom.op == "%" else None
        inner = linear(atom.args[0]) if isinstance(by, int) and by > 0 and by % b == 0 else ({atom: 1}, 0)
        found = _added(found, inner, coefficient)
    return found


def _floor(terms: dict[Expr, int], constant: int, b: int) -> Expr | int:
    """``(terms + constant) // b``; ``(x // c + k) // b`` is ``(x + k*c) // (b*c)``."""
    if not terms:
        return constant // b
    if len(terms) == 1:
        ((atom, coefficient),) = terms.items()
        if coefficient == 1 and atom.op == "//" and isinstance(atom.args[1], int) and atom.args[1] > 0:
            c = atom.args[1]
            return _divided("//", _combine("+", atom.args[0], constant * c), b * c)
    return Expr("//", (from_linear(terms, constant), b))


class Opaque(Expr):
    """A function of sizes that has no formula (what a library chooses by searching): a name, the function (hashable; it knows everything
    that is not a size) and its arguments are its identity."""

    __slots__ = ("function",)
    function: Callable[..., int]

    def __new__(cls, name: str, function: Callable[..., int], args: tuple[Any, ...]) -> Opaque:
        key = (name, function, args)
        found = _KNOWN.get(key)
        if found is None:
            made = object.__new__(cls)
            made.op, made.args, made._text, made._rank, made.function = name, args, None, None, function
            found = _the_one(key, made)
        assert isinstance(found, Opaque)
        return found

    def __reduce__(self) -> Any:
        return Opaque, (self.op, self.function, self.args)

    def _print(self) -> str:
        return f"{self.op}{_nested_text(self.args)}"


def _nested_text(value: Any) -> str:
    return f"({', '.join(_nested_text(v) for v in value)})" if isinstance(value, tuple) else str(value)


class Guard(NamedTuple):
    """A comparison of sizes that came out true: what was computed under it holds wherever it is true again."""

    op: str
    left: Expr | int
    right: Expr | int

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """True when the comparison is true for these sizes."""
        a = self.left.evaluate(sizes) if isinstance(self.left, Expr) else self.left
        b = self.right.evaluate(sizes) if isinstance(self.right, Expr) else self.right
        return bool(COMPARE[self.op](a, b))

    def __str__(self) -> str:
        return f"{self.left} {self.op} {self.right}"


COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NEGATED = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_SINK: ContextVar[dict[Guard, None] | None] = ContextVar("sink", default=None)
_sink = _SINK.get
_TELL: ContextVar[Callable[[Dim], None] | None] = ContextVar("tell", default=None)


class recording:  # noqa: N801
    """Collect the comparisons that ``Dim``s take part in (None: collect nothing meanwhile)."""

    __slots__ = ("_before", "_guards")

    def __init__(self, guards: dict[Guard, None] | None) -> None:
        self._guards = guards

    def __enter__(self) -> None:
        self._before = _SINK.set(self._guards)

    def __exit__(self, *exception: object) -> None:
        _SINK.reset(self._before)


def is_recording() -> bool:
    """True where somebody listens."""
    return _sink() is not None


def record(left: Expr, value: int) -> None:
    """Record that ``left`` equals ``value``, where somebody listens."""
    sink = _sink()
    if sink is not None:
        sink[Guard("==", left, value)] = None


def parse_guard(text: str) -> Guard:
    """The comparison written in ``text`` (as ``str(guard)`` writes it)."""
    for op in ("==", "!=", "<=", ">=", "<", ">"):
        left, found, right = text.partition(f" {op} ")
        if found:
            return Guard(op, parse(left), parse(right))
    raise GraphError(f"not a comparison of sizes: {text!r}")


class Dim(int):
    """An int that remembers how it was computed. Integer arithmetic keeps the expression; a comparison is recorded as a :class:`Guard`
    where somebody listens; leaving the integers (``/``, ``float``, ``int``) or their arithmetic (bits) pins the size to its value."""

    expr: Expr

    def __new__(cls, value: int, expr: Expr) -> Dim:
        self = int.__new__(cls, value)
        self.expr = expr
        return self

    def __getnewargs__(self) -> tuple[int, Expr]:  # type: ignore[override]
        return int.__int__(self), self.expr

    def pin(self) -> int:
        """The plain number; what follows from it holds only where the size has this value."""
        value = int.__int__(self)
        sink = _sink()
        if sink is not None:
            sink[Guard("==", self.expr, value)] = None
        return value

    def __int__(self) -> int:
        return self.pin()

    def __float__(self) -> float:
        return float(self.pin())

    def __truediv__(self, other: Any) -> Any:
        return self.pin() / other

    def __rtruediv__(self, other: Any) -> Any:
        return other / self.pin()

    def __neg__(self) -> Any:
        return 0 - self

    def __pos__(self) -> Dim:
        return self

    def __abs__(self) -> Any:
        return self if self >= 0 else -self

    def __pow__(self, other: Any, modulo: Any = None) -> Any:
        if type(other) is int and 0 < other <= MOST_FACTORS and modulo is None:
            return prod([self] * other)
        return pow(self.pin(), other, modulo)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __trunc__(self) -> Any:
        return self

    __floor__ = __ceil__ = conjugate = __trunc__

    def __round__(self, digits: Any = None) -> Any:
        return self if digits is None or digits >= 0 else round(self.pin(), digits)

    @property
    def real(self) -> Any:
        """Itself."""
        return self

    numerator = real

    def __bool__(self) -> bool:
        outcome = int.__bool__(self)
        sink = _sink()
        if sink is not None:
            found = ("!=" if outcome else "==", self.expr, 0)
            if found not in sink:
                sink[Guard(*found)] = None
        return outcome

    def __hash__(self) -> int:
        return int.__hash__(_taken(self))

    def __repr__(self) -> str:
        return int.__repr__(_taken(self))

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return int.__format__(_taken(self), spec)


def _taken(n: Dim) -> Dim:
    """``n``, whose number is put into a text or a key, as is told to whoever wants to know."""
    tell = _TELL.get()
    if tell is not None:
        tell(n)
    return n


class telling:  # noqa: N801
    """``tell`` is called with every ``Dim`` whose plain number is taken where no comparison shows it: for a text, for a key."""

    __slots__ = ("_before", "_tell")

    def __init__(self, tell: Callable[[Dim], None] | None) -> None:
        self._tell = tell

    def __enter__(self) -> None:
        self._before = _TELL.set(self._tell)

    def __exit__(self, *exception: object) -> None:
        _TELL.reset(self._before)


def _plain_int(value: int) -> int:
    return int.__int__(value)


def _arithmetic(op: str, name: str, swapped: bool) -> Callable[[Any, Any], Any]:
    compute, fallback = getattr(int, name), _BINARY[op]

    def method(self: Dim, other: Any) -> Any:
        value = compute(self, other)
        if value is NotImplemented:
            if not isinstance(other, float):
                return value
            x: Any = self.pin()
            return fallback(other, x) if swapped else fallback(x, other)  # type: ignore[arg-type]
        by = other if type(other) is int else expression(other)
        expr = _combine(op, by, self.expr) if swapped else _combine(op, self.expr, by)
        if not isinstance(expr, Expr):
            return value
        made = _new(Dim, value)
        made.expr = expr
        return made

    return method


def _comparison(op: str, name: str) -> Callable[[Any, Any], Any]:
    compute, fallback = getattr(int, name), COMPARE[op]

    def method(self: Dim, other: Any) -> Any:
        outcome = compute(self, other)
        if outcome is NotImplemented:
            return fallback(_plain_int(self), other)
        sink = _sink()
        if sink is not None:
            left, right = self.expr, other if type(other) is int else expression(other)
            if right is not left:
                found = (op if outcome else _NEGATED[op], left, right)
                if found not in sink:
                    sink[Guard(*found)] = None
        return outcome

    return method


def _pinned(name: str) -> Callable[..., Any]:
    compute = getattr(int, name)

    def method(self: Dim, *others: Any) -> Any:
        return compute(self.pin(), *[o.pin() if isinstance(o, Dim) else o for o in others])

    return method


_new = int.__new__
for _name in ["rpow", "lshift", "rlshift", "rshift", "rrshift", "and", "rand", "or", "ror", "xor", "rxor", "invert"]:
    setattr(Dim, f"__{_name}__", _pinned(f"__{_name}__"))
for _name in ("bit_length", "bit_count", "as_integer_ratio", "to_bytes"):
    setattr(Dim, _name, _pinned(_name))
for _op, _name in (("+", "add"), ("-", "sub"), ("*", "mul"), ("//", "floordiv"), ("%", "mod")):
    setattr(Dim, f"__{_name}__", _arithmetic(_op, f"__{_name}__", False))
    setattr(Dim, f"__r{_name}__", _arithmetic(_op, f"__r{_name}__", True))
for _op, _name in (("==", "eq"), ("!=", "ne"), ("<", "lt"), ("<=", "le"), (">", "gt"), (">=", "ge")):
    setattr(Dim, f"__{_name}__", _comparison(_op, f"__{_name}__"))


def expression(value: int | Expr) -> Expr | int:
    """What a size is written as: the expression of a ``Dim``, else the plain int."""
    if isinstance(value, Dim):
        return value.expr
    return value if isinstance(value, Expr) else _plain_int(value)


def resolve(value: Any, sizes: Mapping[str, int]) -> Any:
    """``value`` with every expression in it (nested tuples too) replaced by its number."""
    if isinstance(value, Expr):
        return value.evaluate(sizes)
    if isinstance(value, tuple):
        return tuple(resolve(v, sizes) for v in value)
    return value


def factors(e: Expr) -> list[Expr]:
    """The symbolic factors of a product."""
    if e.op != "*":
        return [e]
    return [f for a in e.args if isinstance(a, Expr) for f in factors(a)]


def resolved(values: tuple[Any, ...], sizes: Mapping[str, int]) -> tuple[Any, ...]:
    """``values`` (nested tuples too) as numbers; what their expressions share is computed once."""
    found: tuple[Any, ...] = _evaluated(values, sizes, {})
    return found


def substituted(e: Any, values: Mapping[str, Expr | int], done: dict[Expr, Any] | None = None) -> Any:
    """``e`` with symbols replaced, simplified anew; nested tuples are gone through. ``done`` collects what the parts became."""
    return _substituted(e, values, {} if done is None else done)


def _substituted(e: Any, values: Mapping[str, Expr | int], done: dict[Expr, Any]) -> Any:
    if isinstance(e, tuple):
        return tuple(_substituted(a, values, done) for a in e)
    if not isinstance(e, Expr):
        return e
    if e not in done:
        if e.op == "symbol":
            done[e] = values.get(e.args[0], e)
        else:
            args = tuple(_substituted(a, values, done) for a in e.args)
            done[e] = Opaque(e.op, e.function, args) if isinstance(e, Opaque) else _combine(e.op, args[0], args[1])
    return done[e]


def contains_dim(value: Any) -> bool:
    """True when a ``Dim`` stands anywhere in ``value``."""
    if not isinstance(value, tuple):
        return isinstance(value, Dim)
    for v in value:  # noqa: SIM110 - a generator costs as much again, and this is asked at every call of a kernel
        if contains_dim(v):
            return True
    return False


def plain(value: Any) -> Any:
    """``value`` with every ``Dim`` in it replaced by its number; nothing is recorded."""
    if isinstance(value, tuple):
        return tuple(plain(v) for v in value)
    return _plain_int(value) if isinstance(value, Dim) else value


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
