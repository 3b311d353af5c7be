"""Where a mask is true, and running sums: CUB's algorithms as torch calls them, inputs of 2**30 elements and more in pieces.

Sources: aten/src/ATen/native/cuda/Nonzero.cu, ScanUtils.cuh; aten/src/ATen/cuda/cub.cuh, cub.cu.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from memest.libraries.cub import counting_bytes, scanning_bytes, selecting_bytes
from memest.ops.aten.copies import contiguous
from memest.ops.tape import Tape, Tensor

PIECE = 2**30
COUNT_BYTES = 4
UNCUT = 2**31 - 1


def nonzero(k: Tape, mask: Tensor, count: int) -> Tensor:
    """``nonzero`` on CUDA, of which ``count`` are: they are counted, then written a dim after the other; (count, dims), int64."""
    dense = contiguous(k, mask)
    pieces = [mask.numel] if mask.numel < UNCUT else list(_pieces(mask.numel))
    counted = k.scratch(COUNT_BYTES * len(pieces))
    for n in pieces:
        low, high = counting_bytes(k.target.device, n)
        k.free(k.scratch(high, spread=None if low == high else (low, high)))
    out = k.empty((mask.ndim, count), "int64")
    for n in pieces:
        k.free(k.scratch(selecting_bytes(k.target.device, n)))
    k.free(counted, None if dense is mask else dense)
    return k.alias(out, (count, mask.ndim), (1, count))


def scanned(k: Tape, numel: int, dtype: str) -> None:
    """A running sum of all elements in ``dtype`` on CUDA; every piece but the first begins with an element of its own."""
    for place, n in enumerate(_pieces(numel)):
        begun = k.empty((), dtype) if place else None
        k.free(k.scratch(scanning_bytes(n, dtype)), begun)


def _pieces(numel: Any) -> Iterator[Any]:
    while numel > PIECE:
        yield PIECE
        numel = numel - PIECE
    yield numel
