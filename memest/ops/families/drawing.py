"""Numbers drawn in a shape or by the probabilities of a tensor: orders, and tosses of coins, and counts of events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.errors import ShapeError
from memest.ops.aten.copies import contiguous
from memest.ops.aten.iterator import broadcast_shape, empty_like, incoming, with_number
from memest.ops.aten.places import refuse_on_cuda
from memest.ops.facts import POINTWISE_FACTS
from memest.ops.operator import Example, number, optional
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, attribute, row

Grads = Sequence[Tensor | None]


def _drawn(k: Tape, input: Tensor) -> Tensor:
    return k.empty(input.shape, input.dtype)


def _drawn_backward(k: Tape, saved: dict[str, Any], grads: Grads) -> list[Tensor | None]:
    return [empty_like(k, incoming(grads))]


def _normal(k: Tape, mean: Tensor | None, std: Tensor | None, *, mean_value: float | None, std_value: float | None) -> Tensor:
    """By a tensor of means, of deviations (whose least is asked for twice) or of both; a number stands for the other."""
    refuse_on_cuda(k)
    k.note(shapes=tuple(None if t is None else t.shape for t in (mean, std)))
    if std is None:
        if mean is None:
            raise ShapeError("normal takes a tensor of means, of deviations, or both")
        out = k.empty(mean.shape, mean.dtype)
        k.free(k.empty(mean.shape, mean.dtype))
        return out
    _check_deviations(k, std)
    out = k.empty(std.shape if mean is None else broadcast_shape(mean, std), std.dtype)
    _check_deviations(k, std)
    if mean is None:
        k.free(k.empty((), std.dtype))
    return out


def _check_deviations(k: Tape, std: Tensor) -> None:
    """``std.min().ge(0)``."""
    least = k.empty((), std.dtype)
    copy = contiguous(k, std)
    k.free(None if copy is std else copy)
    k.free(with_number(k, least, 0, "bool"), least)


def _normal_backward(k: Tape, saved: dict[str, Any], grads: Grads, **attributes: Any) -> list[Tensor | None]:
    """Zeros."""
    wanted = iter(k.needs)
    return [k.empty(shape, incoming(grads).dtype) if next(wanted) else None for shape in saved["shapes"] if shape is not None]


COINS = tuple(
    row(
        name,
        _drawn,
        _drawn_backward,
        (),
        (Example(shapes=((3, 4),), attributes={}), Example(shapes=((3, 4),), attributes={}, layout="transposed")),
        f"{DERIVED}/Distributions.cpp",
        facts=POINTWISE_FACTS,
    )
    for name in ("bernoulli", "poisson")
)
ROWS = (
    *COINS,
    row(
        "normal",
        _normal,
        _normal_backward,
        (attribute("mean_value", None, optional(number)), attribute("std_value", None, optional(number))),
        (
            Example(shapes=((3, 4), None), attributes={"std_value": 1.0}),
            Example(shapes=((3, 4), (3, 4)), attributes={}),
            Example(shapes=(None, (3, 4)), attributes={"mean_value": 0.0}),
            Example(shapes=((3, 4), (3, 4)), attributes={}, layout="transposed"),
            Example(shapes=((3, 4), None), attributes={"std_value": 0.5}, layout="transposed"),
        ),
        f"{DERIVED}/DistributionTemplates.h",
        roles=("mean?", "std?"),
        facts=POINTWISE_FACTS,
        oracle="normal",
    ),
)
COMPOSITE_ROWS = ()
