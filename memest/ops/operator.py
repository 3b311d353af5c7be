"""The operator row: everything memest knows of one operator, in one place.

A row is read by the runtimes (what is allocated when), by files and builder (which attributes a layer may have), by levers and planning
(its facts), by the importer (which calls are known), by the reference page and by the tests (its examples are checked against torch). All
columns but ``oracle`` are required.

``forward(k, *tensors, **attributes)`` gets the tape, the input tensors in the order of ``roles`` (None for an absent optional one; a
list for a ``*`` role) and every attribute; it returns the output tensor, or a tuple of them. ``backward(k, saved, grads,
**attributes)`` gets the saved tensors by role and the gradients of the outputs (None where undefined); it returns one gradient or
None per *flattened* tensor input. Shape checks belong to ``forward``: raise :class:`memest.errors.ShapeError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memest.errors import GraphError, did_you_mean
from memest.ops.facts import Facts
from memest.ops.tape import Tape, Tensor

Outputs = Tensor | tuple[Tensor | None, ...]
Forward = Callable[..., Outputs]
Backward = Callable[..., Sequence[Tensor | None]]
REQUIRED: Any = ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """One attribute of an operator: torch's name, its default (``REQUIRED`` when there is none), and a check that returns the
    canonical value or raises ValueError with what was expected."""

    name: str
    default: Any
    check: Callable[[Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A small call the tests run in torch and here: shapes (a shape, ``None``, or a list of shapes for a ``*`` role) and attributes.

    ``dtypes`` overrides float32 per input; ``layout`` is ``contiguous``, ``channels_last`` or ``transposed`` (of the first input);
    ``frozen`` are the positions of the inputs whose gradient nobody wants."""

    shapes: tuple[Any, ...]
    attributes: Mapping[str, Any]
    dtypes: tuple[str, ...] = ()
    layout: str = "contiguous"
    frozen: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operator:
    """One row. ``torch`` is the dotted name of the callable it is (of which it is a part; '' where torch has none). ``saves`` lists every
    role ``forward`` may keep for backward; ``backward`` is None for what has no gradient. ``source`` cites the derivatives.yaml entry and
    the kernel's file. ``oracle`` names the face under which the row is run to be checked, where torch's callable does not take the tensors
    and attributes as the row has them."""

    name: str
    torch: str
    roles: tuple[str, ...]
    attributes: tuple[Attribute, ...]
    forward: Forward
    saves: tuple[str, ...]
    backward: Backward | None
    examples: tuple[Example, ...]
    facts: Facts
    source: str
    oracle: str = ""

    def canonical(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All attributes with defaults filled in and values checked; GraphError names an unknown, missing or ill-typed one."""
        return canonical_attributes(self.name, self.attributes, given)


def canonical_attributes(op: str, attributes: Sequence[Attribute], given: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` with defaults filled in and every value checked, in the order of the row."""
    known = {a.name for a in attributes}
    for name in given:
        if name not in known:
            raise GraphError(f"operator {op!r} has no attribute {name!r}{did_you_mean(name, known)}")
    result: dict[str, Any] = {}
    for a in attributes:
        value = given.get(a.name, a.default)
        if value is REQUIRED:
            raise GraphError(f"operator {op!r} needs attribute {a.name!r}")
        try:
            result[a.name] = a.check(value)
        except (ValueError, TypeError) as e:
            raise GraphError(f"operator {op!r}, attribute {a.name!r}: {e}, got {value!r}") from None
    return result


def integer(value: Any) -> Any:
    """An int (a ``Dim`` stays one); bools are refused."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("expected an integer")
    return value


def number(value: Any) -> Any:
    """An int or a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("expected a number")
    return value


def number_or_flag(value: Any) -> Any:
    """A number, or a bool (which makes a tensor of bools)."""
    return value if isinstance(value, bool) else number(value)


def flag(value: Any) -> bool:
    """A bool."""
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def text(value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise ValueError("expected a string")
    return value


def optional(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``check``, or None."""

    def checked(value: Any) -> Any:
        return None if value is None else check(value)

    return checked


def integers(value: Any) -> tuple[int, ...]:
    """A sequence of ints."""
    if not isinstance(value, list | tuple):
        raise ValueError("expected a list of integers")
    return tuple(integer(v) for v in value)


def per_dim(value: Any) -> Any:
    """An int, or a sequence of one int per spatial dim (kept as given; :func:`expand` makes the tuple)."""
    return integers(value) if isinstance(value, list | tuple) else integer(value)


def choice(*options: str) -> Callable[[Any], str]:
    """One of ``options``."""

    def checked(value: Any) -> str:
        if value not in options:
            raise ValueError(f"expected one of {', '.join(options)}")
        return str(value)

    return checked


def expand(value: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """``value`` for each of ``ndim`` spatial dims: an int is repeated, a sequence of one entry too (as torch does)."""
    if isinstance(value, int):
        return (value,) * ndim
    if len(value) == 1:
        return tuple(value) * ndim
    if len(value) != ndim:
        raise GraphError(f"expected {ndim} values, got {len(value)}")
    return tuple(value)


__all__ = [
    "REQUIRED",
    "Attribute",
    "Example",
    "Operator",
    "Outputs",
    "Tape",
    "Tensor",
    "canonical_attributes",
    "choice",
    "expand",
    "flag",
    "integer",
    "integers",
    "number",
    "optional",
    "per_dim",
    "text",
]
