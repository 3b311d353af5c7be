"""Matrix products that oneDNN computes for torch: those of bfloat16, but for small ones.

Operands that lie neither by rows nor by columns without gaps are copied first; the rest is the primitive's scratchpad.

Sources: aten/src/ATen/native/mkldnn/Matmul.cpp (``use_mkldnn_bf16_matmul``, ``mkldnn_matmul``); ideep
include/ideep/operators/matmul.hpp.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

from memest.errors import UnsupportedError
from memest.libraries.onednn.matmul import Product, brgemm_matmul
from memest.libraries.onednn.releases import release_in
from memest.machines.cpu import Cpu
from memest.network.tensor import Shape, Spec, is_contiguous
from memest.ops.searched import sealed
from memest.ops.tape import Tape, Tensor

SMALLEST = 16 * 16 * 16
MOST_BLOCK_BYTES = 2 * 1024 * 1024
"""More than a thread's copies of blocks, and its sums of a block, can take (``memest.libraries.onednn.matmul``)."""


def is_onednn_product(cpu: Cpu, a: Tensor, b: Tensor) -> bool:
    """Whether ``a @ b`` of matrices, batches of them, or a matrix and a vector, is oneDNN's; UnsupportedError where its kernels are not
    modelled."""
    if a.dtype != "bfloat16" or cpu.isa != "avx512":
        return False
    if a.numel == 0 or b.numel == 0 or a.numel * (b.shape[-1] if b.ndim > 1 else 1) <= SMALLEST:
        return False
    if not cpu.has_bf16:
        raise UnsupportedError("matrix products in bfloat16 are modelled for processors with avx512_bf16 and without AMX alone")
    return True


def onednn_product(k: Tape, a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` by oneDNN: a new row-major tensor. A vector counts as one row on the left, as one column on the right."""
    out: Tensor = sealed(k, "matmul", _product, _most, (a, b))
    return out


def _product(k: Tape, a: Tensor, b: Tensor) -> Tensor:
    left, right = _as_matrix(a, row=True), _as_matrix(b, row=False)
    out = k.empty((*a.shape[:-1], *b.shape[-1:]) if b.ndim > 1 else a.shape[:-1], a.dtype)
    copies = [k.empty(dims, a.dtype) for dims, strides in (left, right) if not _lies_dense(dims, strides)]
    task = replace(_task(left, right, a.ndim == b.ndim == 2), release=release_in(k.target.version))
    k.free(k.scratch(brgemm_matmul(task, k.target.cpu)[1]), *reversed(copies))
    return out


def _task(left: tuple[Shape, Shape], right: tuple[Shape, Shape], by_gemm: bool) -> Product:
    """What oneDNN is asked. Two matrices go through a gemm that thinks in columns (``addmm_impl_cpu_``): for it a result of one column
    lies as it should, so oneDNN, which thinks in rows, is asked for its transpose."""
    m, n, depth = left[0][-2], right[0][-1], left[0][-1]
    by_columns = _lies_by_columns(*left) or _is_taken_for_columns(*left)
    if by_gemm and n == 1 and m > 1:
        return Product(m=1, n=m, k=depth, transposed_b=not by_columns, dtype="bfloat16")
    return Product(
        m=m,
        n=n,
        k=depth,
        batch=prod(left[0][:-2]),
        transposed_a=by_columns,
        transposed_b=_lies_by_columns(*right),
        dtype="bfloat16",
    )


def _most(cpu: Cpu, a: Spec, b: Spec) -> tuple[Any, ...]:
    """No fewer bytes than the product holds at one moment."""
    result = prod(a.shape) * (b.shape[-1] if len(b.shape) > 1 else 1)
    copies = (prod(a.shape) + prod(b.shape)) * 2
    return (4 * cpu.threads * result + copies + cpu.threads * MOST_BLOCK_BYTES,)


def _as_matrix(t: Tensor, *, row: bool) -> tuple[Shape, Shape]:
    """Dims and strides, those of a vector completed."""
    if t.ndim > 1:
        return t.shape, t.strides
    (size,), (step,) = t.shape, t.strides
    return ((1, size), (size * step, step)) if row else ((size, 1), (step, 1))


def _lies_dense(shape: Shape, strides: Shape) -> bool:
    """``is_mkldnn_optimized_format``: row by row, or column by column, without gaps."""
    return is_contiguous(shape, strides) or _is_transposed(shape, strides)


def _lies_by_columns(shape: Shape, strides: Shape) -> bool:
    return not is_contiguous(shape, strides) and _is_transposed(shape, strides)


def _is_taken_for_columns(shape: Shape, strides: Shape) -> bool:
    """One column lies both ways; of a single matrix oneDNN then asks the last stride alone (``matmul_helper_t::transA``)."""
    rows, columns = shape[-2:]
    return len(shape) == 2 and columns == 1 and rows > 1 and strides[-1] != 1


def _is_transposed(shape: Shape, strides: Shape) -> bool:
    rows, columns = shape[-2:]
    apart = len(shape) == 2 or strides[0] == rows * columns
    return apart and strides[-2] == 1 and strides[-1] == rows
