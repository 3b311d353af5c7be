"""Calls of one kind: where a row gives a tensor of the sizes that it reads, torch is asked once for all sizes.

That the result has those sizes follows from what the row is (it works element by element, or takes statistics off); what torch is asked is
whether it sees that so, and in which dtype. Tensors that are not laid out in torch's own order, or are broadcast, are of no kind.
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


def kind_of(row: Operator | Composite, tensors: Sequence[torch.Tensor]) -> tuple[Any, ...] | None:
    """What the tensors of a call are to the first one, whose sizes the result has; None where the call is of no kind."""
    if not tensors or tensors[0].ndim < 2:
        return None
    shape: tuple[int, ...] = tuple(tensors[0].shape)
    along = ALONG.get(row.name)
    if along is None and (isinstance(row, Composite) or row.facts.reach is not POINTWISE):
        return None
    others = shape if along is None else (shape[along],)
    for i, t in enumerate(tensors):
        sizes = tuple(t.shape)
        if sizes != (others if i else shape) or t.stride() != contiguous_strides(sizes):
            return None
    return (row.name, len(shape), 0 in shape, shape[-1] if along == -1 else None, *[t.dtype for t in tensors])
