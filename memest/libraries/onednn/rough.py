"""A rough reading of long searches: the least or the most that any of the candidates would need, instead of what the best one needs.

Where least and most come to the same, the search need not be run. Allocations only ever add to what is alive, so a plan with less of
everything gives a lower peak, and one with more a higher one.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Literal

End = Literal["least", "most"]


class Rough:
    """A context in which searches may answer roughly, unless ``end`` is None; ``asked`` says whether one did."""

    def __init__(self, end: End | None) -> None:
        self.end = end
        self.asked = False

    def __enter__(self) -> Rough:
        self._before = _INNERMOST.set(self)
        return self

    def __exit__(self, *exception: object) -> None:
        _INNERMOST.reset(self._before)


_INNERMOST: ContextVar[Rough | None] = ContextVar("rough", default=None)


def wanted() -> End | None:
    """Which end a search may answer with; None where it has to be run."""
    rough = _INNERMOST.get()
    if rough is None or rough.end is None:
        return None
    rough.asked = True
    return rough.end
