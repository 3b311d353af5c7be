"""Numbers drawn in a shape or by the probabilities of a tensor: orders, and tosses of coins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.network.dtypes import check_dtype
from memest.ops.aten.iterator import empty_like, incoming, on_host
from memest.ops.facts import EVERYWHERE_FACTS, POINTWISE_FACTS
from memest.ops.operator import Example
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, NATIVE, attribute, row

Grads = Sequence[Tensor | None]


def _randperm(k: Tape, *, n: int, dtype: str) -> Tensor:
    """Whether the dtype holds ``n`` is asked of a number."""
    out = k.empty((n,), dtype)
    k.free(on_host(k, (), dtype))
    return out


def _bernoulli(k: Tape, input: Tensor) -> Tensor:
    return k.empty(input.shape, input.dtype)


def _bernoulli_backward(k: Tape, saved: dict[str, Any], grads: Grads) -> list[Tensor | None]:
    return [empty_like(k, incoming(grads))]


ROWS = (
    row(
        "randperm",
        _randperm,
        None,
        (attribute("n"), attribute("dtype", "int64", check_dtype)),
        (Example(shapes=(), attributes={"n": 7}), Example(shapes=(), attributes={"n": 7, "dtype": "int32"})),
        f"{NATIVE}/TensorFactories.cpp",
        roles=(),
        facts=EVERYWHERE_FACTS,
    ),
    row(
        "bernoulli",
        _bernoulli,
        _bernoulli_backward,
        (),
        (Example(shapes=((3, 4),), attributes={}), Example(shapes=((3, 4),), attributes={}, layout="transposed")),
        f"{DERIVED}/Distributions.cpp",
        facts=POINTWISE_FACTS,
    ),
)
COMPOSITE_ROWS = ()
