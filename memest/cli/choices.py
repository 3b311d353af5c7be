"""Words that an option takes one of."""

from __future__ import annotations

from enum import Enum


class Format(str, Enum):
    """How a result is written."""

    text = "text"
    json = "json"
    csv = "csv"
    markdown = "markdown"


class Isa(str, Enum):
    """Instruction sets the kernel libraries choose by."""

    avx2 = "avx2"
    avx512 = "avx512"
