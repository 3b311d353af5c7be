"""Copies on CUDA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from memest.network.tensor import Shape, is_non_overlapping_and_dense
from memest.ops.aten.copies import contiguous
from memest.ops.aten.iterator import incoming, on_host
from memest.ops.families import copying
from memest.ops.operator import Operator
from memest.ops.tape import Tape, Tensor

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]
FAMILY = {row.name: row for row in copying.ROWS}


def _rolled(k: Tape, t: Tensor, dims: Shape) -> Tensor:
    """One dim after the other, each by a kernel that reads and writes row by row; without dims all are one."""
    for _ in dims or (0,):
        dense = contiguous(k, t)
        out = k.empty(t.shape, t.dtype)
        k.free(None if dense is t else dense)
        t = out
    return t


def _roll(k: Tape, input: Tensor, *, shifts: Any, dims: Any) -> Tensor:
    return _rolled(k, input, copying.roll_lists(shifts, dims)[1])


def _roll_backward(k: Tape, saved: Saved, grads: Grads, *, shifts: Any, dims: Any) -> list[Tensor | None]:
    return [_rolled(k, incoming(grads), copying.roll_lists(shifts, dims)[1])]


def _to_device(
    k: Tape,
    input: Tensor,
    other: Tensor | None = None,
    *,
    device: str,
    dtype: str | None,
    memory_format: str,
    copy: bool,
    non_blocking: bool,
) -> Tensor:
    """``_to_copy`` between the host and the card. Bytes that do not lie alike on both sides go by a dense copy: dtypes are cast on the
    host, with ``non_blocking`` on the card."""
    kind = (dtype if other is None else other.dtype) or input.dtype
    strides = copying.formatted_strides(input, memory_format)
    to_card, cast = device == "card", kind != input.dtype
    out = k.empty(input.shape, kind, strides) if to_card else on_host(k, input.shape, kind)
    out = Tensor(out.shape, strides, kind, out.slot)
    if not cast and (input.numel == 1 or (strides == input.strides and is_non_overlapping_and_dense(input.shape, strides))):
        return out
    if to_card:
        dense = out.is_contiguous and not (cast and non_blocking)
        k.free(None if dense else k.empty(input.shape, input.dtype if non_blocking else kind))
        return out
    source = k.empty(input.shape, kind, copying.formatted_strides(input, "preserve_format")) if cast and non_blocking else input
    dense_source = contiguous(k, source)
    k.free(None if source is input else source, None if dense_source is source else dense_source)
    return out


_between = copying.TO_DEVICE
TO_DEVICE = Operator(
    name=_between.name,
    torch=_between.torch,
    roles=_between.roles,
    attributes=_between.attributes,
    forward=_to_device,
    saves=(),
    backward=None,
    examples=_between.examples,
    facts=_between.facts,
    source=_between.source,
    oracle=_between.oracle,
)
ROLL = "aten/src/ATen/native/cuda/TensorTransformations.cu (roll_cuda)"
ROWS: tuple[Operator, ...] = (replace(FAMILY["roll"], forward=_roll, backward=_roll_backward, source=ROLL), TO_DEVICE)
SAME = (
    "clone",
    "_to_copy",
    "cat",
    "stack",
    "repeat",
    "flip",
)
