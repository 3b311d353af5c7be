"""A piece written out in some notation: named floors and terms, the bytes of every moment, and what kernels hold at asked sizes.

Every notation prints the same listing, so they cannot drift apart. A floor, a remainder, a maximum and a term of the table get a name of
their own; sums and products are written in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memest.errors import UnsupportedError, UsageError, did_you_mean
from memest.memory.live_sets import LiveSets
from memest.shown import visible
from memest.sizes.dims import Expr, Opaque, has_expr, linear

if TYPE_CHECKING:
    from memest.estimate.formulas.form import Form

_LOOSE = ("+", "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Notation:
    """How numbers, sizes, named values and operators are written; operators that enclose their operands need no parentheses."""

    number: Callable[[int], str]
    size: Callable[[str], str]
    value: Callable[[int], str]
    kernel: Callable[[int], str]
    operators: Mapping[str, str]
    encloses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Bytes on top of what is resident, as text; ``kernel`` is the number of the kernel whose bytes are part of it. The layer's name is
    one that a comment can hold."""

    phase: str
    layer: str
    op: str
    text: str
    kernel: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The piece: named values in the order they are needed, resident bytes, moments, and ``kernels``: at each of the asked sizes, the
    bytes of every kernel that could decide there, by number. The others stay below the peak there whatever they hold."""

    values: tuple[tuple[str, str], ...]
    resident: str
    moments: tuple[Moment, ...]
    conditions: tuple[tuple[str, str, str], ...]
    everywhere: bool
    kernels: Mapping[tuple[int, ...], Mapping[int, int]]


def listing(formula: Form, notation: Notation, sizes: Sequence[Mapping[str, int]]) -> Listing:
    """``formula`` in ``notation``, with what kernels hold at ``sizes`` (the estimate's when none are given).

    Raises UsageError for sizes outside the formula's conditions: another piece holds there (``formula.at``)."""
    program = formula.program
    writer = _Writer(notation)
    numbers = {inner: i + 1 for i, inner in enumerate(dict.fromkeys(i.inner for i in program.instants if i.inner is not None))}
    moments = []
    for row, instant in zip(program.coefficients, program.instants, strict=True):
        number = None if instant.inner is None else numbers[instant.inner]
        terms = [(writer.named(t), int(c)) for t, c in zip(program.terms, row[:-1], strict=True) if c]
        text = writer.weighted(terms, int(row[-1]), number)
        moments.append(Moment(phase=instant.phase, layer=visible(instant.layer), op=instant.op, text=text, kernel=number))
    weights, constant = linear(program.resident)
    resident = writer.weighted([(writer.named(t), c) for t, c in weights.items()], constant, None)
    rules = [r for r in formula.rules if not _is_opaque(r.left) and not _is_opaque(r.right)]
    conditions = tuple((writer.text(r.left), r.op, writer.text(r.right)) for r in rules)
    asked = [whole(formula, s) for s in sizes] or [dict(formula.estimate.sizes)]
    return Listing(
        values=tuple(writer.values),
        resident=resident,
        moments=tuple(moments),
        conditions=conditions,
        everywhere=not numbers and len(rules) == len(formula.rules),
        kernels={tuple(s.values()): dict(sorted((numbers[i], n) for i, n in deciding(program, s).items())) for s in asked},
    )


def whole(formula: Form, given: Mapping[str, int]) -> dict[str, int]:
    """All sizes, those left out from the estimate; UsageError where the formula does not hold there."""
    own = formula.estimate.sizes
    for name in given:
        if name not in own:
            raise UsageError(f"{formula.estimate.graph} has no size {name!r}{did_you_mean(name, own)}")
    sizes = {**own, **given}
    if not formula.holds(**sizes):
        there = ", ".join(f"{s} = {n}" for s, n in sizes.items())
        raise UsageError(f"this formula does not hold at {there} ({', '.join(formula.conditions)}); take the one that formula.at gives")
    return sizes


def deciding(program: LiveSets, sizes: Mapping[str, int]) -> dict[Opaque, int]:
    """Bytes held by each kernel whose moment could be the peak at ``sizes``, as far as bounds tell."""
    terms = [*(t.evaluate(sizes) for t in program.terms), 1]

    def bytes_of(row: Sequence[int]) -> int:
        return sum(int(c) * t for c, t in zip(row, terms, strict=True))

    alive = [bytes_of(row) for row in program.coefficients]
    most = [max(map(bytes_of, program.bounds[program.bounds_at(i)])) for i in range(len(alive))]
    best = max((n for n, i in zip(alive, program.instants, strict=True) if i.inner is None), default=0)
    found: dict[Opaque, int] = {}
    for k in sorted(range(len(alive)), key=lambda k: -most[k]):
        inner = program.instants[k].inner
        if inner is not None and most[k] > best:
            found[inner] = inner.evaluate(sizes)
            best = max(best, alive[k] + found[inner])
    return found


def _is_opaque(e: Expr | int) -> bool:
    return has_expr(e) and any(isinstance(part, Opaque) for part in _parts(e))


def _parts(e: object) -> Iterator[Expr]:
    """Every distinct expression in ``e``."""
    seen: set[Expr] = set()
    stack = [e]
    while stack:
        part = stack.pop()
        if isinstance(part, tuple):
            stack.extend(part)
        elif isinstance(part, Expr) and part not in seen:
            seen.add(part)
            yield part
            if part.op != "symbol":
                stack.extend(part.args)


class _Writer:
    """Writes expressions; ``values`` are the named ones so far."""

    def __init__(self, notation: Notation) -> None:
        self.notation = notation
        self.values: list[tuple[str, str]] = []
        self._known: dict[Expr, str] = {}

    def named(self, e: Expr) -> str:
        """A name for ``e`` (a size is its own)."""
        if e.op == "symbol":
            return self.notation.size(e.args[0])
        if e not in self._known:
            text = self._body(e)
            self._known[e] = self.notation.value(len(self.values) + 1)
            self.values.append((self._known[e], text))
        return self._known[e]

    def text(self, e: Expr | int) -> str:
        """``e`` in place, names where there are any."""
        if not isinstance(e, Expr):
            return self.notation.number(e)
        if e.op == "symbol" or e in self._known or e.op not in ("+", "-", "*"):
            return self.named(e)
        return self._body(e)

    def _body(self, e: Expr) -> str:
        if isinstance(e, Opaque):
            raise UnsupportedError(f"{e.op} is no formula and cannot be written out")
        args = reversed(e.args) if e.op == "*" else e.args  # a number comes first
        if e.op in self.notation.encloses:
            written = [self.text(a) for a in args]
        else:
            written = [self._operand(a, e.op, side) for side, a in enumerate(args)]
        return self.notation.operators[e.op].format(*written)

    def _operand(self, a: Expr | int, op: str, side: int) -> str:
        text = self.text(a)
        inner = a.op if isinstance(a, Expr) and a not in self._known else None
        tight = op not in _LOOSE
        return f"({text})" if (inner in _LOOSE and (tight or side == 1)) or (isinstance(a, int) and a < 0) else text

    def weighted(self, terms: Sequence[tuple[str, int]], constant: int, kernel: int | None) -> str:
        """A sum of named terms times numbers, a kernel's bytes among them."""
        n = self.notation
        parts = [(c < 0, name if abs(c) == 1 else n.operators["*"].format(n.number(abs(c)), name)) for name, c in terms if c]
        if constant or (not parts and kernel is None):
            parts.append((constant < 0, n.number(abs(constant))))
        if kernel is not None:
            parts.append((False, n.kernel(kernel)))
        first, *others = parts
        return ("-" if first[0] else "") + first[1] + "".join(f" {'-' if negative else '+'} {text}" for negative, text in others)
