"""Clamping between tensors: an element outside gives its gradient to the limit that it met."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.errors import ShapeError
from memest.ops.aten.copies import original
from memest.ops.aten.iterator import broadcast_shape, elementwise, elementwise_, incoming, wants, where, with_number
from memest.ops.aten.places import refuse_on_cuda
from memest.ops.facts import BY_METHOD, POINTWISE_FACTS
from memest.ops.operator import Example, flag
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, attribute, row

SHARED_SINCE = (2, 14)
"""From this version on what meets a limit shares its gradient with it, by another formula."""


def _clamp(k: Tape, input: Tensor, min: Tensor | None, max: Tensor | None, *, inplace: bool) -> Tensor:
    refuse_on_cuda(k)
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
    if k.target.version >= SHARED_SINCE:
        return _shared(k, grad, input, limits)
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


def _mask(k: Tape, *tensors: Tensor) -> Tensor:
    """A comparison, or what two masks say together."""
    return elementwise(k, *tensors, dtype="bool")


def _halved(k: Tape, grad: Tensor, *meets: tuple[Tensor, Tensor], where_too: Tensor | None = None) -> Tensor:
    """where(an operand meets the other, grad / 2, grad), of which the rest is set to 0 in place."""
    half = with_number(k, grad, 2)
    met = [_mask(k, *operands) for operands in meets]
    both = met[-1] if where_too is None else _mask(k, met[-1], where_too)
    out = where(k, both, half, grad)
    k.free(both, *met, half)
    return out


def _shared(k: Tape, grad: Tensor, input: Tensor, limits: list[Tensor]) -> list[Tensor | None]:
    """What meets a limit gives it half of its gradient; the limits first."""
    out: list[Tensor | None] = [None] * (1 + len(limits))
    if len(limits) == 1:
        for at in (1, 0):
            if wants(k, at):
                outside = _mask(k, input, limits[0])
                out[at] = _halved(k, grad, (input, limits[0]))
                k.free(outside)
        return out
    low, high = limits
    if wants(k, 1) or wants(k, 2):
        apart, equal = _mask(k, low, high), _mask(k, low, high)
        if wants(k, 1):
            out[1] = _of_low(k, grad, input, low, apart, equal)
        if wants(k, 2):
            crossed = _mask(k, low, high)
            out[2] = _of_high(k, grad, input, high, apart, equal, crossed)
            k.free(crossed)
        k.free(equal, apart)
    if k.needs[0]:
        out[0] = _of_input(k, grad, input, low, high)
    return out


def _of_low(k: Tape, grad: Tensor, input: Tensor, low: Tensor, apart: Tensor, equal: Tensor) -> Tensor:
    """(apart && self <= min) || (equal && self < min)."""
    under = _mask(k, input, low)
    one = _mask(k, apart, under)
    below = _mask(k, input, low)
    other = _mask(k, equal, below)
    limited = _mask(k, one, other)
    k.free(other, below, one, under)
    rest = _mask(k, limited)
    out = _halved(k, grad, (input, low))
    k.free(rest, limited)
    return out


def _of_high(k: Tape, grad: Tensor, input: Tensor, high: Tensor, apart: Tensor, equal: Tensor, crossed: Tensor) -> Tensor:
    """max < min || (apart && self >= max) || (equal && self > max)."""
    over = _mask(k, input, high)
    one = _mask(k, apart, over)
    first = _mask(k, crossed, one)
    above = _mask(k, input, high)
    other = _mask(k, equal, above)
    limited = _mask(k, first, other)
    k.free(other, above, first, one, over)
    rest = _mask(k, limited)
    out = _halved(k, grad, (input, high), where_too=apart)
    k.free(rest, limited)
    return out


def _of_input(k: Tape, grad: Tensor, input: Tensor, low: Tensor, high: Tensor) -> Tensor:
    apart = _mask(k, low, high)
    at_low, at_high = _mask(k, input, low), _mask(k, input, high)
    either = _mask(k, at_low, at_high)
    limited = _mask(k, either, apart)
    k.free(either, at_high, at_low)
    below, above = _mask(k, input, low), _mask(k, input, high)
    outside = _mask(k, below, above)
    k.free(above, below)
    half = with_number(k, grad, 2)
    out = where(k, limited, half, grad)
    k.free(half, outside, limited, apart)
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
