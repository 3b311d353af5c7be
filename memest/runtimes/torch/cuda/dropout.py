"""Dropout on CUDA: the fused kernel draws a mask of a byte an element before it makes the output. In place, for whole channels, and where
nothing or everything is dropped, it is the composition of the CPU.

Sources: aten/src/ATen/native/Dropout.cpp (``is_fused_kernel_acceptable``), cuda/Dropout.cu.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from memest.ops.aten.copies import suggests_channels_last
from memest.ops.aten.iterator import empty_like, incoming
from memest.ops.families.dropout import ROWS as ON_CPU
from memest.ops.operator import Operator
from memest.ops.tape import Tape, Tensor
from memest.runtimes.torch.cuda.copies import formatted

(ON_CPU_DROPOUT,) = (row for row in ON_CPU if row.name == "dropout")


def _dropout(k: Tape, input: Tensor, *, p: float, training: bool, inplace: bool) -> Any:
    fused = training and 0 < p < 1 and not inplace and bool(input.numel)
    k.note(fused=fused)
    if not fused:
        return ON_CPU_DROPOUT.forward(k, input, p=p, training=training, inplace=inplace)
    mask = empty_like(k, input, "bool")
    out = empty_like(k, input)
    k.save(mask=mask)
    return out


def _dropout_backward(k: Tape, saved: dict[str, Any], grads: list[Tensor | None], **attributes: Any) -> Any:
    if not saved["fused"]:
        assert ON_CPU_DROPOUT.backward is not None
        return ON_CPU_DROPOUT.backward(k, saved, grads, **attributes)
    grad = incoming(grads)
    return [formatted(k, grad.shape, grad.dtype, suggests_channels_last(grad))]


ROWS: tuple[Operator, ...] = (
    replace(
        ON_CPU_DROPOUT,
        forward=_dropout,
        backward=_dropout_backward,
        source="derivatives.yaml: native_dropout; aten/src/ATen/native/Dropout.cpp, cuda/Dropout.cu",
    ),
)
SAME = (
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "alpha_dropout",
    "feature_alpha_dropout",
)
