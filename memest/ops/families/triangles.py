"""Triangles of matrices, and matrices made of two vectors.

Sources: aten/src/ATen/native/TriangularOps.cpp, LinearAlgebra.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.errors import ShapeError
from memest.network.tensor import is_contiguous
from memest.ops.aten.iterator import incoming
from memest.ops.composite import Caller, refuse_on_cuda
from memest.ops.facts import EVERYWHERE_CALLS, EVERYWHERE_FACTS
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, NATIVE, attribute, calls, composite, row


def _triangle(k: Tape, input: Tensor, *, diagonal: int) -> Tensor:
    """A contiguous tensor; matrices whose elements do not lie side by side are copied first."""
    if input.ndim < 2:
        raise ShapeError(f"a triangle of a tensor of shape {list(input.shape)}: it needs matrices")
    out = k.empty(input.shape, input.dtype)
    if not is_contiguous(input.shape, input.strides):
        k.free(k.empty(input.shape, input.dtype))
    return out


def _triangle_backward(k: Tape, saved: dict[str, Any], grads: Sequence[Tensor | None], *, diagonal: int) -> list[Tensor | None]:
    return [_triangle(k, incoming(grads), diagonal=diagonal)]


def _outer(c: Caller, input: Any, vec2: Any) -> Any:
    """``self.reshape({n, 1}) * vec2``."""
    refuse_on_cuda(c, "outer")
    if len(input.shape) != 1 or len(vec2.shape) != 1:
        raise ShapeError(f"outer takes two vectors, got shapes {list(input.shape)} and {list(vec2.shape)}")
    column = c.call("reshape", input, shape=(input.shape[0], 1))
    made = c.call("mul", column, vec2)
    c.drop(column)
    return made


ROWS = tuple(
    row(
        name,
        _triangle,
        _triangle_backward,
        (attribute("diagonal", 0),),
        calls(((3, 4), {}), ((2, 3, 4, 5), {"diagonal": 1}), ((4, 4), {"diagonal": -1})),
        f"{DERIVED}/TriangularOps.cpp",
        facts=EVERYWHERE_FACTS,
    )
    for name in ("tril", "triu")
)
COMPOSITE_ROWS = (
    composite(
        "outer",
        _outer,
        (),
        calls((((3,), (4,)), {})),
        f"{NATIVE}/LinearAlgebra.cpp",
        facts=EVERYWHERE_CALLS,
        roles=("input", "vec2"),
    ),
)
