"""Inference over a volume in windows: each is cut out, goes through the network, and its inner part is written into the result.

The volume and the result stay whole in memory. All windows have one size (that of the volume, where it is smaller), so the last of a
dim begins where it just fits and overlaps the one before by more. The halo of a window is dropped except at the volume's border. The
result is allocated when the first window has been predicted. The loop is that of ``validation/tiling.py``.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TypeVar

from memest.errors import UsageError
from memest.network.graph import Input
from memest.network.tensor import Shape, nbytes, spec
from memest.runtimes.torch.ledger import Value
from memest.runtimes.torch.step.batches import Batch, sizes_at
from memest.runtimes.torch.step.forward import forward
from memest.runtimes.torch.step.recipe import Tiles
from memest.runtimes.torch.step.run import Run

LEVER = "tiles"
Span = tuple[int, int]
N = TypeVar("N", int, float)


def per_dim(values: tuple[N, ...], dims: int, what: str, lever: str = LEVER) -> tuple[N, ...]:
    """One value a spatial dim; UsageError when the counts do not fit."""
    if len(values) not in (1, dims):
        raise UsageError(f"{lever}: {what} has {len(values)} sizes, the input has {dims} spatial dims")
    return values * dims if len(values) == 1 else values


def the_input(run: Run, lever: str = LEVER) -> Input:
    """What windows are cut from; UsageError where there is more than one input, or where the network gives it back."""
    if len(run.graph.inputs) != 1:
        raise UsageError(f"{lever}: {run.graph.name} has {len(run.graph.inputs)} inputs; windows are cut from one")
    if run.graph.inputs[0].name in run.graph.outputs:
        raise UsageError(f"{lever}: {run.graph.name} gives its input back; there is nothing to predict")
    return run.graph.inputs[0]


def starts(extent: int, window: int, halo: int) -> list[int]:
    """Where the windows of one dim begin; UsageError when halos leave nothing of a window."""
    if window < extent and window <= 2 * halo:
        raise UsageError(f"tiles: a window of {window} has nothing left without its halo of {halo} on both sides; use more than {2 * halo}")
    found: list[int] = []
    at = 0
    while at + window < extent:
        found.append(at)
        at = at + window - 2 * halo
    return [*found, extent - window]


def spans(extent: int, window: int, halo: int) -> list[tuple[Span, Span]]:
    """For each window of one dim: (first, end) of what it writes in the result, and of the same part inside the window."""
    found = []
    for start in starts(extent, window, halo):
        first = start if start == 0 else start + halo
        end = start + window if start + window == extent else start + window - halo
        found.append(((first, end), (first - start, end - start)))
    return found


def play_tiles(run: Run, tiles: Tiles) -> None:
    """One call over all windows; its result stays."""
    ledger = run.ledger
    given = the_input(run)
    volume = run.env[given.name]
    extents = volume.shape[2:]
    sizes, halos = per_dim(tiles.size, len(extents), "size"), per_dim(tiles.halo, len(extents), "halo")
    window = tuple(size if size < extent else extent for size, extent in zip(sizes, extents, strict=True))
    count = prod(len(starts(e, w, h)) for e, w, h in zip(extents, window, halos, strict=True))
    shape = (*volume.shape[:2], *window)
    bound = sizes_at(run, {given.name: shape}, LEVER)
    begin = end = 0
    for n in range(count):
        if n > 1:  # windows after the second leave the events of the second
            ledger.again(end - begin)
            continue
        begin = len(ledger.events)
        _play_window(
            run, given.name, Value(spec(shape, given.dtype, given.layout), volume.storage), bound, result=extents if n == 0 else None
        )
        end = len(ledger.events)


def _play_window(run: Run, name: str, view: Value, sizes: dict[str, int], result: Shape | None) -> None:
    """Cut, predict, write; ``result``: the spatial sizes of the result that the first window makes."""
    ledger = run.ledger
    ledger.layer, ledger.op = LEVER, "clone"
    crop = ledger.hold(Value(view.spec, ledger.allocate(nbytes(view.shape, view.spec.dtype), "temporary", "the window that is predicted")))
    outputs = forward(run, Batch({name: crop}, sizes))
    first = run.graph.outputs[0]
    for other in dict.fromkeys(run.graph.outputs[1:]):
        if other != first and other in run.env:
            ledger.let_go(run.env.pop(other))
    ledger.let_go(crop)
    prediction = outputs[0]
    if prediction.shape[2:] != view.shape[2:]:
        raise UsageError(
            f"tiles: a window of {list(view.shape[2:])} gives {list(prediction.shape[2:])}; windows are joined where the sizes are the same"
        )
    if result is not None:
        ledger.layer, ledger.op = LEVER, "new_empty"
        dtype = prediction.spec.dtype
        ledger.allocate(nbytes((*prediction.shape[:2], *result), dtype), "temporary", "the result, joined from windows").refs = 1
    ledger.let_go(run.env.pop(first))


def windows(extents: tuple[int, ...], window: tuple[int, ...], halo: tuple[int, ...]) -> list[tuple[tuple[Span, Span], ...]]:
    """All windows of a volume in order, last dim fastest."""
    return list(product(*(spans(e, w, h) for e, w, h in zip(extents, window, halo, strict=True))))
