"""CUB's device-wide sort, selection, scan and reduction: the temporary storage they ask for.

Source: cub/device/dispatch/dispatch_radix_sort.cuh (``InvokeSingleTile``, ``InvokeOnesweep``), dispatch_reduce.cuh, the tunings (what a
block takes at once, by architecture; those of selections and scans were read off torch 2.14's CUDA build), util_device.cuh
(``alias_temporaries``), single_pass_scan_operators.cuh (the state of a tile, and of one warp of tiles more).
"""

from __future__ import annotations

from typing import Any

from memest.machines.gpu import Device
from memest.network.dtypes import HALVES, ITEMSIZE

DIGITS, DIGIT_BITS = 256, 8
SINGLE_TILE = 2304  # pairs of 8 bytes
PORTION = (1 << 28) - 1
ALIGNMENT = 256
OFFSET_BYTES, COUNTER_BYTES = 8, 4
WARP = 32
REDUCED_AT_ONCE, REDUCING_THREADS, WAVES = 4096, 256, 5


def sorting_bytes(device: Device, count: int, bits: int) -> int:
    """Bytes of storage for sorting ``count`` pairs of int64 by the lowest ``bits`` of their keys: one where a single block sorts them."""
    if count <= SINGLE_TILE:
        return 1
    tile = 4608 if device.capability >= (9, 0) else 3840 if device.capability >= (8, 0) else 2816
    portion = PORTION // tile * tile
    passes, portions = -(-bits // DIGIT_BITS), -(-count // portion)
    copies = count * 8 if passes > 1 else 0
    parts = (
        portions * passes * DIGITS * OFFSET_BYTES,
        -(-min(count, portion) // tile) * DIGITS * COUNTER_BYTES,
        copies,
        copies,
        portions * passes * COUNTER_BYTES,
    )
    return sum(-(-n // ALIGNMENT) * ALIGNMENT for n in parts) + ALIGNMENT - 1


def most_bytes_of_sorting(count: int) -> int:
    """Bytes of which sorting any number of bits does not take more (int or symbol)."""
    return 18 * count + 64 * 1024


def bits_of(number: int) -> int:
    """How many bits keys up to ``number`` have; at least one."""
    return max(1, int(number).bit_length())


def counting_bytes(device: Device, count: Any) -> tuple[int, int]:
    """Bytes of storage for counting among ``count`` flags (int or symbol), least and most: how many blocks fit a multiprocessor depends on
    the compiled kernel's registers, between one and what its threads allow."""
    if count <= REDUCED_AT_ONCE:
        return 1, 1
    most = device.threads_per_multiprocessor // REDUCING_THREADS
    low, high = (_aligned(COUNTER_BYTES * WAVES * device.multiprocessors * blocks) + ALIGNMENT - 1 for blocks in (1, most))
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


def _states_bytes(count: Any, tile: int, words: tuple[int, ...]) -> Any:
    states = -(-count // tile) + WARP
    return sum(_aligned(states * word) for word in words) + 2 * ALIGNMENT - 1


def _aligned(nbytes: Any) -> Any:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
