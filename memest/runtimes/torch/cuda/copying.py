"""Copies on CUDA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from memest.network.tensor import Shape, is_non_overlapping_and_dense
from memest.ops.aten.copies import contiguous
from memest.ops.aten.iterator import incoming, on_host
from memest.ops.aten.views import expanded
from memest.ops.composite import Composite
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
    to_card = device == "card"
    out = k.empty(input.shape, kind, strides) if to_card else on_host(k, input.shape, kind)
    out = Tensor(out.shape, strides, kind, out.slot)
    _across(k, out, input, to_card=to_card, non_blocking=non_blocking)
    return out


def _copy_across(k: Tape, input: Tensor, src: Tensor, *, device: str, non_blocking: bool) -> Tensor:
    """``copy_`` from one to the other, into a tensor that is there."""
    _across(k, input, expanded(k, src, input.shape), to_card=device == "card", non_blocking=non_blocking)
    return input


def _across(k: Tape, out: Tensor, source: Tensor, *, to_card: bool, non_blocking: bool) -> None:
    """What a copy needs of the card besides both tensors."""
    cast = out.dtype != source.dtype
    if not cast and (out.numel == 1 or (out.strides == source.strides and is_non_overlapping_and_dense(out.shape, out.strides))):
        return
    if to_card:
        dense = out.is_contiguous and not (cast and non_blocking)
        k.free(None if dense else k.empty(out.shape, source.dtype if non_blocking else out.dtype))
        return
    given = source
    if cast and non_blocking:
        source = k.empty(given.shape, out.dtype, copying.formatted_strides(given, "preserve_format"))
    dense_source = contiguous(k, source)
    k.free(None if source is given else source, None if dense_source is source else dense_source)


def _between(row: Composite, forward: Callable[..., Tensor]) -> Operator:
    """The row of a call that on the CPU is other calls."""
    return Operator(
        name=row.name,
        torch=row.torch,
        roles=row.roles,
        attributes=row.attributes,
        forward=forward,
        saves=(),
        backward=None,
        examples=row.examples,
        facts=row.facts,
        source=row.source,
        oracle=row.oracle,
    )


ROLL = "aten/src/ATen/native/cuda/TensorTransformations.cu (roll_cuda)"
ROWS: tuple[Operator, ...] = (
    replace(FAMILY["roll"], forward=_roll, backward=_roll_backward, source=ROLL),
    _between(copying.TO_DEVICE, _to_device),
    _between(copying.COPY_ACROSS, _copy_across),
)
SAME = (
    "clone",
    "_to_copy",
    "cat",
    "stack",
    "repeat",
    "flip",
)
