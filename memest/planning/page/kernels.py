"""What sealed kernels hold at the settings of a page: exact values, played for many sizes at once, each distinct problem once.

Beside the most bytes, a page wants to know what they are: the kernel's results that are there already (they have a category of their
own), copies in between (temporaries), and the library's scratch (the rest).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memest.memory.live_sets import compile_sizes
from memest.ops.searched import InnerPeak
from memest.sizes.choices import below, choose
from memest.sizes.columns import Lanes, by_lanes
from memest.sizes.dims import Opaque

Entry = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTable:
    """What a kernel holds: ``entries`` are (bytes, results there as bits in their order, bytes of temporaries); ``codes`` says which of
    them counts at each setting, in the order the settings were given."""

    entries: tuple[Entry, ...]
    codes: NDArray[np.intp]


def kernel_table(kernel: Opaque, settings: Sequence[Sequence[int]], symbols: Sequence[str]) -> KernelTable:
    """The values of ``kernel`` at ``settings`` (sizes of ``symbols``)."""
    arguments = compile_sizes(kernel.args, symbols)
    problems, which = np.unique(np.array([arguments(*s) for s in settings], dtype=np.int64), axis=0, return_inverse=True)
    peak = kernel.function
    assert isinstance(peak, InnerPeak)
    rows = _played(peak, problems)
    entries, codes = np.unique(rows, axis=0, return_inverse=True)
    return KernelTable(entries=tuple((int(a), int(b), int(c)) for a, b, c in entries), codes=codes.reshape(-1)[which.reshape(-1)])


def _played(peak: InnerPeak, problems: NDArray[np.int64]) -> NDArray[np.int64]:
    found = np.zeros((len(problems), 3), dtype=np.int64)

    def play(number: Any, *sizes: Any) -> Any:
        """The kernel played in the lanes that ``number`` counts; a split leaves nothing behind."""
        held = highest(peak, sizes)
        where = number.column if isinstance(number, Lanes) else number
        for column, value in enumerate(held):
            found[where, column] = value.column if isinstance(value, Lanes) else value
        return 0

    by_lanes(play, [np.arange(len(problems), dtype=np.int64), *problems.T])
    return found


def highest(peak: InnerPeak, sizes: Sequence[Any]) -> tuple[Any, Any, Any]:
    """The kernel's highest moment at ``sizes`` (anything that counts like ints): bytes, results there as bits, bytes of temporaries."""
    trace = peak.trace(sizes)
    scratch = {e.slot for e in trace.events if e.scratch}
    slots = [out.slot for out in trace.outputs if out is not None]
    alive: dict[int, Any] = {}
    running: Any = 0
    found: tuple[Any, Any, Any] = (0, 0, 0)
    for slot, nbytes, _, keep, _, tried, _ in trace.events:
        if keep or tried is not None:
            continue
        if isinstance(nbytes, int) and nbytes < 0:
            running = running - alive.pop(slot)
            continue
        alive[slot] = nbytes
        running = running + nbytes
        bits = sum(1 << i for i, s in enumerate(slots) if s in alive)
        temporaries = sum((n for s, n in alive.items() if s not in scratch and s not in slots), 0)
        found = choose(below(found[0], running), (running, bits, temporaries), found)
    return found
