"""Reductions on CUDA: how many blocks share an output, and the buffers through which they meet.

A reduction with few outputs and many inputs is cut into blocks that share an output: each writes its partial results into a staging
buffer, a semaphore for each column of blocks tells which one is the last, and that one sums them up. Both buffers come from torch's
allocator and go when the kernel has been launched. Sizes depend on shape, strides and dtype, on how many multiprocessors the card has and
how many threads each of them takes; no occupancy is asked for. An iterator that offsets of 32 bits cannot reach is halved until they can.

Source: aten/src/ATen/native/cuda/Reduce.cuh (``setReduceConfig``, ``gpu_reduce_kernel``, ``AccumulationBuffer``), the kernels of
aten/src/ATen/native/cuda/Reduce*.cu (what each accumulates in), TensorIterator.cpp (``reorder_dimensions``, ``coalesce_dimensions``,
``with_32bit_indexing``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, NamedTuple

from memest.errors import UnsupportedError
from memest.machines.cpu import Cpu
from memest.machines.gpu import Device, Gpu
from memest.network.dtypes import HALVES, ITEMSIZE
from memest.network.tensor import Spec
from memest.ops.aten.iterator import sorted_dims
from memest.ops.searched import sealed
from memest.ops.tape import Tape, Tensor
from memest.sizes.choices import each

MOST_THREADS = 512
WARP = 32
WIDEST_OUTPUT = 4
VECTORIZED_FROM = 128
FEWEST_VALUES, MOST_VALUES = 16, 256  # a thread sums
SEMAPHORE_BYTES = 4
REACHED = 2**31 - 1  # by offsets of 32 bits
MOST_PARTS = 1 << 14  # into which torch splits one for 32-bit indices: 8 TiB of halves on one card, and no card holds that


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """What a reduction is compiled for: bytes of a partial result, inputs that a thread loads at once, and whether parts that are reduced
    one after the other have to meet in a buffer of their own (``apart``), the output being too narrow for a partial result."""

    partial_bytes: int
    vector: int = 4
    apart: bool = False


def _wide(dtype: str) -> int:
    """Bytes of the type that a dtype is accumulated in."""
    return 4 if dtype in HALVES else ITEMSIZE[dtype]


def summing(source: str, out: str) -> Kernel:
    """Sums and norms: half types are accumulated in float32."""
    return Kernel(partial_bytes=_wide(source), apart=source in HALVES and source == out)


def averaging(source: str, out: str) -> Kernel:
    """Means: as sums, but half types are loaded eight at once."""
    return Kernel(partial_bytes=_wide(source), vector=8 if source in HALVES else 4, apart=source in HALVES and source == out)


def multiplying(source: str, out: str) -> Kernel:
    """Products, compiled when they are first used."""
    return Kernel(partial_bytes=_wide(source))


def welford(source: str, out: str) -> Kernel:
    """Variances: mean, second moment, and how many values, as an int32 and as a float."""
    return Kernel(partial_bytes=4 * _wide(source), vector=2, apart=True)


def located(source: str, out: str) -> Kernel:
    """Extrema with their places: a value beside an int64."""
    return Kernel(partial_bytes=16, apart=True)


def unchanged(source: str, out: str) -> Kernel:
    """Extrema of values alone: accumulated in the input's own type."""
    return Kernel(partial_bytes=ITEMSIZE[source])


def judging(source: str, out: str) -> Kernel:
    """Whether any or all are true: accumulated as truths, whatever is read."""
    return Kernel(partial_bytes=1)


class Loop(NamedTuple):
    """One dim of an iterator: how often it goes round, and the bytes it steps in the output and in the input."""

    size: int
    out: int
    source: int


def reduce(k: Tape, source: Tensor, dims: Sequence[int] | None, kernel: Kernel, keepdim: bool, out_bytes: int) -> None:
    """``gpu_reduce_kernel`` over ``dims`` (None or empty: all) into an output that lies row by row, ``out_bytes`` an element: its buffers
    come and go. An input that begins inside its storage is read as one that begins with it."""
    gone = tuple(sorted({d % source.ndim for d in dims})) if dims and source.ndim else tuple(range(source.ndim))
    sealed(k, "reduction", _run, most, (source,), gone=gone, compiled=kernel, keepdim=keepdim, out_bytes=out_bytes)


def _run(k: Tape, source: Tensor, *, gone: tuple[int, ...], compiled: Kernel, keepdim: bool, out_bytes: int) -> list[Tensor]:
    if source.numel:
        loops = _loops(source, gone, keepdim, out_bytes)
        elements = prod(n.size for n in loops)
        if type(elements) is int and elements > MOST_PARTS * REACHED:
            raise UnsupportedError(f"a reduction of {elements:,} elements, which runs in more than {MOST_PARTS:,} parts, is not modelled")
        meeting = None
        if compiled.apart and not _reachable(loops):
            meeting = k.scratch(compiled.partial_bytes * max(1, *(n.size * n.out // out_bytes for n in loops)))
        for part in _parts(loops):
            staging, semaphores = _row_by_row(k.target.device, part, source.itemsize, compiled)
            if type(staging) is not int or staging:
                held = k.scratch(staging)
                k.free(k.scratch(semaphores), held)
        k.free(meeting)
    return []


def _row_by_row(device: Device, loops: Sequence[Loop], itemsize: int, kernel: Kernel) -> tuple[Any, Any]:
    """:func:`buffers` for one problem or for many at once."""

    def of(which: int, *numbers: int) -> int:
        return buffers(device, [Loop(*numbers[i : i + 3]) for i in range(0, len(numbers), 3)], itemsize, kernel)[which]

    numbers = [n for loop in loops for n in loop]
    return each(partial(of, 0), *numbers), each(partial(of, 1), *numbers)


def most(machine: Cpu | Gpu, source: Spec, *, compiled: Kernel, **attributes: Any) -> tuple[Any, ...]:
    """Bytes of which a reduction does not hold more: a block shares an output only where each of its threads still sums 16 values, and its
    staged results are at most 32 times as many as its threads."""
    return (4 * compiled.partial_bytes * prod(source.shape),)


def joined_dims(shape: Sequence[int], out: Sequence[int], source: Sequence[int]) -> list[Loop]:
    """The dims of a reduction's iterator, innermost first, those that are reduced before others; what lies together is one dim. Strides
    of the output are 0 where it is reduced."""
    joined: list[Loop] = []
    for d in sorted_dims(tuple(shape), (tuple(out), tuple(source)), reduction=True):
        dim = Loop(shape[d], out[d], source[d])
        if not joined or not _joins(joined[-1], dim):
            joined.append(dim)
        elif joined[-1].size == 1:
            joined[-1] = dim
        else:
            joined[-1] = joined[-1]._replace(size=joined[-1].size * dim.size)
    return joined


def _joins(inner: Loop, outer: Loop) -> bool:
    """``coalesce_dimensions``: the outer dim goes on where the inner one ends, for both operands."""
    if inner.size == 1 or outer.size == 1:
        return True
    return inner.size * inner.out == outer.out and inner.size * inner.source == outer.source


def _loops(source: Tensor, gone: tuple[int, ...], keepdim: bool, out_bytes: int) -> list[Loop]:
    out, step = [0] * source.ndim, out_bytes
    for d in range(source.ndim - 1, -1, -1):
        if d not in gone:
            out[d], step = step, step * source.shape[d]
        elif keepdim and source.shape[d] == 1:
            out[d] = step
    return joined_dims(source.shape, out, [s * source.itemsize for s in source.strides])


def _reachable(loops: Sequence[Loop]) -> bool:
    """``can_use_32bit_indexing``."""
    furthest = (sum((n.size - 1) * n.out for n in loops), sum((n.size - 1) * n.source for n in loops))
    return prod(n.size for n in loops) <= REACHED and all(1 + offset <= REACHED for offset in furthest)


def _parts(loops: list[Loop]) -> Iterator[list[Loop]]:
    """``with_32bit_indexing``: the dim that reaches furthest is halved, the first half goes first."""
    if _reachable(loops):
        yield loops
        return
    furthest = max(reversed(range(len(loops))), key=lambda d: (loops[d].size - 1) * max(loops[d].out, loops[d].source))
    half = loops[furthest].size // 2
    for size in (half, loops[furthest].size - half):
        yield from _parts([n._replace(size=size) if d == furthest else n for d, n in enumerate(loops)])


def buffers(device: Device, loops: Sequence[Loop], itemsize: int, kernel: Kernel) -> tuple[int, int]:
    """Bytes of the staging buffer and of the semaphores (0, 0: each output has one block), as ``setReduceConfig`` chooses."""
    reduced = sum(n.out == 0 for n in loops)
    outputs = prod(n.size for n in loops if n.out)
    inputs = prod(n.size for n in loops) // outputs
    along = reduced == len(loops) or (reduced > 0 and loops[0].source < loops[reduced].source)
    width, height = (inputs, outputs) if along else (outputs, inputs)
    fastest = (loops[0] if along else loops[reduced]).source if loops else itemsize
    widened = 1
    if fastest == itemsize and along and width >= VECTORIZED_FROM and reduced == 1:
        width //= kernel.vector
    elif fastest == itemsize and not along:
        widened = _output_vector(loops, reduced, itemsize)
        width //= widened
    block_width, block_height = _block(width, height, MOST_THREADS // widened)
    shared = block_width if along else 1
    own = 1 if along else block_width
    if _div_up(inputs, shared) < min(block_height * FEWEST_VALUES, MOST_VALUES):
        return 0, 0
    values = _div_up(inputs, shared * block_height)
    columns = _div_up(outputs // widened, own)
    wanted = device.multiprocessors * (device.threads_per_multiprocessor // (block_width * block_height))
    if values < MOST_VALUES or columns > wanted:
        return 0, 0
    blocks = min(max(_div_up(wanted, columns), _div_up(values, MOST_VALUES)), _div_up(values, FEWEST_VALUES))
    if blocks <= 1:
        return 0, 0
    staged = kernel.partial_bytes * outputs * blocks * (1 if along else block_width * widened)
    return staged, SEMAPHORE_BYTES * columns


def _output_vector(loops: Sequence[Loop], first_kept: int, itemsize: int) -> int:
    """``get_output_vec_size``: neighbouring outputs a thread sums at once; all that is stepped over has to be a multiple of it."""
    vector = WIDEST_OUTPUT
    for d, n in enumerate(loops):
        while (n.size if d == first_kept else n.source // itemsize) % vector:
            vector //= 2
    return vector


def _block(width: int, height: int, threads: int) -> tuple[int, int]:
    """``set_block_dimension``: a warp's width at first, what height leaves over at last."""
    width, height = (_last_pow2(n) if n < threads else threads for n in (width, height))
    tall = min(height, threads // min(width, WARP))
    return min(width, threads // tall), tall


def _last_pow2(n: int) -> int:
    return 1 << max(0, n.bit_length() - 1)


def _div_up(a: int, b: int) -> int:
    return -(-a // b)
