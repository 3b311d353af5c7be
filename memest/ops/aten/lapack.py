"""What LAPACK is given and what is asked of it: matrices column by column, factors with their pivots, and whether it failed.

Source: aten/src/ATen/native/BatchLinearAlgebra.cpp, LinearAlgebraUtils.h (``_linalg_check_errors``).
"""

from __future__ import annotations

from math import prod

from memest.errors import ShapeError
from memest.network.dtypes import FLOATING, HALVES
from memest.network.tensor import Shape, contiguous_strides
from memest.ops.aten.copies import contiguous
from memest.ops.aten.gemm import batched_product, mm, transpose
from memest.ops.aten.iterator import refuse_dtypes, with_number
from memest.ops.aten.places import refuse_on_cuda
from memest.ops.aten.reductions import judge_into
from memest.ops.aten.views import reshaped
from memest.ops.tape import Tape, Tensor
from memest.sizes.choices import least


def check_square(k: Tape, what: str, t: Tensor) -> None:
    """Square matrices of real numbers that LAPACK takes."""
    check_matrices(k, what, t, "square matrices")
    if t.shape[-1] != t.shape[-2]:
        raise ShapeError(f"{what} takes square matrices of real numbers, got shape {list(t.shape)} of {t.dtype}")


def check_matrices(k: Tape, what: str, t: Tensor, kind: str = "matrices") -> None:
    """Matrices of real numbers that LAPACK takes."""
    refuse_on_cuda(k)
    refuse_dtypes(what, t, HALVES)
    if t.dtype not in FLOATING or t.ndim < 2:
        raise ShapeError(f"{what} takes {kind} of real numbers, got shape {list(t.shape)} of {t.dtype}")


def by_columns(k: Tape, shape: Shape, dtype: str) -> Tensor:
    """Matrices that LAPACK reads: a column lies side by side (a vector is one)."""
    if len(shape) < 2:
        return k.empty(shape, dtype)
    return k.empty(shape, dtype, (*contiguous_strides(shape)[:-2], 1, shape[-2]))


def adjoint(k: Tape, t: Tensor) -> Tensor:
    """``t.mH()`` of real matrices."""
    return transpose(k, t, t.ndim - 2, t.ndim - 1)


def replaced(k: Tape, old: Tensor, new: Tensor) -> Tensor:
    """``old = new``: what the variable held goes."""
    k.free(old)
    return new


def infos(k: Tape, t: Tensor) -> Tensor:
    """Whether each of the matrices failed."""
    return k.empty(t.shape[:-2], "int32")


def factorized(k: Tape, t: Tensor) -> tuple[Tensor, Tensor]:
    """Factors L and U in one, and pivots."""
    return by_columns(k, t.shape, t.dtype), k.empty(t.shape[:-1], "int32")


def check_pivots(k: Tape, pivots: Tensor) -> None:
    """``pivots.gt(0).all()`` and ``pivots.le(n).all()``."""
    for limit in (0, 1):
        mask = with_number(k, pivots, limit, "bool")
        truth = k.empty((), "bool")
        judge_into(k, mask, truth, None)
        k.free(truth, mask)


def check_errors(k: Tape, info: Tensor) -> None:
    """Whether any factorization failed."""
    truth = k.empty((), "bool")
    judge_into(k, info, truth, None)
    k.free(truth, info)


def product_of(k: Tape, a: Tensor, b: Tensor) -> Tensor:
    """``matmul`` of matrices, or of batches of the same sizes."""
    if a.ndim == 2:
        return mm(k, a, b)
    one, other = (reshaped(k, t, (prod(t.shape[:-2]), *t.shape[-2:])) if t.ndim > 3 else t for t in (a, b))
    made = batched_product(k, one, other)
    k.free(*(new for new, old in ((one, a), (other, b)) if new.slot != old.slot))
    return made if a.ndim == 3 else k.alias(made, (*a.shape[:-1], b.shape[-1]))


def follow(t: Tensor) -> bool:
    """Whether matrices of a batch lie one after the other, without gaps (``checkTrilTriuBatchContiguous``)."""
    expected = t.shape[-1] * t.shape[-2]
    for size, step in zip(reversed(t.shape[:-2]), reversed(t.strides[:-2]), strict=True):
        if expected != step:
            return False
        expected = expected * size
    return True


def triangle_of(k: Tape, t: Tensor) -> Tensor:
    """``triu`` or ``tril``: row-major; batches of matrices that do not follow one another without gaps are read from a copy, or written by
    way of one."""
    out = k.empty(t.shape, t.dtype)
    if not follow(t):
        dense = contiguous(k, t)
        k.free(None if dense is t else dense)
    return out


def triangle_solved(k: Tape, matrix: Tensor, other: Tensor) -> Tensor:
    """``linalg_solve_triangular``: in place of a copy of the right sides, which lies by columns; a matrix with gaps is copied."""
    out = by_columns(k, other.shape, other.dtype)
    turned = adjoint(k, matrix)
    if not (matrix.is_contiguous or turned.is_contiguous):
        k.free(k.empty(matrix.shape, matrix.dtype))
    return out


def decomposed(k: Tape, what: str, input: Tensor, full: bool, vectors: bool) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """``_linalg_svd``: U, the values and V transposed."""
    check_matrices(k, what, input)
    *batch, rows, columns = input.shape
    fewest = least(rows, columns)
    left = by_columns(k, (*batch, rows, rows if full else fewest), input.dtype) if vectors else None
    right = by_columns(k, (*batch, columns if full else fewest, columns), input.dtype) if vectors else None
    values = k.empty((*batch, fewest), input.dtype)
    info = infos(k, input)
    k.free(by_columns(k, input.shape, input.dtype))
    check_errors(k, info)
    return left, values, right
