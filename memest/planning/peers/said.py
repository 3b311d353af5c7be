"""What one tool says: a figure as a sum of terms, and the words it is printed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """``nbytes`` of what a tool counts, in one of our categories. ``slip``: what it counts twice, forgets or takes for something else; a
    term without one is what it means to count. ``by_module``: the same, module by module."""

    category: str
    nbytes: int
    slip: str = ""
    by_module: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What ``tool`` says. ``rule`` is where its rule was read, ``asks`` what its figure is of, ``printed`` how it shows it, with its unit.
    ``reason``: why it says nothing (there are no terms then)."""

    tool: str
    rule: str
    asks: str
    printed: str = ""
    terms: tuple[Term, ...] = ()
    reason: str = ""

    @property
    def nbytes(self) -> int | None:
        """Its figure in bytes."""
        return None if self.reason else sum(t.nbytes for t in self.terms)


def plus(category: str, nbytes: int, slip: str) -> list[Term]:
    """A term that is left out where it is nothing."""
    return [Term(category=category, nbytes=nbytes, slip=slip)] if nbytes else []
