"""Binary units: exact at any size, and no size without a unit."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from memest.errors import UsageError
from memest.sizes.units import BINARY, format_bytes, parse_budget, parse_bytes


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (1024**2 - 1, "1.00 MiB"),
        (1024**3, "1.00 GiB"),
        (5 * 1024**4 // 4, "1.25 TiB"),
        (-1536, "-1.50 KiB"),
        (2**63, "8.00 EiB"),
        (2**80, "1.00 YiB"),
        (1234 * 2**80, "1,234.00 YiB"),
    ],
)
def test_format(nbytes: int, text: str) -> None:
    assert format_bytes(nbytes) == text


def test_format_is_the_nearest_hundredth_and_parses_back() -> None:
    r = random.Random(3)
    for _ in range(3000):
        n = r.randrange(1 << r.randrange(1, 89))
        amount, unit = format_bytes(n).replace(",", "").split()
        size = 1024 ** BINARY.index(unit)
        assert abs(Fraction(amount) - Fraction(n, size)) <= Fraction(1, 200)
        assert unit == "YiB" or Fraction(amount) < 1024
        assert abs(parse_bytes(f"{amount} {unit}") - n) <= size // 200 + 1


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("24GiB", 24 * 1024**3),
        ("1.5 TiB", 3 * 1024**4 // 2),
        ("512MB", 512_000_000),
        ("7B", 7),
        (" 1kib ", 1024),
        ("0.5 B", 0),
        ("9007199254740993 B", 2**53 + 1),
        ("24 gib", 24 * 1024**3),
        ("1234567890123456789012345678901.5 KiB", 1234567890123456789012345678901 * 1024 + 512),
        ("0.1 KiB", 102),
    ],
)
def test_parse(text: str, nbytes: int) -> None:
    assert parse_bytes(text) == nbytes


@pytest.mark.parametrize(
    "text",
    ["24", "1.5", "", "GiB", "-1GiB", "1e3MiB", "1 GiX", "1,5GiB", "٣GiB", "nan B", "NaN", "inf GiB", "9" * 100 + "B", ".5GiB", "5.GiB"],
)
def test_parse_refuses(text: str) -> None:
    with pytest.raises(UsageError):
        parse_bytes(text)


def test_a_size_without_a_unit_says_so() -> None:
    with pytest.raises(UsageError, match="24GiB"):
        parse_bytes("24")


@pytest.mark.parametrize("text", ["0GiB", "0.0 TiB", "0.5B", "-1GiB", "24"])
def test_a_budget_holds_something(text: str) -> None:
    with pytest.raises(UsageError, match="GiB"):
        parse_budget(text)


def test_a_budget_is_a_size() -> None:
    assert parse_budget("24GiB") == parse_bytes("24GiB")
