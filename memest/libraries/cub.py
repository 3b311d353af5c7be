"""CUB's radix sort: the temporary storage it asks for.

Source: cub/device/dispatch/dispatch_radix_sort.cuh (``InvokeSingleTile``, ``InvokeOnesweep``), tuning_radix_sort.cuh (what a block sorts
at once, by architecture), util_device.cuh (``alias_temporaries``).
"""

from __future__ import annotations

from memest.machines.gpu import Device

DIGITS, DIGIT_BITS = 256, 8
SINGLE_TILE = 2304  # pairs of 8 bytes
PORTION = (1 << 28) - 1
ALIGNMENT = 256
OFFSET_BYTES, COUNTER_BYTES = 8, 4


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
