"""Checks of lever options: text in, value out, ValueError with what was expected."""

from __future__ import annotations

from collections.abc import Callable

from memest.errors import UsageError
from memest.sizes.units import parse_budget


def positive(text: str) -> int:
    """A whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        raise ValueError("expected a whole number") from None
    if value < 1:
        raise ValueError("expected a number of at least 1")
    return value


def count(text: str) -> int:
    """A whole number from 0."""
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ValueError("expected a whole number, 0 or more")
    return int(text)


def flag(text: str) -> bool:
    """true or false."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    raise ValueError("expected true or false")


def size(text: str) -> int:
    """A number of bytes with its unit."""
    try:
        return parse_budget(text)
    except UsageError as e:
        raise ValueError(str(e)) from None


def words(text: str) -> tuple[str, ...]:
    """Names joined by ``+``."""
    found = tuple(part.strip() for part in text.split("+"))
    if not all(found):
        raise ValueError("expected names joined by +")
    return found


def choice(*options: str) -> Callable[[str], str]:
    """One of ``options``."""

    def checked(text: str) -> str:
        if text not in options:
            raise ValueError(f"expected one of {', '.join(options)}")
        return text

    return checked


def positive_number(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError("expected a number") from None
    if not value > 0:
        raise ValueError("expected a number above 0")
    return value


def extents(text: str) -> tuple[int, ...]:
    """Sizes of at least 1 joined by ``x``."""
    return _sizes(text, 1)


def halo_extents(text: str) -> tuple[int, ...]:
    """Sizes of at least 0 joined by ``x``."""
    return _sizes(text, 0)


def _sizes(text: str, least: int) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split("x"))
    except ValueError:
        raise ValueError("expected whole numbers joined by x") from None
    if any(n < least for n in sizes):
        raise ValueError(f"expected sizes of at least {least}")
    return sizes
