"""Matrix products by BLAS, and when oneDNN takes them (:mod:`memest.ops.aten.products`); on CUDA they are cuBLAS's
(:mod:`memest.ops.aten.cublas`).

Source: aten/src/ATen/native/LinearAlgebra.cpp.
"""

from __future__ import annotations

from memest.errors import ShapeError, UnsupportedError
from memest.network.dtypes import COMPLEX
from memest.ops.aten import cublas
from memest.ops.aten.iterator import empty_like
from memest.ops.aten.products import is_onednn_product, onednn_product
from memest.ops.tape import Tape, Tensor


def transpose(k: Tape, t: Tensor, a: int, b: int) -> Tensor:
    """The view with two dims exchanged."""
    shape, strides = list(t.shape), list(t.strides)
    shape[a], shape[b] = shape[b], shape[a]
    strides[a], strides[b] = strides[b], strides[a]
    return k.view(t, shape, strides)


def mm(k: Tape, a: Tensor, b: Tensor, bias: Tensor | None = None, conjugate: Tensor | None = None) -> Tensor:
    """A matrix product of 2-dim operands, to which ``bias`` is added in the same call. ``conjugate`` is the operand whose conjugate is
    meant: BLAS conjugates complex numbers as it transposes, and reads a copy of those that lie by rows."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ShapeError(f"matrices of shapes {list(a.shape)} and {list(b.shape)} cannot be multiplied")
    if k.target.on_cuda:
        _refuse_complex(a)
        return cublas.product(k, a, b, bias)
    if is_onednn_product(k.target.cpu, a, b):
        return onednn_product(k, a, b)
    out = k.empty((a.shape[0], b.shape[1]), a.dtype)
    resolved = None if conjugate is None or conjugate.strides[1] != 1 else _resolved(k, conjugate)
    gemm(k, a, b)
    k.free(resolved)
    return out


def gemm(k: Tape, a: Tensor, b: Tensor) -> None:
    """``addmm_impl_cpu_`` into a row-major result: BLAS takes transposed operands as they are, others are copied first. BLAS counts
    by columns, so it is asked for the transposed product and sees ``b`` first."""
    order = (a, b) if b.shape[1] == 1 else (b, a)
    copies = [k.empty(t.shape, t.dtype) for t in order if not _blas_ready(t)]
    k.free(*reversed(copies))


def _blas_ready(t: Tensor) -> bool:
    rows, cols = t.shape
    by_rows = t.strides[1] == 1 and t.strides[0] >= max(1, cols)
    by_cols = t.strides[0] == 1 and t.strides[1] >= max(1, rows)
    return by_rows or by_cols or t.numel == 0


SMALL_PRODUCT = 400


def _refuse_complex(t: Tensor) -> None:
    if t.dtype in COMPLEX:
        raise UnsupportedError("products of complex matrices are not modelled on torch-cuda yet; ask for torch-cpu")


def _resolved(k: Tape, conjugate: Tensor) -> Tensor | None:
    """``resolve_conj``: a copy where the numbers are complex."""
    return empty_like(k, conjugate) if conjugate.dtype in COMPLEX else None


def batched_product(k: Tape, a: Tensor, b: Tensor, added: bool = False, conjugate: Tensor | None = None) -> Tensor:
    """``at::bmm``, or the product that ``at::baddbmm`` has ``added`` to something: small products are plain loops, others one call of MKL,
    which copies nothing; matrices that BLAS cannot read as they lie are copied one by one, and an operand whose ``conjugate`` is meant
    as a whole."""
    if a.ndim != 3 or b.ndim != 3 or a.shape[0] != b.shape[0] or a.shape[2] != b.shape[1]:
        raise ShapeError(f"batches of matrices of shapes {list(a.shape)} and {list(b.shape)} cannot be multiplied")
    if k.target.on_cuda:
        _refuse_complex(a)
        return cublas.batch_of_products(k, a, b, added)
    if is_onednn_product(k.target.cpu, a, b):
        return onednn_product(k, a, b)
    out = k.empty((a.shape[0], a.shape[1], b.shape[2]), a.dtype)
    resolved = None if conjugate is None else _resolved(k, conjugate)
    if a.shape[1] * a.shape[2] * b.shape[2] >= SMALL_PRODUCT and not (_is_readable(a) and _is_readable(b)):
        one, other = (k.view(t, t.shape[1:], t.strides[1:]) for t in (a, b))
        for _ in range(a.shape[0]):
            gemm(k, one, other)
    k.free(resolved)
    return out


def _is_readable(t: Tensor) -> bool:
    """``batch_items_contiguous_or_transposed``."""
    _, rows, cols = t.shape
    _, by_row, by_col = t.strides
    return (by_col == 1 and (rows == 1 or by_row >= cols)) or (by_row == 1 and (cols == 1 or by_col >= rows))


def matrix_vector(k: Tape, matrix: Tensor, vector: Tensor) -> Tensor:
    """``at::mv``: BLAS reads a matrix whose rows or columns lie side by side, any other is copied first."""
    if matrix.ndim != 2 or vector.ndim != 1 or matrix.shape[1] != vector.shape[0]:
        raise ShapeError(f"a matrix of shape {list(matrix.shape)} and a vector of shape {list(vector.shape)} cannot be multiplied")
    if k.target.on_cuda:
        return cublas.matrix_by_vector(k, matrix, vector)
    if is_onednn_product(k.target.cpu, matrix, vector):
        return onednn_product(k, matrix, vector)
    out = k.empty(matrix.shape[:1], matrix.dtype)
    (rows, cols), (by_row, by_col) = matrix.shape, matrix.strides
    readable = (by_row == 1 and (cols == 1 or by_col >= max(1, rows))) or (by_col == 1 and (rows == 1 or by_row >= max(1, cols)))
    if not readable and not matrix.is_contiguous:
        k.free(k.empty(matrix.shape, matrix.dtype))
    return out
