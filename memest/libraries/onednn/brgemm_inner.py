"""The brgemm inner product of oneDNN's releases up to 3.11, as a convolution over its whole input uses it: blocked weights, scratchpad.

Up to release 3.7 it is every such convolution's kernel, in 3.10 and 3.11 that of products with few terms (``is_brgemm_matmul``); AVX-512
alone. Weights lie in blocks of output channels, whose size is chosen so that threads are evenly loaded; long sums may be split over
threads. A gradient of weights finds its split by an estimate of memory traffic, made in single precision.

Sources: oneDNN v3.7.1 and v3.10.2 src/cpu/x64/jit_brgemm_inner_product_utils.cpp (``init_conf``, ``thread_balance``,
``init_scratchpad``), ip_convolution.hpp.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from memest.libraries.onednn.problem import Convolution, Layout, layout
from memest.libraries.onednn.rounding import div_up, round_up
from memest.libraries.onednn.scratchpad import barriers_bytes, scratchpad_size
from memest.libraries.onednn.single import product, quotient, root, single, total
from memest.machines.cpu import Cpu

FLOAT_BYTES = 4
BATCH_ELEMENT_BYTES = 40
PAGE = 4096
VECTOR = 16
WIDE = 4 * VECTOR
OS_BLOCK_OF_SUMS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inner:
    """``os`` rows of ``ic`` inputs and ``oc`` outputs, ``points`` times (more than once where channels are padded)."""

    os: int
    oc: int
    ic: int
    points: int
    bf16: bool
    threads: int
    l2_bytes: int

    @property
    def itemsize(self) -> int:
        """Bytes of an element of the data."""
        return 2 if self.bf16 else FLOAT_BYTES

    @property
    def is_small(self) -> bool:
        """Whether the kernel reads weights once, for rows that fit in its registers (``use_small_os_kernels``)."""
        return not self.bf16 and 6 < self.os <= 80 and self.oc % 32 == 0


def inner_product(problem: Convolution, cpu: Cpu) -> tuple[Layout, int] | None:
    """The weights' layout and the scratchpad; None for what is left to other convolutions."""
    if problem.prop.startswith("forward") and problem.out_channels == 1 and problem.dtype == "float32":
        return None
    whole = prod(problem.kernel)
    squashed = problem.in_channels % VECTOR == 0  # channels that need no padding count together with the points
    p = _Inner(
        os=problem.batch,
        oc=problem.out_channels,
        ic=problem.in_channels * whole if squashed else problem.in_channels,
        points=1 if squashed else whole,
        bf16=problem.dtype == "bfloat16",
        threads=cpu.threads,
        l2_bytes=cpu.l2_bytes,
    )
    if problem.prop == "backward_data":
        scratchpad = scratchpad_size(*_backward_data(p, problem.source_itemsize))
    elif problem.prop == "backward_weights":
        scratchpad = scratchpad_size(*_backward_weights(p, problem.bias)) + barriers_bytes(1)
    else:
        scratchpad = scratchpad_size(*_forward(p))
    block = _adjusted_oc_block(p)
    spatial = "cde"[: problem.spatial_dims]
    tag = f"A{spatial}B8b{block}a2b" if p.bf16 else f"A{spatial}B16b{block}a"
    return layout(tag, problem.weights_dims, problem.itemsize), scratchpad


# blocks ------------------------------------------------------------------------------------------------------------------


def _oc_block(p: _Inner) -> int:
    if p.is_small:
        return 2 * VECTOR
    return WIDE if p.oc >= WIDE else 2 * VECTOR if p.oc >= 2 * VECTOR else VECTOR


def _adjusted_oc_block(p: _Inner) -> int:
    """One vector narrower where threads would be unevenly loaded, in float32."""
    block = _oc_block(p)
    if p.bf16 or p.is_small or block == VECTOR:
        return block
    work = div_up(div_up(p.oc, block), _nb_oc_blocking(p)) * div_up(p.os, _forward_os_block(p, 0))
    return block if _is_balanced(work, 3, p.threads) else block - VECTOR


def _nb_oc_blocking(p: _Inner) -> int:
    return div_up(p.oc, _oc_block(p)) if p.os <= 8 and p.oc <= 256 else 1


def _is_balanced(work: int, least: int, threads: int) -> bool:
    return work % threads == 0 or work // threads > least


def _forward_os_block(p: _Inner, nb_oc: int) -> int:
    """``nb_oc`` is 0 while it is not known."""
    if p.is_small:
        return p.os
    most = 128 if p.ic >= 9216 and p.oc >= 4096 and p.os >= 512 else 64
    blocks = div_up(p.os, most)
    least = most if blocks * div_up(p.oc, WIDE) > p.threads * 50 else 6
    if not p.bf16 and nb_oc != 0 and blocks * nb_oc < product(1.8, p.threads):
        most = _clamp(16, most, div_up(p.os * nb_oc, 2 * p.threads))
    return _os_block(p, least, most)


def _os_block(p: _Inner, least: int, most: int) -> int:
    block = _greatest_divisor(p.os, most)
    return min(p.os, most) if block < least else block


def _batch_bytes(threads: int, batch: int) -> int:
    return threads * div_up(round_up(batch * BATCH_ELEMENT_BYTES, PAGE), BATCH_ELEMENT_BYTES) * BATCH_ELEMENT_BYTES


# passes ------------------------------------------------------------------------------------------------------------------


def _forward(p: _Inner) -> tuple[int, ...]:
    oc_block, nb_ic = _adjusted_oc_block(p), div_up(p.ic, VECTOR)
    nb_oc, nb_oc_blocking = div_up(p.oc, oc_block), _nb_oc_blocking(p)
    if nb_oc == 2 and p.oc % oc_block != 0:
        nb_oc_blocking = nb_oc
    os_block = _forward_os_block(p, nb_oc)
    nb_os, nb_os_blocking = div_up(p.os, os_block), 1
    if p.os > 256 and not p.bf16:
        wanted = min(max(p.oc // p.os // 2, 1), div_up(nb_os * nb_oc, 2 * p.threads))
        nb_os_blocking = _greatest_divisor(nb_os, _clamp(1, min(8, nb_os), wanted))
    if p.threads == 1 and not p.bf16 and os_block * p.ic * p.itemsize > p.l2_bytes and nb_oc_blocking == 1:
        nb_os_blocking = nb_os
    work = div_up(nb_oc, nb_oc_blocking) * div_up(nb_os, nb_os_blocking)
    most_ic = min(64, nb_ic)
    splits = not p.bf16 and p.ic > 1024 and work < 2 * (nb_ic // most_ic) * p.threads and p.threads > 1
    splits = splits and not (p.oc >= 4096 and p.os >= 512)
    ic_threads, batch = 1, 1
    if p.ic > most_ic * VECTOR:
        if splits:
            ic_threads = _threads_over_ic(p, nb_ic, nb_os, nb_oc, work)
            batch = div_up(nb_ic, ic_threads)
            batch //= div_up(batch, 64)
        else:
            batch = _greatest_divisor(nb_ic, most_ic)
            if batch < 16:
                batch = most_ic
    sums = (ic_threads - 1) * p.os * p.oc
    if p.bf16:
        sums = p.threads * os_block * oc_block
    return _batch_bytes(p.threads, batch), sums * FLOAT_BYTES


def _threads_over_ic(p: _Inner, nb_ic: int, nb_os: int, nb_oc: int, work: int) -> int:
    chunks = div_up(nb_ic, 16)
    wanted = (chunks * nb_os * nb_oc + 2 * chunks + nb_oc) // (2 * nb_oc)
    most = min(8 if nb_ic >= 1024 else 4, chunks, p.threads)
    if wanted < most and p.threads // wanted <= 1:
        wanted = most
    threads = _clamp(1, most, wanted)
    before = _steps(p.threads, threads, work, nb_ic)
    while threads > 1:
        fewer = threads - 1
        others = p.threads // fewer
        after = _steps(p.threads, fewer, work, nb_ic)
        better = (before > after and others > 1) or work > 15 * others
        before = after
        if not better:
            break
        threads = fewer
    return threads


def _steps(threads: int, over_sums: int, chunks: int, blocks: int) -> int:
    """Blocks of the busiest thread."""
    return div_up(blocks, over_sums) * div_up(chunks, threads // over_sums)


def _backward_data(p: _Inner, source_itemsize: int) -> tuple[int, ...]:
    oc_block = _adjusted_oc_block(p)
    few = not p.bf16 and p.os <= 128 and max(p.ic, p.oc) <= 2048 and min(p.ic, p.oc) <= 1000
    if not few and p.ic >= (WIDE if p.bf16 else 512):
        ic_block = WIDE
    else:
        ic_block = 2 * VECTOR if p.ic >= 2 * VECTOR else VECTOR
    nb_ic, nb_oc = div_up(p.ic, ic_block), div_up(p.oc, oc_block)
    most = 128 if p.bf16 and p.ic > 256 else 64
    os_block = p.os if p.is_small else _os_block(p, 4 if p.bf16 else 6, min(most, p.os))
    nb_os = div_up(p.os, os_block)
    os_chunks = div_up(nb_os, _greatest_divisor(nb_os, 2))
    batch, oc_threads = _greatest_divisor(nb_oc, WIDE), 1
    if nb_ic * os_chunks < 2 * p.threads or p.oc > (4096 if p.bf16 else 1024):
        oc_threads = _threads_over_oc(p, nb_ic, nb_os, nb_oc, os_chunks)
        if oc_threads > 1:
            batch = div_up(nb_oc, oc_threads)
            batch //= div_up(batch, WIDE)
    is_float = source_itemsize == FLOAT_BYTES
    if oc_threads > 1:
        sums = (oc_threads - is_float) * p.ic * p.points * p.os
    else:
        sums = 0 if is_float else p.threads * ic_block * os_block
    copied = p.threads * batch * ic_block * round_up(oc_block, 2) * p.itemsize
    return _batch_bytes(p.threads, batch), sums * FLOAT_BYTES, copied


def _threads_over_oc(p: _Inner, nb_ic: int, nb_os: int, nb_oc: int, os_chunks: int) -> int:
    chunks = div_up(nb_oc, 2 * VECTOR if p.bf16 else VECTOR)
    wanted = (chunks * nb_os * nb_ic + 2 * chunks + nb_ic) // (2 * nb_ic)
    most = min(p.threads // 2 if p.oc > 32000 else 4, chunks, p.threads)
    if p.bf16:
        return _clamp(1, most, wanted)
    if wanted < most and p.threads // wanted <= 1:
        wanted = most
    threads = _clamp(1, most, wanted)
    if threads > 1 and (os_chunks == 1) != (nb_ic == 1):
        fewer = threads - 1
        blocks = nb_ic if os_chunks == 1 else os_chunks
        if _steps(p.threads, threads, blocks, nb_oc) >= _steps(p.threads, fewer, blocks, nb_oc) and p.threads // fewer > 1:
            return fewer
    return threads


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sums:
    """Blocks of a gradient of weights: of rows, outputs and inputs, how many, and how many a kernel takes at once."""

    oc_block: int
    ic_block: int
    nb_os: int
    nb_oc: int
    nb_ic: int
    copies_b: bool


@dataclass(frozen=True, slots=True)
class _Split:
    os_blocking: int
    oc_blocking: int
    ic_blocking: int
    os_threads: int
    oc_threads: int
    ic_threads: int


def _backward_weights(p: _Inner, with_bias: bool) -> tuple[int, ...]:
    ic_block = WIDE if not p.bf16 and p.ic % WIDE == 0 and p.os <= 128 else VECTOR
    oc_block = _oc_block(p) if p.bf16 else _adjusted_oc_block(p)
    b = _Sums(
        oc_block=oc_block,
        ic_block=ic_block,
        nb_os=div_up(p.os, OS_BLOCK_OF_SUMS),
        nb_oc=div_up(p.oc, oc_block),
        nb_ic=div_up(p.ic, ic_block),
        copies_b=p.bf16 or (p.oc >= 512 and _is_power_of_two(p.oc)) or p.oc >= 4096,
    )
    over_rows = p.os >= 5 * (p.ic + p.oc) and b.nb_os >= 256
    s = _split(p, b)
    threads = s.os_threads * s.oc_threads * s.ic_threads
    os_chunks, oc_chunks = div_up(b.nb_os, s.os_blocking), div_up(b.nb_oc, s.oc_blocking)
    ic_chunks = p.points * div_up(b.nb_ic, s.ic_blocking)
    block = s.ic_blocking * ic_block * s.oc_blocking * oc_block
    sums = 0
    if p.bf16 or s.os_threads > 1:
        if s.os_threads > 1 or over_rows:
            sums = (s.os_threads - (not p.bf16) if s.os_threads > 1 else 1) * ic_chunks * oc_chunks * block
        else:
            sums = threads * block
    rows = div_up(os_chunks, s.os_threads) * s.os_blocking * OS_BLOCK_OF_SUMS
    copied_a = threads * div_up(ic_chunks, s.ic_threads) * rows * ic_block * s.ic_blocking
    copied_b = threads * rows * oc_block * s.oc_blocking if b.copies_b else 0
    biases = (s.os_threads - (not p.bf16)) * p.oc if with_bias else 0
    return (
        _batch_bytes(threads, s.os_blocking),
        sums * FLOAT_BYTES,
        copied_a * p.itemsize,
        copied_b * p.itemsize,
        biases * FLOAT_BYTES,
    )


def _split(p: _Inner, b: _Sums) -> _Split:
    """``thread_balance``: the split of rows, outputs and inputs over threads that moves least memory."""
    os_blocking = _greatest_divisor(b.nb_os, min(64, b.nb_os))
    ic_blocking = 1 if b.nb_ic % 2 else 2
    best = _Split(os_blocking, 1, ic_blocking, 1, 1, 1)
    least = _traffic(p, b, best)
    for split in _splits(p, b, os_blocking, ic_blocking):
        cost = _traffic(p, b, split)
        if cost <= least:
            best, least = split, cost
    return best


def _splits(p: _Inner, b: _Sums, os_blocking: int, ic_blocking: int) -> Iterator[_Split]:
    if b.nb_ic < ic_blocking:
        return
    ic_chunks = p.points * div_up(b.nb_ic, ic_blocking)
    for os_threads in range(1, min(p.threads, div_up(b.nb_os, 8 if p.bf16 else 32)) + 1):
        rows = os_blocking
        if div_up(b.nb_os, rows) < os_threads:
            coefficient = _clamp(1, 4, 2 * p.os // (p.oc + p.ic))
            rows = _greatest_divisor(b.nb_os, div_up(div_up(b.nb_os, coefficient), os_threads))
        others = p.threads // os_threads
        for oc_threads in range(1, min(others, b.nb_oc) + 1):
            yield _Split(rows, 1, ic_blocking, os_threads, oc_threads, min(others // oc_threads, ic_chunks))


def _traffic(p: _Inner, b: _Sums, s: _Split) -> float:
    """The estimate, step by step in single precision as it is written."""
    source, destination, weights = product(p.ic, p.os), product(p.oc, p.os), product(p.ic, p.oc)
    os_chunks, oc_chunks = div_up(b.nb_os, s.os_blocking), div_up(b.nb_oc, s.oc_blocking)
    ic_share = div_up(p.points * div_up(b.nb_ic, s.ic_blocking), s.ic_threads)
    os_share, oc_share = div_up(os_chunks, s.os_threads), div_up(oc_chunks, s.oc_threads)
    scale = quotient(product(0.5, total(destination, source)), weights)
    ratio = quotient(source, destination)
    if p.bf16 and not ((p.oc > 3 * p.ic and os_chunks > 1) or (os_chunks == 1 and p.ic > p.oc)):
        ratio = quotient(destination, source)
    of_source = max(quotient(1.0, ratio), 1.0)
    if p.bf16:
        of_source = product(of_source, 4 * p.itemsize)
        if scale < 1.0:
            of_source = product(of_source, 4.0)
        of_destination = product(2 * p.itemsize, max(ratio, 1.0))
        of_weights = max(1.0, min(1024.0, scale))
    else:
        of_source = product(of_source, p.itemsize, 4 * _clamp(1, 4, div_up(p.ic, 1024)))
        if scale < 2.0:
            of_source = total(of_source, root(quotient(2.0, scale)))
        of_destination = product(p.itemsize, max(ratio, 1.0))
        of_weights = max(total(4.0, -product(p.os // 2048, scale)), 1.0)
    copied_a = copied_b = 0.0
    if p.bf16:
        shared = div_up(os_share * ic_share * s.ic_blocking, s.oc_threads)
        copied_a = product(of_source, shared, s.os_blocking, OS_BLOCK_OF_SUMS, b.ic_block)
        shared = div_up(os_share * oc_share * s.oc_blocking, s.ic_threads)
        copied_b = product(of_destination, shared, s.os_blocking, OS_BLOCK_OF_SUMS, b.oc_block)
    read_a = product(of_source, os_share, ic_share, s.os_blocking, OS_BLOCK_OF_SUMS, s.ic_blocking, b.ic_block)
    read_b = product(of_destination, os_share, oc_share, s.os_blocking, OS_BLOCK_OF_SUMS, s.oc_blocking, b.oc_block)
    written = product(of_weights, FLOAT_BYTES, oc_share, ic_share, s.oc_blocking, b.oc_block, s.ic_blocking, b.ic_block)
    reduced = 0.0
    if s.os_threads > 1:
        blocks = div_up(oc_share * ic_share * s.oc_blocking * s.ic_blocking, s.os_threads)
        bytes_each = p.itemsize + (1 if p.bf16 else div_up(p.os, 1024)) * s.os_threads * FLOAT_BYTES
        reduced = product(of_weights, blocks, b.oc_block, b.ic_block, bytes_each)
    return total(single(copied_a), copied_b, read_a, read_b, written, reduced)


def _greatest_divisor(value: int, most: int) -> int:
    """The greatest divisor of ``value`` that is at most ``most`` (``max_div``)."""
    return next((d for d in range(most, 1, -1) if value % d == 0), min(most, 1))


def _is_power_of_two(value: int) -> bool:
    return value & (value - 1) == 0


def _clamp(low: int, high: int, value: int) -> int:
    return max(low, min(high, value))
