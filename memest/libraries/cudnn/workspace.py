"""What is answered: the bytes of workspace torch takes beside a convolution, how sure they are, and who said so."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Literal, Protocol

from memest.libraries.cudnn.question import Convolution
from memest.network.dtypes import ITEMSIZE

Release = tuple[int, int]
Formula = tuple[int, int, int, int, int]
"""i, j, k, m, r: i copies of x, j of w and k of y, the channels of each group filled up to multiples of m, and r bytes."""
_LARGE_TURING = 60
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
    """Bytes taken before the convolution runs and freed after it; they lie from ``low`` to ``high``, equal where they are known:
    never of a ``rule``.

    ``trial`` is the one buffer that the first call of this convolution takes with ``cudnn.benchmark``, to try the plans in; it is freed,
    and the allocator's cache emptied, before the chosen plan's own is taken. ``source``: cuDNN answered, a stored answer of cuDNN's, or a
    rule.
    """

    bytes: int
    low: int
    high: int
    source: Source
    trial: int = 0


def filled_bytes(question: Convolution, formula: Formula) -> int:
    """What a formula comes to."""
    i, j, k, unit, rest = formula
    groups, size = question.groups, ITEMSIZE[question.dtype]
    ins = -(-question.w[1] // unit) * unit
    outs = -(-(question.w[0] // groups) // unit) * unit
    x = question.x[0] * groups * ins * prod(question.x[2:])
    w = groups * outs * ins * prod(question.w[2:])
    y = question.y[0] * groups * outs * prod(question.y[2:])
    return (i * x + j * w + k * y) * size + rest


def kind_of(card: Card) -> str:
    """What of a card counts in cuDNN's choice: its architecture, and of Turing whether it is the large chip (68 multiprocessors or more;
    cuDNN 9.24 draws the line between 56 and 60). ``8.0``, ``7.5-large``."""
    major, minor = card.capability
    return f"{major}.{minor}{'-large' if card.capability == (7, 5) and card.multiprocessors >= _LARGE_TURING else ''}"


def column_name(kind: str, dtype: str, channels_last: bool) -> str:
    """What is known of a kind of card, a dtype and a layout goes by one name: ``8.0/float16/channels_last``."""
    return f"{kind}/{dtype}/{'channels_last' if channels_last else 'contiguous'}"
