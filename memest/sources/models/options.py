"""Options of built-in models: written as text (``base_filters=32``) or given in Python, checked before anything is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memest.errors import UnknownNameError, UsageError, did_you_mean, kind_of

MAX_STAGES = 16
MAX_CHANNELS = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option: its name, default, and a check that returns the value to use or raises ValueError with what was expected.

    A check gets text from a command line and values from Python alike."""

    name: str
    default: Any
    check: Callable[[Any], Any]


def checked(model: str, options: Sequence[Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """All options with ``given`` over the defaults; UnknownNameError or UsageError names the option."""
    known = {o.name: o for o in options}
    for name in given:
        if name not in known:
            raise UnknownNameError(f"model {model!r} has no option {name!r}{did_you_mean(name, known)}")
    values = {o.name: o.default for o in options}
    for name, value in given.items():
        try:
            values[name] = known[name].check(value)
        except ValueError as e:
            raise UsageError(f"model {model!r}, option {name!r}: expected {e}, got {kind_of(value)}") from None
    return values


def parsed(text: str) -> tuple[str, dict[str, str]]:
    """Name and options of ``name:option=value,option=value``; UsageError when it is not written so."""
    name, _, tail = text.partition(":")
    options: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in tail.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals or not key or not value:
            raise UsageError(f"model option {item!r}: write option=value")
        if key in options:
            raise UsageError(f"model option {key!r} is given twice")
        options[key] = value
    return name.strip(), options


def whole(least: int, most: int) -> Callable[[Any], int]:
    """A whole number between ``least`` and ``most``."""

    def check(value: Any) -> int:
        number = _integer(value)
        if number is None or not least <= number <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return number

    return check


def fraction(value: Any) -> float:
    """A probability: from 0 to 1."""
    number = _float(value)
    if number is None or not 0 <= number <= 1:
        raise ValueError("a number from 0 to 1")
    return number


def factor(value: Any) -> float:
    """A positive factor, at most 100."""
    number = _float(value)
    if number is None or not 0 < number <= 100:
        raise ValueError("a number above 0, at most 100")
    return number


def flag(value: Any) -> bool:
    """True or false."""
    found = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(str(value).lower())
    if found is None:
        raise ValueError("true or false")
    return found


def one_of(*choices: str) -> Callable[[Any], str]:
    """One of ``choices``."""

    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError(" or ".join(choices))
        return str(value)

    return check


def per_stage(most: int, *, alone: bool = False, axes: bool = False) -> Callable[[Any], Any]:
    """One entry a stage, ``32-64-128`` as text; with ``alone`` a single number may stand for all stages, with ``axes`` an entry may
    be one number per axis (``1-1x2x2-2``)."""
    number = whole(1, most)

    def entry(value: Any) -> Any:
        parts = value.split("x") if isinstance(value, str) else value
        if not axes or not isinstance(parts, Sequence) or (len(parts) == 1 and isinstance(value, str)):
            return number(value)
        if not parts:
            raise ValueError("numbers")
        return tuple(number(p) for p in parts)

    def check(value: Any) -> Any:
        if alone and _integer(value) is not None:
            return number(value)
        entries = value.split("-") if isinstance(value, str) else value
        example = "numbers as 1-1x2x2-2" if axes else "numbers as 32-64-128"
        if not isinstance(entries, Sequence) or not 2 <= len(entries) <= MAX_STAGES:
            raise ValueError(f"{example}, 2 to {MAX_STAGES} of them")
        try:
            return tuple(entry(e) for e in entries)
        except ValueError:
            raise ValueError(f"{example}, each from 1 to {most}") from None

    return check


def _integer(value: Any) -> int | None:
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) <= 18 else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
