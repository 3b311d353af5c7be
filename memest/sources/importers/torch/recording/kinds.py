"""Calls of one kind: where the sizes that a row gives follow from what it is, torch is asked once for all sizes.

That is so where the result has the sizes of what is read (the row works element by element, or takes statistics off), and where they are
sums and windows of those. What torch is asked is whether it sees that so, and in which dtype. Tensors that are not laid out in torch's own
order, are broadcast or empty are of no kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from memest.network.tensor import contiguous_strides
from memest.ops.composite import Composite
from memest.ops.facts import POINTWISE
from memest.ops.operator import Operator

ALONG = {"batch_norm": 1, "layer_norm": -1}
"""Rows whose other tensors lie along one dim of the first, and which one that is."""
BY_ARITHMETIC = frozenset({"linear", "conv1d", "conv2d", "conv3d", "roll", "cat"})
"""Rows whose result has other sizes than what they read, all of which they say; dims of one element, which torch may take for any layout,
are apart."""


def kind_of(row: Operator | Composite, tensors: Sequence[torch.Tensor]) -> tuple[Any, ...] | None:
    """What the tensors of a call are, whatever their sizes; None where the call is of no kind."""
    if not tensors:
        return None
    if row.name in BY_ARITHMETIC:
        return _by_arithmetic(row.name, tensors)
    shape: tuple[int, ...] = tuple(tensors[0].shape)
    along = ALONG.get(row.name)
    if len(shape) < 2 or (along is None and (isinstance(row, Composite) or row.facts.reach is not POINTWISE)):
        return None
    others = shape if along is None else (shape[along],)
    for i, t in enumerate(tensors):
        sizes = tuple(t.shape)
        if sizes != (others if i else shape) or t.stride() != contiguous_strides(sizes):
            return None
    return (row.name, len(shape), 0 in shape, shape[-1] if along == -1 else None, *[t.dtype for t in tensors])


def _by_arithmetic(name: str, tensors: Sequence[torch.Tensor]) -> tuple[Any, ...] | None:
    kind: list[Any] = [name]
    for t in tensors:
        sizes = tuple(t.shape)
        if 0 in sizes or t.stride() != contiguous_strides(sizes):
            return None
        kind += (t.dtype, tuple([n == 1 for n in sizes]))
    return tuple(kind)
