"""The brgemm matrix multiplication (``brg_matmul``), as far as convolutions reach it: its kernel's name and scratchpad.

A convolution whose kernel covers its whole input becomes an inner product, and that becomes a product of three dense matrices with
plain layouts: C (m x n) = A (m x k) B (k x n), where A or B may be stored transposed. The work is split in blocks so that threads are
evenly loaded; a transposed matrix is copied block by block, and long sums may be split over threads.

Sources: oneDNN v3.12 src/cpu/x64/matmul/brgemm_matmul_utils.cpp (``init_brgemm_matmul_conf``, ``init_scratchpad``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from memest.libraries.cpu import Cpu
from memest.libraries.onednn.scratchpad import scratchpad_size
from memest.libraries.onednn.single import quotient, single, total

FLOAT_BYTES = 4
LINE_FLOATS = 16
BATCH_BYTES_PER_THREAD = 16 * 40
N_BLOCK = 64
K_GRANULE = 16
MOST_COPIED_N_CHUNKS = 16
ROUNDING_MARGIN = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """C = A B. ``reduced`` asks for the sums of A over k as well (the gradient of a bias)."""

    m: int
    n: int
    k: int
    transposed_a: bool = False
    transposed_b: bool = False
    reduced: bool = False


@dataclass(frozen=True, slots=True)
class _Blocking:
    m_block: int
    k_block: int
    k_threads: int


def brgemm_matmul(problem: Product, cpu: Cpu) -> tuple[str, int]:
    """The name of the implementation on a processor with AVX-512, and the bytes of its scratchpad.

    A matrix times a vector is left to the AVX2 implementation. ``m`` may be 1 only when A is transposed, ``n`` only when B is.
    """
    if problem.n == 1:
        return "brg_matmul:avx2", _matrix_vector_scratchpad(problem, cpu.threads)
    copy_a = problem.transposed_a and problem.m > 1
    blocking = _blocking(problem, copy_a, cpu.threads)
    n_block = min(N_BLOCK, problem.n)
    copied_a = blocking.m_block * _copied_row(blocking.k_block) * FLOAT_BYTES if copy_a else 0
    copied_b = N_BLOCK * _round_up(blocking.k_block, K_GRANULE) * FLOAT_BYTES if _copies_b(problem, n_block, cpu.threads) else 0
    partial_c = problem.m * problem.n * FLOAT_BYTES if blocking.k_threads > 1 else 0
    partial_sums = (blocking.k_threads - 1) * problem.m * FLOAT_BYTES if problem.reduced else 0
    return "brg_matmul:avx512_core", scratchpad_size(
        cpu.threads * BATCH_BYTES_PER_THREAD,
        cpu.threads * copied_a,
        cpu.threads * copied_b,
        cpu.threads * partial_c,
        partial_sums,
    )


def _copies_b(problem: Product, n_block: int, threads: int) -> bool:
    if problem.transposed_b:
        return True
    few_rows = problem.m <= 40 and not problem.transposed_a and threads > _div_up(problem.n, n_block)
    return problem.n > 256 and _is_power_of_two(problem.n) and not few_rows


def _matrix_vector_scratchpad(problem: Product, threads: int) -> int:
    copied_a = 0
    if problem.m >= 1024 and problem.k >= 2048 and _is_power_of_two(problem.k):
        k_block = min(problem.k, 1024)
        smallest = _clamp(16, 256, int(quotient(problem.m, threads))) if threads > 1 else 32
        m_block = _best_m_block(problem, 1, range(256, smallest - 1, -1), range(1, 0, -1), k_block, 1, threads, False)[1]
        copied_a = m_block * _copied_row(k_block) * FLOAT_BYTES
    return scratchpad_size(threads * BATCH_BYTES_PER_THREAD, threads * copied_a)


def _blocking(problem: Product, copy_a: bool, threads: int) -> _Blocking:
    m, n, k = problem.m, problem.n, problem.k
    n_block = min(N_BLOCK, n)
    n_chunks = _div_up(n, n_block)
    long_m_block = n <= 14528 and ((m <= 768 and k <= 128) or k * m <= 49152)
    max_m, min_m = min(512 if long_m_block else 256, m), min(32, m)
    k_block = min(k, 1024 if k > 1024 and not problem.transposed_a else 512)
    parallel_blocks = n_chunks * _div_up(m, max_m)
    most_k_threads, fewest_k_threads = 1, 1
    if threads > n_chunks:
        min_m = min(m, 16)
        if problem.transposed_a and k >= 2048:
            most_k_threads = min(threads, 4)
        if k >= 20000 and m <= 512 and n <= 512:
            most_k_threads = fewest_k_threads = _threads_over_k(parallel_blocks, _div_up(k, k_block), threads)
    if n >= 20000 and parallel_blocks > 10 * threads and m % max_m == 0 and most_k_threads == 1:
        min_m = max_m
    m_blocks = range(max_m, min_m - 1, -1)
    chunk_sizes = range(min(MOST_COPIED_N_CHUNKS if copy_a else 1, n_chunks), 0, -1)
    smallest_m, whole_chunks = range(min_m, min_m - 1, -1), range(1, 0, -1)
    best = (1.0, 1, 1)
    for k_threads in range(most_k_threads, fewest_k_threads - 1, -1):
        even = most_k_threads == 1
        found = _best_m_block(problem, n_block, m_blocks, chunk_sizes, k_block, k_threads, threads, even, best[0])
        if found[0] == inf:
            found = _best_m_block(problem, n_block, smallest_m, whole_chunks, k_block, k_threads, threads, False, best[0])
        if found[0] < best[0]:
            best = (*found, k_threads)
    return _Blocking(best[1], k_block, best[2])


def _threads_over_k(parallel_blocks: int, k_blocks: int, threads: int) -> int:
    """Threads given to each sum when sums are long and the result is small."""
    others = max(divisor for divisor in range(1, threads + 1) if parallel_blocks % divisor == 0)
    while threads // others <= threads % others:
        others //= _least_prime_factor(others)
    k_threads = threads // others
    while k_blocks <= 5 * k_threads and k_threads > 1:
        k_threads //= _least_prime_factor(k_threads)
    return k_threads


def _best_m_block(
    problem: Product,
    n_block: int,
    m_blocks: range,
    chunk_sizes: range,
    k_block: int,
    k_threads: int,
    threads: int,
    even_only: bool,
    limit: float = 1.0,
) -> tuple[float, int]:
    """The imbalance and size of the first most balanced block of rows; infinite imbalance when none stays below ``limit``.

    ``even_only`` refuses splits giving threads few blocks and not the same number.
    """
    others = threads // k_threads
    over_k = _distance_to_even(problem.k, k_threads * k_block)
    idle = quotient(threads - others * k_threads, threads) if others * k_threads != threads else 0.0
    best, best_block = limit, 0
    rows = [(block, _div_up(problem.m, block), _wasted_rows(problem.m, block)) for block in m_blocks]
    for columns, wasted_columns in _column_chunks(problem.n, n_block, chunk_sizes):
        for block, row_blocks, wasted in rows:
            work = row_blocks * columns
            if even_only and work < 3 * others and work % others:
                continue
            uneven = _distance_to_even(work, others)
            if (uneven + wasted + wasted_columns + idle + over_k) / 5 > best + ROUNDING_MARGIN:
                continue
            imbalance = single(total(uneven, wasted, wasted_columns, idle, over_k) / 5)
            if imbalance < best:
                best, best_block = imbalance, block
    return (best, best_block) if best_block else (inf, 0)


def _column_chunks(n: int, n_block: int, chunk_sizes: range) -> Iterator[tuple[int, float]]:
    blocks = _div_up(n, n_block)
    for size in chunk_sizes:
        chunks = _div_up(blocks, size)
        yield chunks, quotient(chunks * size - blocks, blocks)


def _wasted_rows(m: int, block: int) -> float:
    return quotient(_round_up(m, block) % m, m)


def _distance_to_even(work: int, parts: int) -> float:
    rest = work % parts
    return quotient(parts - rest if work < parts else min(parts - rest, rest), parts)


def _copied_row(k_block: int) -> int:
    """Floats between copied rows of A: whole cache lines, and not a large power of two."""
    row = _round_up(k_block, LINE_FLOATS)
    return row + LINE_FLOATS if row >= 512 and _is_power_of_two(row) else row


def _least_prime_factor(value: int) -> int:
    return next((factor for factor in range(2, value) if value % factor == 0), value)


def _is_power_of_two(value: int) -> bool:
    return value & (value - 1) == 0


def _clamp(low: int, high: int, value: int) -> int:
    return max(low, min(high, value))


def _div_up(value: int, divisor: int) -> int:
    return -(-value // divisor)


def _round_up(value: int, divisor: int) -> int:
    return -(-value // divisor) * divisor
