"""CUB's radix sorts: the temporary storage they ask for.

Few elements are sorted by one block, in no storage. Keys of four bytes and more, and on Hopper and later all, are sorted in one sweep a
digit: histograms, what each tile looks back at, and a second copy of keys and values where there is more than one digit. Narrow keys on
older cards are counted first, in a histogram for every block that fits the card: how many fit depends on the compiled kernel's registers.

Source: cub/device/dispatch/dispatch_radix_sort.cuh (``InvokeSingleTile``, ``InvokeOnesweep``, ``InvokePasses``), tuning_radix_sort.cuh and
util_arch.cuh (``RegBoundScaling``: what a block takes at once). Offsets have 64 bits, as torch calls it (aten/src/ATen/cuda/cub.cuh).
"""

from __future__ import annotations

from collections.abc import Iterable

from memest.libraries.cub import ALIGNMENT, aligned
from memest.machines.gpu import Device

DIGITS, DIGIT_BITS = 256, 8
PORTION = (1 << 28) - 1
OFFSET_BYTES, COUNTER_BYTES = 8, 4
NARROW = 4  # bytes; keys below are counted first before Hopper
SHARED_BYTES, WARP = 48 * 1024, 32
WAVES, SCANNED_AT_ONCE = 5, 5632
SMALL_KEYS = {1: (384, 18), 2: (512, 23)}  # beside values of 8 bytes, on Hopper and later: threads, items of 4 bytes a thread


def sorting_bytes(device: Device, count: int, bits: int, key: int = 8, value: int = 8, *, crowded: bool = True) -> int:
    """Bytes of storage for sorting ``count`` keys of ``key`` bytes by their lowest ``bits``, each with ``value`` bytes beside it (0: none).
    ``crowded``: as many blocks fit a multiprocessor as its threads allow, else one does; this tells only where :func:`is_counted`."""
    if count <= _scaled(256, 19, max(key, value)):
        return 1
    if is_counted(device, key):
        return _counted(device, count, key, value, crowded)
    tile = _scaled(*_sweep(device, key, value), max(key, value))
    portion = PORTION // tile * tile
    passes, portions = -(-bits // DIGIT_BITS), -(-count // portion)
    parts = (
        portions * passes * DIGITS * OFFSET_BYTES,
        -(-min(count, portion) // tile) * DIGITS * COUNTER_BYTES,
        count * key if passes > 1 else 0,
        count * value if passes > 1 else 0,
        portions * passes * COUNTER_BYTES,
    )
    return _together(parts)


def is_counted(device: Device, key: int) -> bool:
    """Whether keys of so many bytes are counted before they are moved."""
    return key < NARROW and device.capability < (9, 0)


def segments_bytes(count: int, key: int, value: int) -> int:
    """Bytes of storage for sorting many segments apart, ``count`` elements in all."""
    return _together((count * key, count * value))


def most_bytes_of_sorting(count: int) -> int:
    """Bytes of which sorting any number of bits does not take more (int or symbol)."""
    return 18 * count + 64 * 1024


def bits_of(number: int) -> int:
    """How many bits keys up to ``number`` have; at least one."""
    return max(1, int(number).bit_length())


def _sweep(device: Device, key: int, value: int) -> tuple[int, int]:
    """Threads of a block and items of 4 bytes a thread, in one sweep a digit."""
    if device.capability >= (9, 0):
        if key < NARROW:
            return SMALL_KEYS[key]
        if key == NARROW:
            return 384, 29 if value == 8 else 17 if value else 19
        return 384, 24 if value == 8 else 30
    if device.capability >= (8, 0):
        return 384, 17 if key == NARROW and value else 21
    if device.capability >= (7, 0):
        return 256, 46 if key == value == NARROW else 23
    return 256, 29 if device.capability == (6, 0) else 30


def _scaled(threads: int, items: int, size: int) -> int:
    """Elements that a block takes at once: fewer where they are wider, so that they fit registers and shared memory."""
    each = max(1, items * 4 // max(4, size))
    return each * min(threads, -(-(SHARED_BYTES // (size * each)) // WARP) * WARP)


def _counted(device: Device, count: int, key: int, value: int, crowded: bool) -> int:
    """``InvokePasses``: digits of 7 bits (5 of bytes), a histogram a block, in several waves of blocks."""
    digits, threads = (1 << 7, 256) if key > 1 else (1 << 5, 128)
    blocks = device.threads_per_multiprocessor // threads if crowded else 1
    spine = WAVES * device.multiprocessors * blocks * digits + SCANNED_AT_ONCE
    return _together((spine * OFFSET_BYTES, count * key, count * value))


def _together(parts: Iterable[int]) -> int:
    """``alias_temporaries``."""
    return sum(int(aligned(n)) for n in parts) + ALIGNMENT - 1
