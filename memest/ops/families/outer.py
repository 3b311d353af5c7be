"""Matrices made of two vectors.

Source: aten/src/ATen/native/LinearAlgebra.cpp.
"""

from __future__ import annotations

from typing import Any

from memest.errors import ShapeError
from memest.ops.composite import Caller, refuse_on_cuda
from memest.ops.facts import EVERYWHERE_CALLS
from memest.ops.writing import NATIVE, calls, composite


def _outer(c: Caller, input: Any, vec2: Any) -> Any:
    """``self.reshape({n, 1}) * vec2``."""
    refuse_on_cuda(c, "outer")
    if len(input.shape) != 1 or len(vec2.shape) != 1:
        raise ShapeError(f"outer takes two vectors, got shapes {list(input.shape)} and {list(vec2.shape)}")
    column = c.call("reshape", input, shape=(input.shape[0], 1))
    made = c.call("mul", column, vec2)
    c.drop(column)
    return made


ROWS = ()
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
