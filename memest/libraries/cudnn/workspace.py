"""What is answered: the bytes of workspace torch takes beside a convolution, how sure they are, and who said so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

Release = tuple[int, int]
Source = Literal["cudnn", "table", "rule"]


class Card(Protocol):
    """What is asked about a card. Hashable: answers are remembered by it."""

    @property
    def capability(self) -> tuple[int, int]:
        """The architecture: (9, 0)."""

    @property
    def multiprocessors(self) -> int:
        """How many there are."""

    def properties(self) -> dict[str, Any]:
        """cuDNN's JSON of device properties."""

    def __hash__(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Bytes taken before the convolution runs and freed after it; they lie from ``low`` to ``high``, equal where they are known.

    ``trial`` is the one buffer that the first call of this convolution takes with ``cudnn.benchmark``, to try the plans in; it is freed,
    and the allocator's cache emptied, before the chosen plan's own is taken. ``source``: cuDNN answered, a stored answer of cuDNN's, or a
    rule.
    """

    bytes: int
    low: int
    high: int
    source: Source
    trial: int = 0
