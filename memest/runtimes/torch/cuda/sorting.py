"""Sorting on CUDA. Rows of up to 4,096 elements are sorted where they lie; longer ones by CUB's radix sort, a row after the other, all at
once (values first, then rows) or in segments, by how many and how long they are. The largest of long rows are searched by several blocks.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

from memest.libraries.cub import scanning_by_key_bytes
from memest.libraries.cub_sorting import is_counted, most_bytes_of_sorting, segments_bytes, sorting_bytes
from memest.machines.cpu import Cpu
from memest.machines.gpu import Device, Gpu
from memest.network.dtypes import ITEMSIZE
from memest.network.tensor import Shape, Spec, is_non_overlapping_and_dense
from memest.ops.aten.copies import contiguous
from memest.ops.aten.views import wrapped
from memest.ops.families import sorting
from memest.ops.operator import Operator
from memest.ops.searched import sealed
from memest.ops.tape import Tape, Tensor
from memest.sizes.choices import each

SMALL_SORT = 4096
MOST_AT_ONCE = 2**31 - 1
ALONE, FEW_SEGMENTS = 1_000_000, 128
PLACE_BYTES, PAIR_BYTES = 8, 8
SHARED = ((20, 20_000), (40, 10_000), (80, 8_000), (199, 5_000), (799, 3_000), (4_000, 800), (None, 400))
"""Up to so many rows of at least so many elements are each searched by several blocks."""
THREADS, BLOCKS_PER_MULTIPROCESSOR = 256, 6
FEWEST_ITEMS, MOST_ITEMS = 4, 64
SEARCHED_DIGITS = 256
BYTES_AN_ELEMENT = 80


def storage(k: Tape, count: Any, bits: int, key: int, value: int) -> None:
    """CUB's storage for a sort comes and goes."""
    asked = partial(sorting_bytes, k.target.device, bits=bits, key=key, value=value)
    most = each(asked, count)
    least = each(partial(asked, crowded=False), count) if is_counted(k.target.device, key) else most
    k.free(k.scratch(most, spread=None if least == most else (least, most)))


def _sort(k: Tape, input: Tensor, *, dim: int, descending: bool, stable: bool | None) -> tuple[Tensor, Tensor]:
    at = wrapped(dim, input.ndim)
    k.note(sizes=input.shape)
    values, indices = sorting.places_like(k, input)
    if input.ndim and input.numel:
        sealed(k, "sort", _sorted, _most, (input, values), dim=at)
    k.save(indices=indices)
    return values, indices


def _sorted(k: Tape, input: Tensor, values: Tensor, *, dim: int) -> list[Tensor]:
    """``sort_cuda_kernel``: small rows begin as a copy of the input and of a range."""
    if input.shape[dim] <= SMALL_SORT:
        k.free(k.empty((input.shape[dim],), "int64"))
    else:
        _sort_rows(k, input, values.strides, dim)
    return []


def _sort_rows(k: Tape, input: Tensor, strides: Shape, dim: int) -> None:
    """Rows have to lie dense, as the input does or as a copy of it; results with other ``strides`` are copied from such."""
    made: list[Tensor] = []
    rows = input.strides
    if not (is_non_overlapping_and_dense(input.shape, rows) and rows[dim] == 1):
        rows = _strides_with_last(input, dim)
        made.append(k.empty(input.shape, input.dtype, rows))
    if strides != rows:
        made += [k.empty(input.shape, dtype, rows) for dtype in (input.dtype, "int64")]
    size, left = input.shape[dim], input.numel
    at_once = MOST_AT_ONCE // size * size
    while left > 0:
        part = left if left < at_once else at_once
        _sort_segments(k, part // size, size, input.itemsize)
        left = left - part
    k.free(*reversed(made))


def _strides_with_last(t: Tensor, dim: int) -> Shape:
    """``infer_dense_strides_dim_last``: dense strides in the order of the dims, but ``dim`` is the innermost."""
    outer = sorted((d for d in range(t.ndim) if d != dim), key=lambda d: -t.strides[d])
    strides, step = [0] * t.ndim, 1
    for d in reversed([*outer, dim]):
        strides[d] = step
        step = step * t.shape[d]
    return tuple(strides)


def _sort_segments(k: Tape, segments: int, size: int, key: int) -> None:
    """``launch_stable_sort_kernel``."""
    total = segments * size
    if segments == 1 or size >= ALONE:
        places = k.scratch(size * PLACE_BYTES)
        begun = k.mark()
        storage(k, size, 8 * key, key, PLACE_BYTES)
        k.again(begun, segments - 1)
        k.free(places)
    elif segments < FEW_SEGMENTS:  # one digit tells them apart
        pairs = [k.scratch(total * PAIR_BYTES), k.scratch(total * PAIR_BYTES)]
        values = k.scratch(total * key)
        storage(k, total, 8 * key, key, PAIR_BYTES)
        k.free(values)
        storage(k, total, 1, PAIR_BYTES, 0)
        k.free(*reversed(pairs))
    else:
        places = k.scratch(total * PLACE_BYTES)
        k.free(k.scratch(each(partial(segments_bytes, key=key, value=PLACE_BYTES), total)), places)


def _most(machine: Cpu | Gpu, input: Spec, values: Spec, *, dim: int) -> tuple[Any, ...]:
    return (_most_bytes(machine, prod(input.shape)),)


def _most_bytes(machine: Cpu | Gpu, numel: Any) -> Any:
    """No fewer than sorting so many elements takes: copies of the input and of results, pairs twice, storage."""
    assert isinstance(machine, Gpu) and machine.device is not None
    return BYTES_AN_ELEMENT * numel + most_bytes_of_sorting(numel) + sorting_bytes(machine.device, 2**16, 16, 2)


def _topk(tape: Tape, input: Tensor, *, k: int, dim: int, largest: bool, sorted: bool) -> tuple[Tensor, Tensor]:
    """The kernel reads a contiguous tensor; what it found is sorted in place, or into new tensors where that is much."""
    values, indices = sorting.largest_places(tape, input, k, dim)
    if k and input.numel:
        sealed(tape, "topk", _largest, _most_of_largest, (input,), number=k, dim=wrapped(dim, input.ndim), ordered=sorted)
    tape.save(indices=indices)
    return values, indices


def _largest(k: Tape, input: Tensor, *, number: int, dim: int, ordered: bool) -> list[Tensor]:
    size = input.shape[dim] if input.ndim else 1
    rows = input.numel // size
    dense = contiguous(k, input)
    if size >= next(least for most, least in SHARED if most is None or rows <= most):
        _search_by_blocks(k, rows, size, input.itemsize)
    k.free(None if dense is input else dense)
    if ordered and number > SMALL_SORT:
        shape = (*input.shape[:dim], number, *input.shape[dim + 1 :])
        places, values = k.empty(shape, "int64"), k.empty(shape, input.dtype)
        _sort_rows(k, values, values.strides, dim)
        k.free(k.empty(shape, "int64"), values, places)
    return []


def _search_by_blocks(k: Tape, rows: int, size: int, itemsize: int) -> None:
    """``mbtopk::launch``: a digit after the other, blocks count in histograms of their own; where each block writes are running sums."""
    blocks = each(partial(_blocks, k.target.device), rows, size)
    word = max(4, itemsize)
    parts = (
        rows * itemsize, 2 * 4 * rows, 2 * word * rows, 2 * SEARCHED_DIGITS * blocks, 4 * SEARCHED_DIGITS * rows, 4 * blocks, 4 * blocks
    )  # fmt: skip
    held = [k.scratch(n) for n in parts]
    for _ in ("below", "equal"):
        k.free(k.scratch(each(partial(scanning_by_key_bytes, k.target.device, size=4), blocks)))
    k.free(*reversed(held))


def _blocks(device: Device, rows: int, size: int) -> int:
    """``get_items_per_thread``: as many as keep the card busy."""
    items = -(-size * rows // (device.multiprocessors * BLOCKS_PER_MULTIPROCESSOR * THREADS))
    return rows * -(-size // (max(FEWEST_ITEMS, min(items, MOST_ITEMS)) * THREADS))


def _most_of_largest(machine: Cpu | Gpu, input: Spec, *, number: Any, dim: int, ordered: bool) -> tuple[Any, ...]:
    """A copy of the input and, where rows are shared, at most a block for 1,024 elements and one more a row, which has 400 at least."""
    numel = prod(input.shape)
    size = input.shape[dim] if input.shape else 1
    found = _most_bytes(machine, numel // size * number)
    return (numel * ITEMSIZE[input.dtype] + 2**16 + 8 * numel, found)


ROWS: tuple[Operator, ...] = tuple(
    replace(row, forward=forward, source=f"{row.source}; aten/src/ATen/native/cuda/{source}")
    for row in sorting.ROWS
    for name, forward, source in (
        ("sort", _sort, "Sort.cpp (sort_cuda_kernel), SortStable.cu"),
        ("topk", _topk, "TensorTopK.cpp, TensorTopK.cu (should_use_multiblock, mbtopk::launch), Sort.cpp"),
    )
    if row.name == name
)
SAME: tuple[str, ...] = ()
