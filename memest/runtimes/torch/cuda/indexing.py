"""Indexing on CUDA. Elements that an index names more than once are added up in order: backward sorts the flat index first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

from memest.libraries.cub_sorting import bits_of, most_bytes_of_sorting, sorting_bytes
from memest.machines.cpu import Cpu
from memest.machines.gpu import Gpu
from memest.network.tensor import Shape, Spec, contiguous_strides, is_contiguous
from memest.ops.aten.copies import contiguous
from memest.ops.aten.iterator import broadcast_shape, incoming
from memest.ops.aten.views import wrapped
from memest.ops.families.indexing import ROWS as ON_CPU
from memest.ops.operator import Operator
from memest.ops.searched import sealed
from memest.ops.tape import Tape, Tensor
from memest.sizes.choices import each

SOURCE = "aten/src/ATen/native/cuda/Indexing.cu (index_put_with_sort_kernel, makeLinearIndex)"


def _index_backward(
    k: Tape, saved: dict[str, Any], grads: Sequence[Tensor | None], *, dims: Shape, host: bool, counts: Shape
) -> list[Tensor | None]:
    """``_index_put_impl_`` into zeros: every index wrapped and scaled, their sum sorted together with the places it came from. Indices that
    do not stand together are brought to the front of a copy. Of those on the ``host`` the sum is made there."""
    grad = incoming(grads)
    sizes: Shape = saved["sizes"]
    at = [wrapped(d, len(sizes)) for d in dims]
    out = k.empty(sizes, grad.dtype)
    common = broadcast_shape(*(saved[f"index{i}"] for i in range(len(at))))
    flat = _moved_index(k, common, len(at)) if host else _flat_index(k, common, len(at))
    contiguous(k, grad)
    together = at == list(range(at[0], at[0] + len(at)))
    behind = sizes[at[-1] + 1 :] if together else tuple(n for d, n in enumerate(sizes) if d not in at)
    row = prod(behind)
    if flat.numel and row:
        if not together and not _lies_in_front(sizes, at):
            k.empty(sizes, grad.dtype)
        for _ in ("sorted", "origin", "range"):
            k.empty((flat.numel,), "int64")
        sealed(k, "sort", _sort, _most, (flat,), largest=(prod(sizes) - 1) // row)
    return [out, *[None] * (len(k.needs) - 1)]


def _flat_index(k: Tape, common: Shape, count: int) -> Tensor:
    total: Tensor | None = None
    for _ in range(count):
        within = k.empty(common, "int64")
        scaled = k.empty(common, "int64")
        k.free(within, None if total is None else scaled)
        total = total or scaled
    assert total is not None
    return total


def _moved_index(k: Tape, common: Shape, count: int) -> Tensor:
    """Each index is wrapped and scaled on the host, and added to the sum on the card."""
    total = k.empty(common, "int64")
    for _ in range(count - 1):
        k.free(k.empty(common, "int64"))
    return total


def _lies_in_front(sizes: Shape, at: Sequence[int]) -> bool:
    order = [*at, *(d for d in range(len(sizes)) if d not in at)]
    strides = contiguous_strides(sizes)
    return is_contiguous([sizes[d] for d in order], [strides[d] for d in order])


def _sort(k: Tape, flat: Tensor, *, largest: int) -> list[Tensor]:
    def held(count: int, number: int) -> int:
        return sorting_bytes(k.target.device, count, bits_of(number))

    k.free(k.scratch(each(held, flat.numel, largest)))
    return []


def _most(machine: Cpu | Gpu, flat: Spec, *, largest: Any) -> tuple[Any, ...]:
    return (most_bytes_of_sorting(prod(flat.shape)),)


ROWS: tuple[Operator, ...] = tuple(
    replace(row, backward=_index_backward, source=f"{row.source}; {SOURCE}") for row in ON_CPU if row.name == "index"
)
SAME = ("index_select", "setitem")
