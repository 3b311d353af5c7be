"""The least and the greatest at once, of all elements or along a dim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.errors import UnsupportedError
from memest.ops.aten.copies import contiguous
from memest.ops.aten.iterator import elementwise_
from memest.ops.aten.places import refuse_on_cuda
from memest.ops.aten.selecting import shared_by_count
from memest.ops.aten.views import reduction_shape
from memest.ops.facts import ALONG_DIM_FACTS
from memest.ops.operator import flag, integer, optional
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, attribute, calls, row

DERIVED_SINCE = (2, 13)
"""torch 2.11 has no gradient of aminmax, 2.13 has one."""


def _aminmax(k: Tape, input: Tensor, *, dim: int | None, keepdim: bool) -> tuple[Tensor, Tensor]:
    """Of all: read row by row."""
    refuse_on_cuda(k)
    if dim is not None and not input.ndim and k.grad_enabled:
        raise UnsupportedError("the gradient of aminmax along a dim of a number has no rule: leave dim out")
    derived = k.target.version >= DERIVED_SINCE
    k.save(input=input if derived else None)
    shape = reduction_shape(input, dim, keepdim)
    least, most = k.empty(shape, input.dtype), k.empty(shape, input.dtype)
    if dim is None:
        copy = contiguous(k, input)
        k.free(None if copy is input else copy)
    if derived:
        k.save(min=least, max=most)
    return least, most


def _aminmax_backward(
    k: Tape, saved: dict[str, Any], grads: Sequence[Tensor | None], *, dim: int | None, keepdim: bool
) -> list[Tensor | None]:
    """aminmax_backward: each is shared out among those that equal it, the second added to the first."""
    if k.target.version < DERIVED_SINCE:
        raise UnsupportedError("torch before 2.13 has no gradient of aminmax, or none that was seen: torch.amin and torch.amax have")
    out: Tensor | None = None
    for grad, name in zip(grads, ("min", "max"), strict=True):
        if grad is not None:
            share = shared_by_count(k, grad, saved[name], saved["input"], dim, keepdim)
            out = share if out is None else elementwise_(k, out, share)
            k.free(None if out is share else share)
    return [out]


BCHW = (2, 3, 4, 5)
ROWS = (
    row(
        "aminmax",
        _aminmax,
        _aminmax_backward,
        (attribute("dim", None, optional(integer)), attribute("keepdim", False, flag)),
        (
            *calls((BCHW, {}), (BCHW, {"dim": 1}), (BCHW, {"dim": -1, "keepdim": True}), ((8, 16, 16, 17), {})),
            *calls((BCHW, {}), (BCHW, {"dim": 1}), layout="channels_last"),
        ),
        f"{DERIVED}/TensorCompare.cpp",
        facts=ALONG_DIM_FACTS,
        saves=("input", "min", "max"),
    ),
)
COMPOSITE_ROWS = ()
