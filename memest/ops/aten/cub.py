"""CUB's device-wide algorithms: the scratch that they ask torch's allocator for.

Inputs of 2**30 elements and more go in pieces. A tile state is kept for each tile and for one warp of tiles more; tiles are as large as
CUB's tuning for the architecture makes them. How many blocks of a reduction fit a multiprocessor depends on the compiled kernel's
registers: between one and what its threads allow.

Sources: aten/src/ATen/cuda/cub.cuh, cub.cu; native/cuda/Nonzero.cu; CUB's agent_scan.cuh, single_pass_scan_operators.cuh,
dispatch_reduce.cuh, tuning_select_if.cuh (their sizes held against torch 2.14's CUDA build).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from memest.machines.gpu import Device
from memest.network.dtypes import HALVES, ITEMSIZE
from memest.ops.aten.copies import contiguous
from memest.ops.tape import Tape, Tensor

PIECE = 2**30
ALIGNED, LEAST = 256, 255
WARP = 32
REDUCING_THREADS, REDUCED_AT_ONCE, WAVES = 256, 4096, 5


def nonzero(k: Tape, mask: Tensor, count: int) -> Tensor:
    """``nonzero`` of which ``count`` are: they are counted, then written a dim after the other; (count, dims), int64."""
    dense = contiguous(k, mask)
    large = mask.numel >= 2**31 - 1
    pieces = list(_pieces(mask.numel)) if large else [mask.numel]
    counted = k.scratch(4 * len(pieces))
    for n in pieces:
        _counted(k, n)
    out = k.empty((mask.ndim, count), "int64")
    for n in pieces:
        k.free(k.scratch(_selecting(k.target.device, n)))
    k.free(counted, None if dense is mask else dense)
    return k.alias(out, (count, mask.ndim), (1, count))


def scanned(k: Tape, numel: int, dtype: str) -> None:
    """A running sum of all elements in ``dtype``; every piece but the first begins with an element of its own."""
    for place, n in enumerate(_pieces(numel)):
        begun = k.empty((), dtype) if place else None
        k.free(k.scratch(_scanning(n, dtype)), begun)


def _pieces(numel: Any) -> Iterator[Any]:
    while numel > PIECE:
        yield PIECE
        numel = numel - PIECE
    yield numel


def _counted(k: Tape, n: Any) -> None:
    if n <= REDUCED_AT_ONCE:
        k.free(k.scratch(1))
        return
    most = k.target.device.threads_per_multiprocessor // REDUCING_THREADS
    low, high = (_aligned(4 * WAVES * k.target.device.multiprocessors * blocks) + LEAST for blocks in (1, most))
    k.free(k.scratch(high, spread=(low, high)))


def _selecting(device: Device, n: Any) -> Any:
    tile = 4224 if device.capability >= (9, 0) else 2304 if device.capability >= (8, 0) else 640
    return _states(n, tile, (8,))


def _scanning(n: Any, dtype: str) -> Any:
    """Half types keep a tile's status, its sum and its running sum apart; others in one word."""
    if dtype in HALVES:
        return _states(n, 3840, (4, 2, 2))
    size = ITEMSIZE[dtype]
    return _states(n, 896 if size == 8 else 1920, (2 * size,))


def _states(n: Any, tile: int, words: tuple[int, ...]) -> Any:
    states = -(-n // tile) + WARP
    return sum(_aligned(states * word) for word in words) + ALIGNED + LEAST


def _aligned(nbytes: Any) -> Any:
    return -(-nbytes // ALIGNED) * ALIGNED
