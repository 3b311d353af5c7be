"""Places that nobody knows: ``queue[:, p : p + n]`` and ``queue[p]``, where ``p`` was read from a tensor (a memory bank's pointer).

Where a window of so many lies decides nothing of what it takes. Once a forward has read a number, its windows are written down as those at
the beginning, and a place past the end, where only the number that stands in for the read one can point, counts as one inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from memest.sizes.dims import recording
from memest.sources.importers.torch.tensors.numbers import UnknownWhole, plain

MASKS = (torch.bool, torch.uint8)


def at_the_beginning(index: Sequence[Any], shape: Sequence[int]) -> tuple[Any, ...]:
    """``index`` of a tensor of ``shape`` (Python's own entries), its windows of step 1 moved to 0."""
    entries = list(index)
    widths = [0 if e is None else getattr(e, "ndim", 1) if getattr(e, "dtype", None) in MASKS else 1 for e in index if e is not Ellipsis]
    dim, rest = 0, iter(widths)
    for i, entry in enumerate(index):
        if entry is Ellipsis:
            dim = len(shape) - sum(widths[i:])
            continue
        if isinstance(entry, slice):
            entries[i] = _moved(entry, shape[dim])
        elif type(entry) in (int, UnknownWhole) and plain(entry) >= 0:
            entries[i] = 0
        dim += next(rest)
    return tuple(entries)


def _moved(window: slice, size: int) -> slice:
    if window.step not in (None, 1) or not (isinstance(window.start, int) and isinstance(window.stop, int)):
        return window
    start, stop = plain(window.start), plain(window.stop)
    with recording(None):
        inside = 0 <= start < stop <= size
        past = size <= start and 0 < stop - start <= size
        return slice(0, stop - start) if inside or past else slice(start, stop)
