"""Windows as a way to less memory: the call on a window at a time, its halo included, beside the whole input and the whole output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING

from memest.errors import MemestError, UnsupportedError
from memest.memory.planners.blocks import aligned
from memest.planning.arena.flow import flow_of
from memest.planning.arena.ways import (
    CUT,
    DTYPES,
    ITEMSIZES,
    MORE_WORK,
    PRICES,
    Arrangements,
    Reach,
    Way,
    every_way,
    no_reuse_ways,
    smallest,
    told,
)
from memest.planning.cutting import field_of, takes_statistics, volume_of, window_sizes
from memest.runtimes.torch.step.windows.tiles import per_dim, windows

if TYPE_CHECKING:
    from memest.estimate.estimate import Estimate


def window_ways(estimate: Estimate, whole: Arrangements, halo: tuple[int, ...] | None, factor: float) -> Iterator[Way]:
    """The largest windows that reach ``factor``, with the exact changes that help: one way in the dtype as it is, one in 16 bits; where
    none reaches it, the window with the least memory. ``halo`` is what is dropped on each side (one number, or one a dim; None: all that
    the network sees, so that results stay the same unless a layer takes statistics over the sample). UnsupportedError says why windows
    cannot be."""
    extents, names = volume_of(estimate)
    if any(len(whole.flow.values[v].shape) != len(extents) + 2 for v in whole.flow.outputs):
        raise UnsupportedError("an output is no image or volume that could be joined from parts")
    field, step = field_of(estimate, len(extents), halo)
    chosen = per_dim(halo if halo is not None else field or (0,), len(extents), "halo", "windows")
    whole_field = field is not None and all(h >= f for h, f in zip(chosen, field, strict=True))
    price = MORE_WORK if whole_field and not takes_statistics(estimate) else CUT
    ways: dict[str | None, Way] = {}
    for window in window_sizes(extents, chosen, step):
        try:
            part = Arrangements(flow_of(estimate.at(**dict(zip(names, window, strict=True)))), whole.alignment)
        except MemestError:
            continue  # a size the network does not take
        for dtype in (d for d in whole.dtypes() if DTYPES[d] in PRICES[:3]):
            if dtype not in ways or ways[dtype].factor < factor:
                way = _way(extents, window, chosen, whole, part, dtype, price)
                if dtype not in ways or way.nbytes < ways[dtype].nbytes:
                    ways[dtype] = way
    yield from ways.values()


def _way(
    extents: Sequence[int],
    window: tuple[int, ...],
    halo: tuple[int, ...],
    whole: Arrangements,
    part: Arrangements,
    dtype: str | None,
    price: str,
) -> Way:
    changes = part.best(dtype)
    flow = whole.flow if dtype is None else whole.flow.in_bytes(ITEMSIZES[dtype])
    standing = sum(aligned(flow.values[v].nbytes, whole.alignment) for v in flow.inputs | flow.outputs)
    nbytes = part.nbytes(changes) + standing
    shape = "x".join(map(str, window))
    count = len(windows(tuple(extents), window, halo))
    return Way(
        changes=(*changes, f"{count} windows of {shape}, halo {'x'.join(map(str, halo))}"),
        nbytes=nbytes,
        factor=whole.apart / nbytes,
        price=max(price, DTYPES[dtype], key=PRICES.index),
        recomputed=count * prod(window) / prod(extents) - 1,
    )


def reach_of(estimate: Estimate, alignment: int, factor: float, halo: tuple[int, ...] | None) -> Reach:
    """How far the memory of this call comes down; see :mod:`memest.planning.arena.ways`."""
    whole = Arrangements(flow_of(estimate), alignment)
    ways, why = list(every_way(whole)), None
    shown = [*no_reuse_ways(whole), *told(ways)]
    try:
        cut = list(window_ways(estimate, whole, halo, factor))
        why = None if cut else "windows: with their halo none is smaller than the input"
    except UnsupportedError as e:
        cut, why = [], f"windows: {e}"
    return Reach(factor=factor, ways=(*shown, *cut), smallest=smallest([*ways, *cut], factor), why=why)
