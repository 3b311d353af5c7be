"""The products in the backward of fused attention that oneDNN computes: in bfloat16, three for each block of queries and keys.

A thread goes through its heads, a head's blocks of queries, and for each of those the blocks of keys. The two products whose result is
float32 stay with ATen's own loops; those that add to a gradient in bfloat16 are oneDNN's, unless they are small. Torch's profiler sees
those of the calling thread, which takes the first heads.

Sources: aten/src/ATen/native/cpu/FlashAttentionKernel.cpp (cpu_flash_attention_backward), aten/src/ATen/native/mkldnn/Matmul.cpp
(mkldnn_gemm), aten/src/ATen/ParallelOpenMP.h (what a thread gets).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from memest.libraries.onednn.matmul import Product, brgemm_matmul
from memest.libraries.onednn.releases import release_in
from memest.machines.cpu import Cpu
from memest.ops.aten.products import MOST_BLOCK_BYTES, SMALLEST
from memest.ops.tape import Tape, Tensor

MOST_ROWS, MOST_KEYS = 256, 512


def computes(cpu: Cpu, dtype: str) -> bool:
    """Whether the products are oneDNN's."""
    return dtype == "bfloat16" and cpu.isa == "avx512" and cpu.has_bf16


def products_of_blocks(k: Tape, query: Tensor, key: Tensor, block: tuple[int, int], scaled: bool) -> None:
    """What the calling thread allocates and drops; ``block`` is the number of queries and of keys in a block. ``scaled`` says that
    scores are multiplied by a factor, which then has a tensor of its own. (Under a causal mask torch leaves out blocks of keys that no
    query sees, where there are several; they are counted here.)"""
    batch, heads, queries, size = query.shape
    rows, cols = block
    begin = k.mark()
    for row_count, row_times in _parts(queries, rows):
        row = k.mark()
        for col_count, col_times in _parts(key.shape[2], cols):
            col = k.mark()
            _products(k, row_count, col_count, size, scaled)
            k.again(col, col_times - 1)
        k.again(row, row_times - 1)
    total = batch * heads
    k.again(begin, -(-total // min(k.target.cpu.threads, total)) - 1)


def _parts(whole: int, block: int) -> Iterator[tuple[int, int]]:
    """The size of the parts of ``whole`` and how many there are of it: whole blocks, then the rest."""
    if whole >= block:
        yield block, whole // block
    if whole % block:
        yield whole % block, 1


def _products(k: Tape, rows: int, cols: int, size: int, scaled: bool) -> None:
    """One block's: the gradients of value, query and key grow."""
    if rows * cols * size <= SMALLEST:
        return
    turned = Product(m=cols, n=size, k=rows, transposed_a=True, dtype="bfloat16")
    _add(k, turned, False)
    _add(k, Product(m=rows, n=size, k=cols, dtype="bfloat16"), scaled)
    _add(k, turned, scaled)


def _add(k: Tape, product: Product, scaled: bool) -> None:
    factor = k.scratch(4) if scaled else None
    task = replace(product, release=release_in(k.target.version))
    k.free(k.scratch(brgemm_matmul(task, k.target.cpu)[1]))
    k.free(factor)


def most_of_products(cpu: Cpu, size: int) -> int:
    """No fewer bytes than a product of a block holds, with heads of ``size``."""
    sums = 4 * cpu.threads * MOST_KEYS * (MOST_ROWS + size)
    return sums + cpu.threads * MOST_BLOCK_BYTES + 4
