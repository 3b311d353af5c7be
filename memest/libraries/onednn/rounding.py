"""Whole numbers rounded up, as kernels cut work into blocks."""

from __future__ import annotations


def div_up(value: int, divisor: int) -> int:
    """The quotient, rounded up."""
    return -(-value // divisor)


def round_up(value: int, multiple: int) -> int:
    """The least multiple that is no less than ``value``."""
    return -(-value // multiple) * multiple
