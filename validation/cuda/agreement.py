"""Whether a predicted stream is a recorded one, where some of its figures are modelled: within their range, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from memest.memory.stream import Event
from validation.rows import normalized

LEAVES_OUT = 0


def agrees(events: Sequence[Event], recorded: Sequence[int], *, beyond: bool = False) -> bool:
    """Whether the recorded stream is the predicted one for some choice of each modelled figure within its range (none at all, where the
    range begins at 0); with ``beyond`` of any size, which holds what is not modelled against the record."""
    wanted, found = normalized(recorded), [d for d in recorded if d > 0]
    asked = [e for e in events if e.delta > 0]
    return any(normalized(_played(events, asked, sizes)) == wanted for sizes in _choices(asked, found, beyond))


def _choices(asked: Sequence[Event], found: Sequence[int], beyond: bool) -> Iterator[list[int]]:
    """Sizes for all requests that make the recorded ones, in order."""
    if not asked:
        if not found:
            yield []
        return
    first, *rest = asked
    modelled = first.storage.spread is not None
    low, high = first.storage.spread or (first.delta, first.delta)
    if found and (low <= found[0] <= high or (modelled and beyond)):
        yield from ([found[0], *sizes] for sizes in _choices(rest, found[1:], beyond))
    if modelled and (not low or beyond):
        yield from ([LEAVES_OUT, *sizes] for sizes in _choices(rest, found, beyond))


def _played(events: Sequence[Event], asked: Sequence[Event], sizes: Sequence[int]) -> list[int]:
    """The stream with those sizes; what is left out is gone with its release."""
    size = {id(e.storage): n for e, n in zip(asked, sizes, strict=True)}
    signed = ((1 if e.delta > 0 else -1) * size.get(id(e.storage), abs(e.delta)) for e in events)
    return [delta for delta in signed if delta]
