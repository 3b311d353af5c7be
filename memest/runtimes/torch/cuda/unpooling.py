"""Max unpooling on CUDA: as on the CPU, but what is read lies contiguous, and so does the result.

From torch 2.14 on the gradient is gathered from a view where one can be had.

Sources: aten/src/ATen/native/cuda/MaxUnpooling.cu, torch/csrc/autograd/FunctionsManual.cpp (``max_pool_double_backward``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

from memest.network.tensor import Shape
from memest.ops.aten.copies import contiguous
from memest.ops.aten.iterator import incoming
from memest.ops.aten.views import reshaped
from memest.ops.families.unpooling import ROWS as ON_CPU
from memest.ops.families.unpooling import check_unpool
from memest.ops.operator import Operator
from memest.ops.tape import Tape, Tensor
from memest.runtimes.torch.cuda.copies import release

VIEWS_SINCE = (2, 14)


def _max_unpool(k: Tape, input: Tensor, indices: Tensor, *, output_size: Shape) -> Tensor:
    check_unpool(input, indices, output_size)
    k.save(indices=indices)
    pairs = [(contiguous(k, t), t) for t in (input, indices)]
    out = k.empty((*input.shape[: input.ndim - len(output_size)], *output_size), input.dtype)
    release(k, *reversed(pairs))
    return out


def _max_unpool_backward(k: Tape, saved: dict[str, Any], grads: Sequence[Tensor | None], *, output_size: Shape) -> list[Tensor | None]:
    grad, indices = incoming(grads), saved["indices"]
    lead = indices.shape[: indices.ndim - len(output_size)]
    read = reshaped(k, grad, (*lead, prod(output_size))) if k.target.version >= VIEWS_SINCE else contiguous(k, grad)
    out = k.empty(indices.shape, grad.dtype)
    release(k, (read, grad))
    return [out, None]


(UNPOOL,) = ON_CPU
ROWS: tuple[Operator, ...] = (
    replace(
        UNPOOL,
        forward=_max_unpool,
        backward=_max_unpool_backward,
        source="derivatives.yaml: max_unpool2d, max_unpool3d; aten/src/ATen/native/cuda/MaxUnpooling.cu",
    ),
)
SAME: tuple[str, ...] = ()
