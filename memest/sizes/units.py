"""Bytes as people write them: binary units under their true names (KiB, MiB, GiB, …), exact at any size.

Refuses a size without a unit: ``24`` may mean bytes to one reader and gigabytes to the next.
"""

from __future__ import annotations

import re

from memest.errors import UsageError

BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")
DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_FACTORS = {name.lower(): 1024**i for i, name in enumerate(BINARY)} | {name.lower(): 1000**i for i, name in enumerate(DECIMAL)}
_SIZE = re.compile(r"(\d+)(?:\.(\d+))?\s*([A-Za-z]*)", re.ASCII)
_MAX_LENGTH = 60
DIGITS = 4


def format_bytes(nbytes: int) -> str:
    """``nbytes`` in the largest binary unit that leaves at least 1, with two decimals: ``1.50 GiB``; bytes below 1 KiB as they are."""
    sign, n = ("-", -nbytes) if nbytes < 0 else ("", nbytes)
    if n < 1024:
        return f"{sign}{n} B"
    power = min((n.bit_length() - 1) // 10, len(BINARY) - 1)
    hundredths = _hundredths(n, power)
    if hundredths >= 102400 and power < len(BINARY) - 1:
        power += 1
        hundredths = _hundredths(n, power)
    return f"{sign}{hundredths // 100:,}.{hundredths % 100:02d} {BINARY[power]}"


def _hundredths(n: int, power: int) -> int:
    unit: int = 1024**power
    return (n * 100 + unit // 2) // unit


def exact_bytes(nbytes: int) -> str:
    """``nbytes`` as :func:`parse_bytes` reads it back, to the byte: ``40GiB``, ``1.5MiB``, in the largest unit that needs at most
    ``DIGITS`` decimals."""
    for power in range(len(BINARY) - 1, 0, -1):
        whole, rest = divmod(nbytes * 10**DIGITS, 1024**power)
        if not rest and whole >= 10**DIGITS:
            fraction = str(whole % 10**DIGITS).zfill(DIGITS).rstrip("0")
            return f"{whole // 10**DIGITS}{'.' if fraction else ''}{fraction}{BINARY[power]}"
    return f"{nbytes}B"


def parse_bytes(text: str) -> int:
    """The bytes in ``24GiB``, ``1.5 TiB``, ``512MB`` (decimal: 512,000,000), ``100B``; a fraction of a byte is dropped.

    Raises UsageError for a size without a unit, and for anything that is not a size."""
    found = _SIZE.fullmatch(text.strip())
    if found is None or len(text) > _MAX_LENGTH:
        raise UsageError(f"not a size: {text[:_MAX_LENGTH]!r}; write a number and a unit, such as 24GiB")
    whole, fraction, unit = found.groups(default="")
    amount = f"{whole}.{fraction}" if fraction else whole
    if not unit:
        raise UsageError(f"size {text!r} has no unit; write {amount}GiB, {amount}MiB or {amount}B")
    factor = _FACTORS.get(unit.lower())
    if factor is None:
        raise UsageError(f"size {text!r}: unknown unit {unit!r}; use {', '.join(BINARY[:5])}")
    return int(int(whole + fraction) * factor // 10 ** len(fraction))


def parse_budget(text: str) -> int:
    """The bytes of a limit: a size as ``parse_bytes`` reads it, at least one byte."""
    budget = parse_bytes(text)
    if budget < 1:
        raise UsageError(f"a budget of {text!r} holds nothing; write a positive size, such as 24GiB")
    return budget
