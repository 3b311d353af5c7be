"""Many sizes at once: plain integer code run over columns of sizes.

A :class:`Lanes` is a column of numbers that counts like one number. Arithmetic is numpy's; a comparison that comes out the same in every
lane is a bool, and one that does not ends the run: the lanes are split by its outcome and each part is run anew. So code written for one
problem (a library's search for its best kernel) answers thousands of problems, each lane as if it had been run alone. Choices written
with :mod:`memest.sizes.choices` need no split.

Numbers are int64 or float64. Magnitudes are bounded along the way; what could pass 2**62 raises :class:`TooLargeError`, and nothing wraps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memest.sizes.choices import Many, Where
from memest.sizes.remembering import Suspended

LIMIT = 2**62
PLAIN = (int, float)
FEW = 4  # lanes that are done sooner one by one than as columns
Column = NDArray[Any]


class TooLargeError(ArithmeticError):
    """A number could leave the range in which int64 arithmetic is exact."""


class Split(Exception):  # noqa: N818 - it ends a run, it is no error
    """A decision that is not the same in all lanes: ``mask`` says for which it is true."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        super().__init__()
        self.mask = mask


class Mask(Where):
    """A condition, lane by lane."""

    __slots__ = ("column",)

    def __init__(self, column: NDArray[np.bool_]) -> None:
        self.column = column

    def __and__(self, other: Any) -> Mask:
        return Mask(self.column & _condition(other))

    def __or__(self, other: Any) -> Mask:
        return Mask(self.column | _condition(other))

    __rand__, __ror__ = __and__, __or__

    def __bool__(self) -> bool:
        return decided(self.column)

    def choose(self, yes: Any, no: Any) -> Any:
        if isinstance(yes, tuple):
            return tuple(self.choose(a, b) for a, b in zip(yes, no, strict=True))
        if yes is no:
            return yes
        (a, top_a), (b, top_b) = _number(yes), _number(no)
        return _lanes(np.where(self.column, a, b), max(top_a, top_b))


class Lanes(Many):
    """A column of ints or floats; ``top`` is a bound of their magnitudes."""

    __slots__ = ("column", "top")

    def __init__(self, column: Column, top: int | float) -> None:
        if top >= LIMIT and column.dtype != np.float64:
            raise TooLargeError
        self.column = column
        self.top = top

    def one(self) -> Any:
        """The number, where all lanes have the same; else the lanes are split by it."""
        first = self.column[0]
        mask = self.column == first
        if np.count_nonzero(mask) == len(mask):
            return first.item()
        raise Split(mask)

    def __hash__(self) -> int:
        return hash(self.one())

    def __index__(self) -> int:
        return int(self.one())

    def __int__(self) -> int:
        return int(self.one())

    def __float__(self) -> float:
        return float(self.one())

    def __bool__(self) -> bool:
        return decided(self.column != 0)

    def greatest(self, other: Any) -> Any:
        column, top = _number(other)
        return _lanes(np.maximum(self.column, column), max(self.top, top))

    def least(self, other: Any) -> Any:
        column = np.minimum(self.column, _number(other)[0])
        return _lanes(column, _magnitude(column))

    def compared(self, comparison: Callable[[Any, Any], Any], first: Any, second: Any) -> Any:
        return _mask(comparison(_number(first)[0], _number(second)[0]))

    def ceiling(self) -> int:
        return int(self.column.max())

    @staticmethod
    def first_least(keys: Sequence[Any], candidates: Sequence[Any]) -> Any:
        columns = np.broadcast_arrays(*(_number(k)[0] for k in keys))
        first = np.argmin(np.stack(columns), axis=0)
        if not isinstance(candidates[0], tuple):
            return _picked(first, candidates)
        return tuple(_picked(first, members) for members in zip(*candidates, strict=True))

    def single(self) -> Any:
        """Rounded to single precision."""
        return Lanes(self.column.astype(np.float32).astype(np.float64), self.top)

    def bit_length(self) -> Any:
        """Of whole numbers."""
        return self._each(int.bit_length)

    @staticmethod
    def each(function: Callable[..., Any], numbers: Sequence[Any]) -> Any:
        rows = zip(*(c.tolist() for c in np.broadcast_arrays(*(_number(n)[0] for n in numbers))), strict=True)
        known: dict[tuple[Any, ...], Any] = {}
        found = [known[row] if row in known else known.setdefault(row, function(*row)) for row in rows]
        top = max(map(abs, found))
        if top >= LIMIT and not isinstance(top, float):
            raise TooLargeError
        return _lanes(np.array(found), top)

    def _each(self, function: Callable[..., Any], *others: Any) -> Any:
        """A function of it and other numbers, likewise."""
        return Lanes.each(function, (self, *others))

    def __pow__(self, other: Any) -> Any:
        return NotImplemented if _operand(other) is None else self._each(pow, other)

    def __rpow__(self, other: Any) -> Any:
        return NotImplemented if _operand(other) is None else self._each(lambda a, b: b**a, other)

    def __round__(self, digits: int | None = None) -> Any:
        return self._each(lambda a: round(a, digits))

    def __pos__(self) -> Any:
        return self

    def __invert__(self) -> Any:
        return Lanes(~self.column, self.top + 1)

    def __neg__(self) -> Any:
        return Lanes(-self.column, self.top)

    def __abs__(self) -> Any:
        return Lanes(abs(self.column), self.top)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __ceil__(self) -> Any:
        return Lanes(np.ceil(self.column).astype(np.int64), self.top + 1)

    def __floor__(self) -> Any:
        return Lanes(np.floor(self.column).astype(np.int64), self.top + 1)

    def __trunc__(self) -> Any:
        return Lanes(np.trunc(self.column).astype(np.int64), self.top + 1)


def decided(mask: NDArray[np.bool_]) -> bool:
    """The outcome of a comparison, where it is the same in all lanes."""
    true = np.count_nonzero(mask)
    if true == len(mask):
        return True
    if not true:
        return False
    raise Split(mask)


def _lanes(column: Column, top: int | float) -> Any:
    """The column, or the number where all lanes have the same."""
    first = column[0]
    return first.item() if np.count_nonzero(column == first) == len(column) else Lanes(column, top)


def _magnitude(column: Column) -> Any:
    """The closest bound, for numbers that may be much smaller than what they were computed from."""
    return max(abs(column.min().item()), abs(column.max().item()))


def _mask(column: NDArray[np.bool_]) -> Any:
    """The condition, or a bool where it is the same in all lanes."""
    true = np.count_nonzero(column)
    if true == len(column):
        return True
    return Mask(column) if true else False


def _condition(value: Any) -> Any:
    return value.column if isinstance(value, Mask) else value


def _number(value: Any) -> tuple[Any, Any]:
    return (value.column, value.top) if isinstance(value, Lanes) else (value, abs(value))


def _picked(places: NDArray[np.intp], options: Sequence[Any]) -> Any:
    """The option at its place, lane by lane; options are numbers or columns of them."""
    if all(o == options[0] for o in options if not isinstance(o, Lanes)) and not any(isinstance(o, Lanes) for o in options):
        return options[0]
    columns, tops = zip(*map(_number, options), strict=True)
    table = np.stack(np.broadcast_arrays(*columns, places)[:-1])
    return _lanes(np.take_along_axis(table, places[None], axis=0)[0], max(tops))


def _operand(other: Any) -> tuple[Any, Any] | None:
    if isinstance(other, Lanes):
        return other.column, other.top
    return (other, abs(other)) if isinstance(other, PLAIN) else None


def _add_top(a: Any, b: Any) -> Any:
    return a + b


def _product_top(a: Any, b: Any) -> Any:
    return a * b


def _first_top(a: Any, b: Any) -> Any:
    return a + 1


def _second_top(a: Any, b: Any) -> Any:
    return b


def _bits_top(a: Any, b: Any) -> Any:
    return 2 * max(a, b) + 1


def _shift_top(a: Any, b: Any) -> Any:
    return a << min(b, 64)


_ARITHMETIC: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    "add": (np.add, _add_top),
    "sub": (np.subtract, _add_top),
    "mul": (np.multiply, _product_top),
    "floordiv": (np.floor_divide, _first_top),
    "mod": (np.remainder, _second_top),
    "truediv": (np.true_divide, _first_top),
    "and": (np.bitwise_and, _bits_top),
    "or": (np.bitwise_or, _bits_top),
    "xor": (np.bitwise_xor, _bits_top),
    "lshift": (np.left_shift, _shift_top),
    "rshift": (np.right_shift, _first_top),
}
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


def _arithmetic(compute: Callable[[Any, Any], Any], top: Callable[[Any, Any], Any], swapped: bool) -> Callable[[Lanes, Any], Any]:
    def method(self: Lanes, other: Any) -> Any:
        if type(other) is Lanes:
            return Lanes(compute(self.column, other.column), top(self.top, other.top))
        if not isinstance(other, PLAIN):
            return NotImplemented
        return Lanes(compute(self.column, other), top(self.top, abs(other)))

    def method_swapped(self: Lanes, other: Any) -> Any:
        return Lanes(compute(other, self.column), top(abs(other), self.top)) if isinstance(other, PLAIN) else NotImplemented

    return method_swapped if swapped else method


def _comparison(compute: Callable[[Any, Any], Any]) -> Callable[[Lanes, Any], Any]:
    def method(self: Lanes, other: Any) -> Any:
        if type(other) is Lanes:
            return decided(compute(self.column, other.column))
        return decided(compute(self.column, other)) if isinstance(other, PLAIN) else NotImplemented

    return method


for _name, (_compute, _top) in _ARITHMETIC.items():
    setattr(Lanes, f"__{_name}__", _arithmetic(_compute, _top, False))
    setattr(Lanes, f"__r{_name}__", _arithmetic(_compute, _top, True))
for _name, _compare in _COMPARISONS.items():
    setattr(Lanes, f"__{_name}__", _comparison(_compare))


def by_lanes(function: Callable[..., Any], columns: Sequence[Column]) -> Column:
    """``function`` of each row of ``columns`` (int64, equally long), as a column. Columns of one value are given as plain numbers. A bound
    is that of all lanes: where it is too large, halves of alike sizes have closer ones, and few rows are computed one by one."""
    length = len(columns[0])
    result = np.empty(length, dtype=np.int64)
    pending = [np.arange(length)] if length else []
    with Suspended(), np.errstate(divide="raise", invalid="raise"):
        while pending:
            lanes = pending.pop()
            if len(lanes) <= FEW:
                for lane in lanes:
                    result[lane] = function(*(int(c[lane]) for c in columns))
                continue
            try:
                value = function(*(_given(c[lanes]) for c in columns))
            except Split as split:
                pending += [lanes[split.mask], lanes[~split.mask]]
                continue
            except TooLargeError:
                alike = lanes[np.argsort(sum(np.log2(np.maximum(c[lanes], 1)) for c in columns), kind="stable")]
                pending += [alike[: len(alike) // 2], alike[len(alike) // 2 :]]
                continue
            result[lanes] = value.column if isinstance(value, Lanes) else value
    return result


def _given(column: Column) -> Any:
    return _lanes(column, _magnitude(column))
