"""The brgemm matrix multiplication (``brg_matmul``), as far as convolutions and torch's low precision products reach it: its
kernel's name and scratchpad.

A convolution whose kernel covers its whole input becomes an inner product, and that becomes a product of three dense matrices with
plain layouts: C (m x n) = A (m x k) B (k x n), where A or B may be stored transposed. The work is split in blocks so that threads are
evenly loaded; a transposed matrix is copied block by block, and long sums may be split over threads. In bfloat16 B is always copied, so
that pairs along k lie together, and results are first summed in float32.

Sources: oneDNN v3.12 src/cpu/x64/matmul/brgemm_matmul_utils.cpp (``init_brgemm_matmul_conf``, ``init_scratchpad``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf

from memest.libraries.onednn.releases import NEWEST, Release
from memest.libraries.onednn.rounding import div_up, round_up
from memest.libraries.onednn.scratchpad import scratchpad_size
from memest.libraries.onednn.single import quotient, single, total
from memest.machines.cpu import Cpu
from memest.network.dtypes import ITEMSIZE
from memest.sizes.choices import each
from memest.sizes.dims import contains_dim
from memest.sizes.remembering import remembered

FLOAT_BYTES = 4
LINE_BYTES = 64
BATCH_BYTES_PER_THREAD = 16 * 40
N_BLOCK = 64
LONG_ROW_BYTES = 8192
MANY_ROWS = 1024
K_GRANULE = 16
MOST_COPIED_N_CHUNKS = 16
ROUNDING_MARGIN = 1e-5
REMEMBERED = 8_192
EXACT = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """C = A B, ``batch`` times. ``reduced`` asks for the sums of A over k as well (the gradient of a bias); ``release`` is the oneDNN
    that is asked."""

    m: int
    n: int
    k: int
    transposed_a: bool = False
    transposed_b: bool = False
    reduced: bool = False
    batch: int = 1
    dtype: str = "float32"
    release: Release = NEWEST

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """What the search depends on beside how matrices lie: m, n, k and the batch."""
        return self.m, self.n, self.k, self.batch

    @property
    def itemsize(self) -> int:
        """Bytes of an element of all three."""
        return ITEMSIZE[self.dtype]

    @property
    def is_bf16(self) -> bool:
        """Whether pairs and sums need room of their own."""
        return self.dtype == "bfloat16"

    @property
    def goes_by_columns(self) -> bool:
        """Whether A is taken for one that lies by columns; a single row of bfloat16 is (``matmul_helper_t::transA``)."""
        return self.transposed_a or (self.is_bf16 and self.m == 1)


@dataclass(frozen=True, slots=True)
class _Blocking:
    m_block: int
    n_block: int
    k_block: int
    n_chunk: int
    k_threads: int


def brgemm_matmul(problem: Product, cpu: Cpu) -> tuple[str, int]:
    """The name of the implementation on a processor with AVX-512, and the bytes of its scratchpad.

    A matrix times a vector is left to the AVX2 implementation. ``m`` may be 1 only when A is transposed, ``n`` only when B is.
    """
    if problem.n == 1 and not problem.is_bf16:
        return "brg_matmul:avx2", _matrix_vector_scratchpad(problem, cpu.threads)
    if contains_dim(problem.sizes):
        scratchpad = _searched_scratchpad(problem, cpu.threads)
    else:
        scratchpad = each(lambda m, n, k, batch: _scratchpad(replace(problem, m=m, n=n, k=k, batch=batch), cpu.threads), *problem.sizes)
    return "brg_matmul:avx512_core_bf16" if problem.is_bf16 else "brg_matmul:avx512_core", scratchpad


@remembered(REMEMBERED, always=True)
def _scratchpad(problem: Product, threads: int) -> int:
    return _searched_scratchpad(problem, threads)


def _searched_scratchpad(problem: Product, threads: int) -> int:
    copy_a = _copies_a(problem)
    blocking = _blocking(problem, copy_a, threads)
    itemsize = problem.itemsize
    copied_a = blocking.m_block * _copied_row(blocking.k_block, itemsize) * itemsize if copy_a else 0
    partial_sums = (blocking.k_threads - (not problem.is_bf16)) * problem.m * FLOAT_BYTES if problem.reduced else 0
    return scratchpad_size(
        threads * BATCH_BYTES_PER_THREAD,
        threads * copied_a,
        threads * _copied_b_bytes(problem, blocking, threads),
        threads * _sums_bytes(problem, blocking),
        partial_sums,
    )


def is_brgemm_matmul(problem: Product) -> bool:
    """Whether an inner product becomes this product: from release 3.8 on, but for few terms in float32, which up to 3.10, and 32 of them
    up to 3.11, go to a kernel of their own (``VERBOSE_SMALL_SHAPES``)."""
    if problem.release < (3, 8) or problem.release >= (3, 12) or problem.is_bf16:
        return problem.release >= (3, 8)
    if problem.n == 1:
        return True
    m, n, k = problem.m, problem.n, problem.k
    few = _has_few_terms(problem) and (k == 32 or problem.release < (3, 11))
    return not few or (m >= 1000 and k <= 16 and n <= 16) or (m <= 256 and k <= 8 and n <= 1024)


def _has_few_terms(problem: Product) -> bool:
    m, n, k = problem.m, problem.n, problem.k
    return n <= 14528 and ((m <= 768 and k <= 128) or k * m <= 49152)


def _copies_a(problem: Product) -> bool:
    if problem.transposed_a and problem.m > 1:
        return True
    long_rows = problem.k >= LONG_ROW_BYTES // problem.itemsize and _is_power_of_two(problem.k)
    return problem.is_bf16 and long_rows and problem.m >= MANY_ROWS


def _copied_b_bytes(problem: Product, blocking: _Blocking, threads: int) -> int:
    """One thread's copy of a block of B: whole blocks of columns, and of rows as the instructions take them."""
    if problem.is_bf16:
        return N_BLOCK * round_up(blocking.k_block, 2 * K_GRANULE) * problem.itemsize
    if not _copies_b(problem, blocking.n_block, threads):
        return 0
    return N_BLOCK * round_up(blocking.k_block, K_GRANULE) * FLOAT_BYTES


def _sums_bytes(problem: Product, blocking: _Blocking) -> int:
    """One thread's float32 sums: of the whole result where sums are split, in bfloat16 else of its blocks (up to release 3.7 only of
    sums that take more than one block; later ones ask before they know)."""
    if blocking.k_threads > 1:
        return problem.m * problem.n * FLOAT_BYTES
    if not problem.is_bf16:
        return 0
    if problem.k > blocking.k_block:
        return blocking.m_block * blocking.n_block * blocking.n_chunk * FLOAT_BYTES
    return 0 if problem.release < (3, 10) else blocking.m_block * blocking.n_block * FLOAT_BYTES


def _copies_b(problem: Product, n_block: int, threads: int) -> bool:
    if problem.transposed_b:
        return True
    few_rows = problem.m <= 40 and not problem.transposed_a and threads > div_up(problem.n, n_block)
    return problem.n > 256 and _is_power_of_two(problem.n) and not few_rows


def _matrix_vector_scratchpad(problem: Product, threads: int) -> int:
    copied_a = 0
    if problem.m >= 1024 and problem.k >= 2048 and _is_power_of_two(problem.k):
        k_block = min(problem.k, 1024)
        smallest = _clamp(16, 256, int(quotient(problem.m, threads))) if threads > 1 else 32
        m_block = _best_m_block(problem, 1, range(256, smallest - 1, -1), range(1, 0, -1), k_block, 1, threads, False)[1]
        copied_a = m_block * _copied_row(k_block, FLOAT_BYTES) * FLOAT_BYTES
    return scratchpad_size(threads * BATCH_BYTES_PER_THREAD, threads * copied_a)


def _blocking(problem: Product, copy_a: bool, threads: int) -> _Blocking:
    m, n, k, bf16 = problem.m, problem.n, problem.k, problem.is_bf16
    by_columns = problem.goes_by_columns
    n_block = min(N_BLOCK, n)
    n_chunks = div_up(n, n_block)
    long_m_block = not bf16 and problem.release >= (3, 11) and _has_few_terms(problem)
    max_m, min_m = min(512 if long_m_block else 256, m), min(32, m)
    k_block = min(k, 1024 if k > 1024 and not by_columns else 512)
    parallel_blocks = problem.batch * n_chunks * div_up(m, max_m)
    most_k_threads, fewest_k_threads = 1, 1
    if threads > problem.batch * n_chunks:
        min_m = min(m, 16)
        if by_columns and k >= 2048 and problem.batch == 1 and not (bf16 and not _is_power_of_two(k)):
            most_k_threads = min(threads, 4)
        if not bf16 and k >= 20000 and m <= 512 and n <= 512:
            most_k_threads = fewest_k_threads = _threads_over_k(parallel_blocks, div_up(k, k_block), threads)
    if not bf16 and n >= 20000 and parallel_blocks > 10 * threads and m % max_m == 0 and most_k_threads == 1:
        min_m = max_m
    m_blocks = range(max_m, min_m - 1, -1)
    chunk_sizes = range(min(MOST_COPIED_N_CHUNKS if copy_a else 1, n_chunks), 0, -1)
    smallest_m, whole_chunks = range(min_m, min_m - 1, -1), range(1, 0, -1)
    best = (1.0, 1, 1, 1)
    for k_threads in range(most_k_threads, fewest_k_threads - 1, -1):
        even = most_k_threads == 1
        found = _best_m_block(problem, n_block, m_blocks, chunk_sizes, k_block, k_threads, threads, even, best[0])
        if found[0] == inf:
            found = _best_m_block(problem, n_block, smallest_m, whole_chunks, k_block, k_threads, threads, False, best[0])
        if found[0] < best[0]:
            best = (*found, k_threads)
    return _Blocking(best[1], n_block, k_block, best[2], best[3])


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
) -> tuple[float, int, int]:
    """The imbalance of the first most balanced block of rows, its size and its chunk of columns; infinite when none is below ``limit``.

    ``even_only`` refuses splits giving threads few blocks and not the same number.
    """
    others = threads // k_threads
    over_k = _distance_to_even(problem.k, k_threads * k_block)
    idle = quotient(threads - others * k_threads, threads) if others * k_threads != threads else 0.0
    if _is_plain(problem):
        return _first_of_table(problem, n_block, m_blocks, chunk_sizes, others, even_only, limit, idle, over_k)
    best, best_block, best_chunk = limit, 0, 1
    rows = [(block, div_up(problem.m, block), _wasted_rows(problem.m, block)) for block in m_blocks]
    for chunk, columns, wasted_columns in _column_chunks(problem.n, n_block, chunk_sizes):
        for block, row_blocks, wasted in rows:
            work = row_blocks * columns * problem.batch
            if even_only and work < 3 * others and work % others:
                continue
            uneven = _distance_to_even(work, others)
            if (uneven + wasted + wasted_columns + idle + over_k) / 5 > best + ROUNDING_MARGIN:
                continue
            imbalance = single(total(uneven, wasted, wasted_columns, idle, over_k) / 5)
            if imbalance < best:
                best, best_block, best_chunk = imbalance, block, chunk
    return (best, best_block, best_chunk) if best_block else (inf, 0, 1)


def _is_plain(problem: Product) -> bool:
    """Whether sizes are plain ints, of which numpy counts what the search counts, and rounds it once."""
    return all([type(n) is int for n in problem.sizes]) and problem.m * problem.n * problem.batch < EXACT


def _first_of_table(
    problem: Product,
    n_block: int,
    m_blocks: range,
    chunk_sizes: range,
    others: int,
    even_only: bool,
    limit: float,
    idle: float,
    over_k: float,
) -> tuple[float, int, int]:
    """The same for plain numbers: all candidates at once, in the order in which they are tried."""
    import numpy as np

    chunks = list(_column_chunks(problem.n, n_block, chunk_sizes))
    blocks = np.array(m_blocks, dtype=np.int64)
    rows = -(-problem.m // blocks)
    wasted = (rows * blocks % problem.m).astype(np.float32) / np.float32(problem.m)
    work = rows * np.array([[columns] for _, columns, _ in chunks], dtype=np.int64) * problem.batch
    rest = work % others
    apart = np.where(work < others, others - rest, np.minimum(others - rest, rest))
    uneven = apart.astype(np.float32) / np.float32(others)
    wasted_columns = np.array([[w] for _, _, w in chunks], dtype=np.float32)
    imbalance = ((((uneven + wasted) + wasted_columns) + np.float32(idle)) + np.float32(over_k)) / np.float32(5)
    if even_only:
        imbalance[(work < 3 * others) & (rest != 0)] = inf
    chunk, block = divmod(int(imbalance.argmin()), len(blocks))
    least = float(imbalance[chunk, block])
    return (least, int(blocks[block]), chunks[chunk][0]) if least < limit else (inf, 0, 1)


def _column_chunks(n: int, n_block: int, chunk_sizes: range) -> Iterator[tuple[int, int, float]]:
    blocks = div_up(n, n_block)
    for size in chunk_sizes:
        chunks = div_up(blocks, size)
        yield size, chunks, quotient(chunks * size - blocks, blocks)


def _wasted_rows(m: int, block: int) -> float:
    return quotient(round_up(m, block) % m, m)


def _distance_to_even(work: int, parts: int) -> float:
    rest = work % parts
    return quotient(parts - rest if work < parts else min(parts - rest, rest), parts)


def _copied_row(k_block: int, itemsize: int) -> int:
    """Elements between copied rows of A: whole cache lines, and not a large power of two."""
    line = LINE_BYTES // itemsize
    row = round_up(k_block, line)
    return row + line if row >= 512 and _is_power_of_two(row) else row


def _least_prime_factor(value: int) -> int:
    return next((factor for factor in range(2, value) if value % factor == 0), value)


def _is_power_of_two(value: int) -> bool:
    return value & (value - 1) == 0


def _clamp(low: int, high: int, value: int) -> int:
    return max(low, min(high, value))
