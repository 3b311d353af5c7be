"""Padding on CUDA: borders are read from contiguous copies where they are reflected, by strides where they are repeated; results are
contiguous whatever the input is.

Sources: aten/src/ATen/native/cuda/ReflectionPad.cu, ReplicationPadding.cu.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from memest.network.tensor import Shape
from memest.ops.aten.iterator import incoming
from memest.ops.families.padding import ROWS as ON_CPU
from memest.ops.families.padding import check_sizes, padded_shape
from memest.ops.operator import Operator
from memest.ops.tape import Tape, Tensor
from memest.runtimes.torch.cuda.copies import passing


def _border_pad(k: Tape, input: Tensor, *, pad: Shape, mode: str) -> Tensor:
    check_sizes(input, pad, mode)
    k.save(input=input)
    out = k.empty(padded_shape(input.shape, pad), input.dtype)
    if mode == "reflect":
        passing(k, input)
    return out


def _border_pad_backward(k: Tape, saved: dict[str, Any], grads: Sequence[Tensor | None], *, pad: Shape, mode: str) -> list[Tensor | None]:
    grad = incoming(grads)
    out = k.empty(saved["input"].shape, grad.dtype)
    if mode == "reflect" and len(pad) < 6:
        passing(k, grad)
    return [out]


(BORDER,) = (row for row in ON_CPU if row.name == "_border_pad")
ROWS: tuple[Operator, ...] = (
    replace(
        BORDER,
        forward=_border_pad,
        backward=_border_pad_backward,
        source="derivatives.yaml: reflection_pad1d, …; aten/src/ATen/native/cuda/ReflectionPad.cu, ReplicationPadding.cu",
    ),
)
SAME = ("_constant_pad",)
