"""What of a prediction is expected, and what is only perhaps there."""

from __future__ import annotations

from collections.abc import Iterable

from memest.memory.stream import Event


def expected(events: Iterable[Event]) -> list[Event]:
    """Without what is only perhaps there: a byte that stands for a range from 0 on, where none is expected."""
    return [e for e in events if e.storage.spread is None or e.storage.spread[0] or e.storage.nbytes != 1]
