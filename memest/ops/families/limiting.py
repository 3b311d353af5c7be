"""Clamping between tensors: an element outside gives its gradient to the limit that it met."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.ops.aten.copies import original
from memest.ops.aten.iterator import broadcast_shape, elementwise, elementwise_, incoming, wants, where
from memest.ops.aten.places import refuse_on_cuda
from memest.ops.facts import BY_METHOD, POINTWISE_FACTS
from memest.ops.operator import Example, flag
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, attribute, row

SHARED_SINCE = (2, 14)
"""From this version on what meets a limit shares its gradient with it, by another formula."""


def _clamp(k: Tape, input: Tensor, min: Tensor | None, max: Tensor | None, *, inplace: bool) -> Tensor:
    refuse_on_cuda(k)
    if k.grad_enabled and k.target.version >= SHARED_SINCE:
        raise UnsupportedError("the gradient of clamp between tensors is not modelled for torch 2.14; torch.maximum and torch.minimum are")
    limits = [t for t in (min, max) if t is not None]
    if not limits:
        raise ShapeError("needs min, max or both")
    if inplace and broadcast_shape(input, *limits) != input.shape:
        raise ShapeError(f"limits of shapes {[list(t.shape) for t in limits]} do not fit in place onto {list(input.shape)}")
    k.save(max=max, min=min)
    k.save(input=original(k, input, inplace))
    return elementwise_(k, input, *limits) if inplace else elementwise(k, input, *limits)


def _clamp_backward(k: Tape, saved: dict[str, Any], grads: Sequence[Tensor | None], *, inplace: bool) -> list[Tensor | None]:
    """The limits first: where(self < min && min < max, grad, 0), where(self > max || max < min, grad, 0); then the input: where(self >= min
    && self <= max, grad, 0)."""
    grad, input = incoming(grads), saved["input"]
    limits = [saved[name] for name in ("min", "max") if name in saved]
    out: list[Tensor | None] = [None] * (1 + len(limits))

    def chosen(*pairs: tuple[Tensor, Tensor]) -> Tensor:
        masks = [elementwise(k, a, b, dtype="bool") for a, b in pairs]
        made = where(k, masks[0], grad, zero)
        k.free(*reversed(masks))
        return made

    if any(wants(k, at) for at in range(1, len(out))):
        zero = k.empty((), grad.dtype)
        for at, limit in enumerate(limits, 1):
            if wants(k, at):
                others = [(limits[0], limits[1])] if len(limits) == 2 else []
                out[at] = chosen((input, limit), *others)
        k.free(zero)
    if k.needs[0]:
        zero = k.empty((), grad.dtype)
        out[0] = chosen(*((input, limit) for limit in limits))
        k.free(zero)
    return out


BCHW = (2, 3, 4, 5)
ROWS = (
    row(
        "clamp.Tensor",
        _clamp,
        _clamp_backward,
        (attribute("inplace", False, flag),),
        (
            Example(shapes=(BCHW, (5,), None), attributes={}),
            Example(shapes=(BCHW, (5,), (4, 5)), attributes={}),
            Example(shapes=(BCHW, None, ()), attributes={}),
            Example(shapes=(BCHW, BCHW, BCHW), attributes={}, layout="channels_last"),
            Example(shapes=(BCHW, BCHW, (3, 1, 1)), attributes={}, frozen=(1,)),
            Example(shapes=(BCHW, (5,), BCHW), attributes={"inplace": True}, frozen=(1, 2)),
        ),
        f"{DERIVED}/TensorCompare.cpp",
        roles=("input", "min?", "max?"),
        facts=POINTWISE_FACTS.but(overwrites=BY_METHOD),
        saves=("input", "min", "max"),
        torch="torch.clamp",
        oracle="clamp",
    ),
)
COMPOSITE_ROWS = ()
