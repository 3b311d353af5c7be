"""Numbers drawn in a shape or by the probabilities of a tensor: orders, and tosses of coins, and counts of events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.ops.aten.iterator import empty_like, incoming
from memest.ops.facts import POINTWISE_FACTS
from memest.ops.operator import Example
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, row

Grads = Sequence[Tensor | None]


def _drawn(k: Tape, input: Tensor) -> Tensor:
    return k.empty(input.shape, input.dtype)


def _drawn_backward(k: Tape, saved: dict[str, Any], grads: Grads) -> list[Tensor | None]:
    return [empty_like(k, incoming(grads))]


ROWS = tuple(
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
COMPOSITE_ROWS = ()
