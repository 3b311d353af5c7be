"""Claims, and tables of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """Something the bench checks: what was found, what is claimed, and whether it holds."""

    what: str
    found: str
    claimed: str
    holds: bool

    @property
    def row(self) -> tuple[str, ...]:
        """The claim as a line of a table."""
        return self.what, self.found, self.claimed, "yes" if self.holds else "NO"


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, the others to the right, each as wide as its widest cell."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = []
    for row in (head, tuple("-" * w for w in widths), *rows):
        cells = (cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """:func:`text_table` on standard output."""
    print(text_table(head, rows), flush=True)
