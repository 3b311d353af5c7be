"""Copies on CUDA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from memest.network.tensor import Shape
from memest.ops.aten.copies import contiguous
from memest.ops.aten.iterator import incoming
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


ROLL = "aten/src/ATen/native/cuda/TensorTransformations.cu (roll_cuda)"
ROWS: tuple[Operator, ...] = (replace(FAMILY["roll"], forward=_roll, backward=_roll_backward, source=ROLL),)
SAME = (
    "clone",
    "_to_copy",
    "cat",
    "stack",
    "repeat",
    "flip",
)
