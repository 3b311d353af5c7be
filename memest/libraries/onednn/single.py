"""Arithmetic in single precision, where oneDNN's heuristics compare floats and ties or near-ties decide.

Every operation is done in double precision and rounded once, which for one addition, product, quotient or root of singles gives the
correctly rounded single.
"""

from __future__ import annotations

from struct import Struct

from memest.sizes.choices import Many

_SINGLE = Struct("f")


def single(value: float) -> float:
    """``value`` rounded to single precision."""
    if isinstance(value, Many):
        rounded_all: float = value.single()
        return rounded_all
    rounded: float = _SINGLE.unpack(_SINGLE.pack(value))[0]
    return rounded


def quotient(numerator: float, denominator: float) -> float:
    """The quotient of two numbers first rounded to singles."""
    return single(single(numerator) / single(denominator))


def product(first: float, *others: float) -> float:
    """The product, left to right."""
    result = single(first)
    for other in others:
        result = single(result * single(other))
    return result


def total(first: float, *others: float) -> float:
    """The sum, left to right."""
    result = single(first)
    for other in others:
        result = single(result + single(other))
    return result


def root(value: float) -> float:
    """The square root of a single."""
    return single(value**0.5)
