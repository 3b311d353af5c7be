"""What cuDNN takes where nobody can be asked: a model, with its range.

Kernels for tensor cores read channels innermost, in whole vectors of 16 bytes. Tensors that lie otherwise are copied into the workspace
first, their channels filled up, and the result is copied back from there: contiguous operands are copied all three, channels_last ones
where their channels do not fill vectors. The weight's gradient is summed in parts where there are few of its elements. Kernels without
tensor cores read contiguous tensors as they lie.
"""

from __future__ import annotations

from math import prod

from memest.libraries.cudnn.question import Convolution
from memest.libraries.cudnn.workspace import Card, Workspace
from memest.network.dtypes import HALVES, ITEMSIZE

_VECTOR_BYTES = 16


def modelled(card: Card, question: Convolution) -> Workspace:
    """Low, expected and high workspace."""
    x, w, y = _filled(question)
    total = x + w + y
    if question.dtype == "float64":
        return Workspace(bytes=0, low=0, high=total, source="rule")
    if not _has_tensor_cores(card, question):
        expected = total if question.channels_last and question.direction == "bwd_data" else 0
        return Workspace(bytes=expected, low=0, high=2 * total, source="rule")
    if not question.channels_last:
        return Workspace(bytes=total, low=0, high=2 * total, source="rule")
    copied = sum(filled for filled, plain in zip((x, w, y), question.nbytes, strict=True) if filled != plain)
    return Workspace(bytes=copied, low=0, high=2 * total, source="rule")


def _has_tensor_cores(card: Card, question: Convolution) -> bool:
    if question.dtype in HALVES:
        return card.capability >= (7, 0)
    return question.tf32 and card.capability >= (8, 0)


def _filled(question: Convolution) -> tuple[int, int, int]:
    """Bytes of x, w and y with the channels of each group filled up to whole vectors."""
    size = ITEMSIZE[question.dtype]
    unit = _VECTOR_BYTES // size
    groups = question.groups
    ins = -(-question.w[1] // unit) * unit
    outs = -(-(question.w[0] // groups) // unit) * unit
    x = question.x[0] * groups * ins * prod(question.x[2:])
    w = groups * outs * ins * prod(question.w[2:])
    y = question.y[0] * groups * outs * prod(question.y[2:])
    return x * size, w * size, y * size
