"""Windows as a way to less memory: the call on a window at a time, its halo included, beside the whole input and the whole output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, prod
from typing import TYPE_CHECKING

from memest.errors import MemestError, UnsupportedError, UsageError
from memest.levers.receptive import receptive_field
from memest.memory.planners.blocks import aligned
from memest.ops.facts import BATCH, SAMPLE
from memest.ops.table import operator_named
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
from memest.runtimes.torch.step.windows.tiles import per_dim, windows
from memest.sizes.dims import Expr

if TYPE_CHECKING:
    from memest.estimate.estimate import Estimate

MOST = 24  # sizes of windows that are tried
STEP = 8  # what windows are multiples of, where how far the network sees is not known


def window_ways(estimate: Estimate, whole: Arrangements, halo: tuple[int, ...] | None, factor: float) -> Iterator[Way]:
    """The largest windows that reach ``factor``, with the exact changes that help: one way in the dtype as it is, one in 16 bits; where
    none reaches it, the window with the least memory. ``halo`` is what is dropped on each side (one number, or one a dim; None: all that
    the network sees, so that results stay the same unless a layer takes statistics over the sample). UnsupportedError says why windows
    cannot be."""
    extents, names = _volume(estimate)
    if any(len(whole.flow.values[v].shape) != len(extents) + 2 for v in whole.flow.outputs):
        raise UnsupportedError("windows: an output is no image or volume that could be joined from parts")
    field, step = _field(estimate, len(extents), halo)
    chosen = per_dim(halo if halo is not None else field or (0,), len(extents), "halo", "windows")
    whole_field = field is not None and all(h >= f for h, f in zip(chosen, field, strict=True))
    price = MORE_WORK if whole_field and not _takes_statistics(estimate) else CUT
    ways: dict[str | None, Way] = {}
    for window in _sizes(extents, chosen, step):
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


def _takes_statistics(estimate: Estimate) -> bool:
    """Whether a layer takes its mean and variance over what it is given: over a window they are others."""
    for layer in estimate.played.layers:
        row = operator_named(layer.op)
        kept = dict(zip((role.rstrip("?") for role in row.roles), layer.tensors, strict=False)).get("running_mean")
        if row.facts.statistics is SAMPLE or (row.facts.statistics is BATCH and kept is None):
            return True
    return False


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


def _volume(estimate: Estimate) -> tuple[tuple[int, ...], list[str]]:
    """The sizes of the one input behind batch and channels, and their names."""
    inputs = estimate.played.inputs
    if len(inputs) != 1 or len(inputs[0].shape) < 3:
        raise UnsupportedError("windows: the network has not one image or volume as its input")
    dims = inputs[0].shape[2:]
    names = [d.args[0] for d in dims if isinstance(d, Expr) and d.op == "symbol"]
    if len(set(names)) != len(dims):
        raise UnsupportedError("windows: the sizes of the input are not free, each for itself")
    return estimate.input_shapes[inputs[0].name][2:], names


def _field(estimate: Estimate, dims: int, halo: tuple[int, ...] | None) -> tuple[tuple[int, ...] | None, tuple[int, ...]]:
    """The network's halo (None: not known) and what windows are multiples of."""
    try:
        field = receptive_field(estimate.played)
    except MemestError as e:
        if halo is None:
            raise UnsupportedError(f"windows: {e}") from None
        return None, (STEP,) * dims
    return field.halo, field.step


def _sizes(extents: tuple[int, ...], halo: tuple[int, ...], step: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Windows, the larger first: each splits what was longest in the one before once more."""
    parts = [1] * len(extents)
    seen: set[tuple[int, ...]] = {extents}
    for _ in range(MOST):
        cores = [ceil(ceil(e / p) / s) * s for e, p, s in zip(extents, parts, step, strict=True)]
        window = tuple(min(e, c + 2 * h) for e, c, h in zip(extents, cores, halo, strict=True))
        if window not in seen:
            seen.add(window)
            yield window
        able = [d for d, (e, h, s, c) in enumerate(zip(extents, halo, step, cores, strict=True)) if c > s and s + 2 * h < e]
        if not able:
            return
        parts[max(able, key=lambda d: (cores[d] + 2 * halo[d], -d))] += 1


def reach_of(estimate: Estimate, alignment: int, factor: float, halo: tuple[int, ...] | None) -> Reach:
    """How far the memory of this call comes down; see :mod:`memest.planning.arena.ways`."""
    whole = Arrangements(flow_of(estimate), alignment)
    ways, why = list(every_way(whole)), None
    shown = [*no_reuse_ways(whole), *told(ways)]
    try:
        cut = list(window_ways(estimate, whole, halo, factor))
        why = None if cut else "windows: with their halo none is smaller than the input"
    except UnsupportedError as e:
        cut, why = [], str(e)
    return Reach(factor=factor, ways=(*shown, *cut), smallest=smallest([*ways, *cut], factor), why=why)


def checked_halo(value: object) -> tuple[int, ...] | None:
    """A halo as a tuple; UsageError for what is none."""
    given = (value,) if isinstance(value, int) and not isinstance(value, bool) else value
    if given is None:
        return None
    if isinstance(given, list | tuple) and given and all(isinstance(h, int) and not isinstance(h, bool) and h >= 0 for h in given):
        return tuple(given)
    raise UsageError(f"halo is a number of at least 0, or one a dim, got {value!r:.60}")
