"""CUB's device-wide selection, scan and reduction: the temporary storage they ask for (:mod:`memest.libraries.cub_sorting` has sorts).

Source: cub/device/dispatch/dispatch_reduce.cuh, dispatch_scan_by_key.cuh, dispatch_unique_by_key.cuh, the tunings (what a block takes at
once, by architecture; those of selections and scans were read off torch 2.14's CUDA build), util_device.cuh (``alias_temporaries``),
single_pass_scan_operators.cuh (the state of a tile, and of one warp of tiles more).
"""

from __future__ import annotations

from typing import Any

from memest.machines.gpu import Device
from memest.network.dtypes import HALVES, ITEMSIZE

ALIGNMENT = 256
COUNTER_BYTES, STATE_BYTES = 4, 16
WARP = 32
REDUCED_AT_ONCE, REDUCING_THREADS, WAVES = 4096, 256, 5


def counting_bytes(device: Device, count: Any) -> tuple[int, int]:
    """Bytes of storage for counting among ``count`` flags (int or symbol), least and most: how many blocks fit a multiprocessor depends on
    the compiled kernel's registers, between one and what its threads allow."""
    if count <= REDUCED_AT_ONCE:
        return 1, 1
    most = device.threads_per_multiprocessor // REDUCING_THREADS
    low, high = (aligned(COUNTER_BYTES * WAVES * device.multiprocessors * blocks) + ALIGNMENT - 1 for blocks in (1, most))
    return low, high


def selecting_bytes(device: Device, count: Any) -> Any:
    """Bytes of storage for selecting the places of true flags among ``count`` (int or symbol)."""
    tile = 4224 if device.capability >= (9, 0) else 2304 if device.capability >= (8, 0) else 640
    return _states_bytes(count, tile, (8,))


def scanning_bytes(count: Any, dtype: str) -> Any:
    """Bytes of storage for the running sum of ``count`` elements (int or symbol). Half types keep a tile's status, its sum and its running
    sum apart; others in one word."""
    if dtype in HALVES:
        return _states_bytes(count, 3840, (4, 2, 2))
    size = ITEMSIZE[dtype]
    return _states_bytes(count, 896 if size == 8 else 1920, (2 * size,))


def unique_bytes(device: Device, count: Any, key: int) -> Any:
    """Bytes of storage for finding where runs of equal keys begin among ``count`` (int or symbol) of ``key`` bytes (4 or 8)."""
    tile = _tile(device, key, hopper=(7168, 4928), ampere=(2816, 1344), else_=(704, 320))
    return _states_bytes(count, tile, (STATE_BYTES,))


def scanning_by_key_bytes(device: Device, count: Any, size: int) -> Any:
    """Bytes of storage for running sums within runs of equal keys; keys and sums have ``size`` bytes (4 or 8). A tile's state stands beside
    the key before it."""
    blackwell = {4: 4480, 8: 5888}.get(size) if device.capability >= (10, 0) else None
    tile = blackwell or _tile(device, size, hopper=(4032, 2464), ampere=(3840, 2240), else_=(2304, 2304))
    tiles = -(-count // tile)
    return aligned((tiles + WARP) * STATE_BYTES) + aligned((tiles + 1) * size) + ALIGNMENT - 1


def _tile(device: Device, size: int, *, hopper: tuple[int, int], ampere: tuple[int, int], else_: tuple[int, int]) -> int:
    """What a block takes at once, of 4 and of 8 bytes. Tunings are of the datacenter's chips: those of 8.6 and 8.9 are as of 7.5."""
    tuned = hopper if device.capability >= (9, 0) else ampere if device.capability == (8, 0) else else_
    return tuned[size == 8]


def _states_bytes(count: Any, tile: int, words: tuple[int, ...]) -> Any:
    states = -(-count // tile) + WARP
    return sum(aligned(states * word) for word in words) + 2 * ALIGNMENT - 1


def aligned(nbytes: Any) -> Any:
    """Bytes up to the next boundary (int or symbol)."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
