"""Products of matrices by cuBLAS and cuBLASLt: which operands are copied first, and the workspace that the libraries share (up to 2.11 the
second has one of its own), one a thread and stream, from torch's caching allocator.

Sources: aten/src/ATen/native/cuda/Blas.cpp (``prepare_matrix_for_cublas``, ``prepare_batch_matrix_for_cublas``, ``addmv_out_cuda``),
aten/src/ATen/cuda/CUDABlas.cpp, CublasHandlePool.cpp (``getChosenWorkspaceSize``, ``parseChosenWorkspaceSize``,
``getCUDABlasLtWorkspace``).
"""

from __future__ import annotations

from memest.errors import UnsupportedError
from memest.machines.cuda import configured_bytes
from memest.machines.target import Target
from memest.network.dtypes import COMPLEX, FLOATING
from memest.network.tensor import is_non_overlapping_and_dense
from memest.ops.tape import Tape, Tensor

KIB = 1024
HOPPER = 32 * 1024 * KIB
ELSEWHERE = 4096 * KIB * 2 + 16 * KIB * 8
LT, SHARED_SINCE = 1024 * KIB, (2, 12)


def product(k: Tape, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """``addmm_out_cuda_impl``: a new row-major tensor. cuBLAS counts by columns, so it is asked for the transposed product and sees ``b``
    first; operands that lie neither by rows nor by columns are copied. A ``bias`` is added by cuBLASLt where it can, else beforehand."""
    _refuse(a)
    out = k.empty((a.shape[0], b.shape[1]), a.dtype)
    if out.numel and a.numel:
        copies = [k.empty(t.shape, t.dtype) for t in (b, a) if not _is_matrix(t)]
        cublas(k)
        if bias is not None and _is_added_by_lt(bias, b):
            cublas_lt(k)
        k.free(*reversed(copies))
    return out


def batch_of_products(k: Tape, a: Tensor, b: Tensor, added: bool) -> Tensor:
    """``baddbmm_out_cuda_impl``: a new row-major tensor. A batch that cuBLAS cannot step through is copied whole. From 2.13 on ``bmm`` of
    columns by rows is a kernel of its own, written in Triton (torch/_native/ops/bmm_outer_product), but not what is ``added`` to."""
    outer = a.shape[2] == 1 and not added and a.dtype not in COMPLEX and k.target.version >= (2, 13)
    if not outer:
        _refuse(a)
    out = k.empty((a.shape[0], a.shape[1], b.shape[2]), a.dtype)
    if not outer and out.numel and a.shape[2]:
        by_rows = b.shape[2] != 1
        rows, cols, depth = (b.shape[2], a.shape[1], a.shape[2]) if by_rows else (a.shape[1], b.shape[2], a.shape[2])
        first, second = (b, a) if by_rows else (a, b)
        copies = [
            k.empty(t.shape, t.dtype)
            for t, lead, other in ((first, rows, depth), (second, depth, cols))
            if not _is_batch(t, by_rows, lead, other)
        ]
        cublas(k)
        k.free(*reversed(copies))
    return out


def matrix_by_vector(k: Tape, matrix: Tensor, vector: Tensor) -> Tensor:
    """``addmv_out_cuda``: a new vector; a matrix that lies neither by rows nor by columns is copied."""
    _refuse(matrix)
    out = k.empty(matrix.shape[:1], matrix.dtype)
    if out.numel and matrix.numel:
        copies = [] if _is_vector_ready(matrix) else [k.empty(matrix.shape, matrix.dtype)]
        cublas(k)
        k.free(*copies)
    return out


def vector_by_vector(k: Tape, vector: Tensor) -> Tensor:
    """``dot_cuda``: one number."""
    _refuse(vector)
    out = k.empty((), vector.dtype)
    cublas(k)
    return out


def _refuse(t: Tensor) -> None:
    if t.dtype not in FLOATING and t.dtype not in COMPLEX:
        raise UnsupportedError(f"torch has no product of matrices in {t.dtype} on CUDA")


def _is_matrix(t: Tensor) -> bool:
    """``prepare_matrix_for_cublas``."""
    if is_non_overlapping_and_dense(t.shape, t.strides):
        return True
    (rows, cols), (by_row, by_col) = t.shape, t.strides
    return bool((by_row == 1 and by_col >= max(1, rows)) or (by_col == 1 and by_row >= max(1, cols)))


def _is_added_by_lt(bias: Tensor, b: Tensor) -> bool:
    """``isInputCompliesAddmmCudaLt``: one row for all, of a matrix that is neither a row nor a column."""
    row = bias.is_contiguous and bias.ndim > 0 and bias.numel == bias.shape[-1] == b.shape[1]
    return bool(row and b.shape[0] != 1 and b.shape[1] != 1 and b.dtype in FLOATING)


def _is_vector_ready(t: Tensor) -> bool:
    (rows, cols), (by_row, by_col) = t.shape, t.strides
    return bool((by_row == 1 and by_col >= max(1, rows)) or (by_col == 1 and by_row >= max(1, cols)) or t.is_contiguous)


def _is_batch(t: Tensor, by_rows: bool, lead: int, other: int) -> bool:
    """``prepare_batch_matrix_for_cublas``."""
    _, by_row, by_col = t.strides
    fast, slow = (by_col, by_row) if by_rows else (by_row, by_col)
    if (fast == 1 and slow >= max(1, lead)) or (slow == 1 and fast >= max(1, other)):
        return True
    return bool(t.is_contiguous and by_row != 0 and by_col != 0)


def cublas(k: Tape) -> None:
    """A product by cuBLAS or cuBLASLt is about to run: its thread's handle has a workspace from now on."""
    k.keep("cuBLAS", workspace_bytes(k.target))


def cublas_lt(k: Tape) -> None:
    """The product is cuBLASLt's: up to 2.11 its handle has a workspace of its own besides, no larger than cuBLAS's."""
    if k.target.version < SHARED_SINCE:
        k.keep("cuBLASLt", min(LT, workspace_bytes(k.target)))


def workspace_bytes(target: Target) -> int:
    """Bytes of one workspace: those of ``CUBLAS_WORKSPACE_CONFIG`` where it is set, else by architecture."""
    config = target.settings.cublas_workspace
    if config:
        return configured_bytes(config)
    major = target.device.capability[0]
    large = major in (9, 10, 12) if target.version >= (2, 14) else major == 9
    return HOPPER if large else ELSEWHERE
