"""Embedding on CUDA: the gradient sorts the numbers, so that rows which meet in one of the table's are added up in order: first in parts of
ten, then those parts. Few numbers are taken one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

from memest.libraries.cub import scanning_by_key_bytes, scanning_bytes, unique_bytes
from memest.libraries.cub_sorting import bits_of, most_bytes_of_sorting
from memest.machines.cpu import Cpu
from memest.machines.gpu import Gpu
from memest.network.dtypes import ITEMSIZE, opmath
from memest.network.tensor import Spec
from memest.ops.aten.copies import contiguous
from memest.ops.aten.iterator import incoming
from memest.ops.families import embedding
from memest.ops.operator import Operator
from memest.ops.searched import sealed
from memest.ops.tape import Tape, Tensor
from memest.runtimes.torch.cuda.sorting import storage
from memest.sizes.choices import each, least

FEW_NUMBERS = 3072
PART = 10
WARP, MOST_THREADS = 32, 1024
BLOCKS_PER_MULTIPROCESSOR, PARTS_A_BLOCK = 4, 4
ADDS_AT_ONCE = (2, 11)
"""The first torch that lets parts of few rows add to the table at once (pytorch pull request 172454)."""
BITS_THAT_TELL = (2, 13)
"""The first that sorts by as many bits as rows of the table need (pull request 183578)."""


def _backward(
    k: Tape, saved: dict[str, Any], grads: Sequence[Tensor | None], *, padding_idx: int, scale_grad_by_freq: bool, sparse: bool
) -> list[Tensor | None]:
    """embedding_dense_backward_cuda."""
    attributes = {"rows": saved["rows"], "scaled": scale_grad_by_freq}
    operands = (saved["indices"], incoming(grads))
    return [sealed(k, "embedding_backward", _gradient, _most, operands, **attributes), None]


def _gradient(k: Tape, indices: Tensor, grad: Tensor, *, rows: int, scaled: bool) -> Tensor:
    dense = [contiguous(k, t) for t in (indices, grad)]
    shape = (rows, grad.shape[-1])
    if indices.numel <= FEW_NUMBERS and not scaled:
        out = k.empty(shape, grad.dtype)
    else:
        numbers = _sorted(k, indices, rows)
        counts = _counted(k, indices) if scaled else None
        out = k.empty(shape, grad.dtype)
        _add_up(k, out, indices)
        k.free(counts, *reversed(numbers))
    k.free(*(t for t, own in zip(reversed(dense), (grad, indices), strict=True) if t.slot != own.slot))
    return out


def _sorted(k: Tape, indices: Tensor, rows: int) -> list[Tensor]:
    """The numbers in order, and where each came from."""
    made = [k.empty(indices.shape, indices.dtype) for _ in ("sorted", "origin", "range")]
    bits = each(bits_of, rows) if k.target.version >= BITS_THAT_TELL else 8 * indices.itemsize
    storage(k, indices.numel, bits, indices.itemsize, indices.itemsize)
    k.free(made.pop())
    return made


def _counted(k: Tape, indices: Tensor) -> Tensor:
    """How often each number occurs: a running count, then its greatest value backwards."""
    counts = k.empty(indices.shape, indices.dtype)
    for _ in ("count", "maximum"):
        k.free(k.scratch(scanning_by_key_bytes(k.target.device, indices.numel, indices.itemsize)))
    return counts


def _add_up(k: Tape, out: Tensor, indices: Tensor) -> None:
    """``embedding_backward_cuda_kernel``."""
    numbers, dtype, width = indices.numel, indices.dtype, out.shape[1]
    rows = least(numbers, out.shape[0])
    begins, count, keys = k.empty((numbers,), dtype), k.empty((), "int64"), k.empty((numbers,), dtype)
    k.free(k.scratch(unique_bytes(k.target.device, numbers, indices.itemsize)), keys)
    parts_of, first_of = k.empty((rows,), dtype), k.empty((rows,), dtype)
    k.free(k.scratch(scanning_bytes(rows, dtype)))
    total, parts = k.empty((), "int64"), numbers // PART + rows
    starts = k.empty((parts,), dtype)
    accumulated = opmath(out.dtype)
    if _adds_at_once(k, rows, parts, width):
        sums = [k.empty((parts,), dtype), *([k.empty(out.shape, accumulated)] if accumulated != out.dtype else [])]
    else:
        sums = [k.empty((parts, width), accumulated)]
    k.free(*reversed(sums), starts, total, first_of, parts_of, count, begins)


def _adds_at_once(k: Tape, rows: int, parts: int, width: int) -> bool:
    """Whether the second sums would leave the card idle: then each part is added to the table's row when it is there."""
    if k.target.version < ADDS_AT_ONCE:
        return False
    threads = -(-width // WARP) * WARP
    blocks = -(-rows * threads // (threads if threads <= MOST_THREADS else MOST_THREADS))
    return bool(blocks < k.target.device.multiprocessors * BLOCKS_PER_MULTIPROCESSOR and parts > blocks * PARTS_A_BLOCK)


def _most(machine: Cpu | Gpu, indices: Spec, grad: Spec, *, rows: Any, scaled: bool) -> tuple[Any, ...]:
    """Fourteen words a number, copies of gradients in parts (one a number at most) and twice the table, in eight bytes at most."""
    numbers, width = prod(indices.shape), grad.shape[-1]
    words = 14 * 8 * numbers + most_bytes_of_sorting(numbers)
    return (words + (2 * numbers + 1) * width * max(4, ITEMSIZE[grad.dtype]) + 2 * rows * width * 8 + 2**16,)


ROWS: tuple[Operator, ...] = tuple(
    replace(
        row,
        backward=_backward,
        source=f"{row.source}; aten/src/ATen/native/cuda/Embedding.cu, EmbeddingBackwardKernel.cu",
    )
    for row in embedding.ROWS
)
SAME: tuple[str, ...] = ()
