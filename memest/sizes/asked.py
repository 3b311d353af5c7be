"""Numbers as callers give them: sizes, shapes and budgets, numpy's too. Nothing is imported to tell them; whatever cannot be meant is a
UsageError that says what to give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import index
from typing import Any

from memest.errors import UsageError, kind_of
from memest.sizes.units import parse_budget

SEPARATORS = str.maketrans("X\u00d7,", "xxx")


class TypedShape(tuple[int, ...]):
    """A shape whose tensor has a dtype of its own (``8xint64``), which is not that of the network's parameters."""

    dtype: str

    def __new__(cls, shape: Sequence[int], dtype: str) -> TypedShape:
        """``dtype`` is torch's name."""
        made = super().__new__(cls, shape)
        made.dtype = dtype
        return made


def shapes(value: Any) -> Any:
    """A shape, a list of shapes or a mapping of them, in plain tuples of ints; None stays None."""
    if value is None:
        return None
    if type(value) is tuple and value and all([type(n) is int and n > 0 for n in value]):
        return (value,)
    if isinstance(value, Mapping):
        return {name: shape(s, f"the shape of {name!r}") for name, s in value.items()}
    if is_sequence(value) and len(value) and all(is_sequence(v) or isinstance(v, str) for v in value):
        return [shape(s) for s in value]
    return (shape(value),)


def shape(value: Any, what: str = "a shape") -> tuple[int, ...]:
    """One shape: ints in a row, numpy's too, or ``2x3x224x224``."""
    if isinstance(value, str):
        parts: Sequence[Any] = value.translate(SEPARATORS).split("x")
        if not all(p.strip().isascii() and p.strip().isdigit() and len(p) <= 18 for p in parts):
            raise UsageError(f"{what} is written as 2x3x224x224, got {kind_of(value)}")
        return tuple(size(int(p), what) for p in parts)
    if is_tensor(value):
        raise UsageError(f"{what} is sizes in a row, got {kind_of(value)}; give tuple(x.shape)")
    if not is_sequence(value):
        raise UsageError(f"{what} is sizes in a row, such as (2, 3, 224, 224), got {kind_of(value)}")
    return tuple(size(n, what) for n in value)


def size(value: Any, what: str = "a size") -> int:
    """A positive whole number as an int, numpy's too; neither a bool nor a float."""
    number = whole(value)
    if number is None or number < 1:
        raise UsageError(f"{what}: sizes are positive integers, got {kind_of(value)}")
    return number


def several(value: Any, what: str, such: str) -> Sequence[Any]:
    """Values in a row; UsageError for one alone, which says what is meant by an example."""
    if not is_sequence(value):
        raise UsageError(f"{what}: give values in a row, such as {such}, got {kind_of(value)}")
    found: Sequence[Any] = value
    return found


def whole(value: Any) -> int | None:
    """A whole number as an int; None for what is none (bools and floats are not)."""
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        return None
    try:
        return index(value)
    except (TypeError, ValueError, RuntimeError):
        return None


def is_sequence(value: Any) -> bool:
    """True for values in a row: lists, tuples, arrays of one dimension; not text, nor tensors."""
    if isinstance(value, str | bytes | Mapping) or is_tensor(value):
        return False
    return isinstance(value, Sequence) or getattr(value, "ndim", 0) == 1


def is_tensor(value: Any) -> bool:
    """True for torch's tensors."""
    return any(c.__name__ == "Tensor" and c.__module__ in ("torch", "torch._tensor") for c in type(value).__mro__)


def budget(value: Any, what: str = "budget") -> int:
    """Bytes of a limit: a positive whole number, or text with a unit."""
    if isinstance(value, str):
        return parse_budget(value)
    number = whole(value)
    if number is None or number < 1:
        raise UsageError(f"{what}: give bytes as a positive whole number, or text with a unit such as '24GiB', got {kind_of(value)}")
    return number


def by_name(names: Sequence[str], given: Any) -> dict[str, Any]:
    """The shapes ``given`` for inputs of these names: a mapping, one after the other, or a single shape for the first."""
    if isinstance(given, Mapping):
        return dict(given)
    if is_sequence(given) and len(given) and any(whole(n) is None for n in given):
        return dict(zip(names, given, strict=False))
    return {names[0]: given} if names else {}
