"""Whether numbers are finite: masks made by comparing a tensor with itself and with infinity.

Source: aten/src/ATen/native/TensorCompare.cpp (``isfinite``, ``isnan``, ``isinf``).
"""

from __future__ import annotations

from typing import Any

from memest.network.dtypes import FLOATING
from memest.ops.composite import Caller, refuse_on_cuda
from memest.ops.facts import POINTWISE_CALLS
from memest.ops.operator import Example
from memest.ops.writing import NATIVE, calls, composite

INFINITY = float("inf")


def _isnan(c: Caller, input: Any) -> Any:
    refuse_on_cuda(c, "isnan")
    return c.call("ne", input, input)


def _isinf(c: Caller, input: Any) -> Any:
    """Below autograd, which sees ``isfinite``'s calls."""
    refuse_on_cuda(c, "isinf")
    if input.spec.dtype not in FLOATING:
        return c.call("zeros_like", input, dtype="bool")
    plain = c.call("detach", input)
    size = c.call("abs", plain)
    found = c.call("eq", size, None, value=INFINITY)
    c.drop(size, plain)
    return found


def _isfinite(c: Caller, input: Any) -> Any:
    """``(self == self) * (self.abs() != inf)``; what it makes on the way goes when the product is there."""
    refuse_on_cuda(c, "isfinite")
    if input.spec.dtype not in FLOATING:
        return c.call("ones_like", input, dtype="bool")
    size = c.call("abs", input)
    small = c.call("ne", size, None, value=INFINITY)
    number = c.call("eq", input, input)
    found = c.call("mul", number, small)
    c.drop(number, small, size)
    return found


EXAMPLES = (*calls(((3, 4), {}), ((2, 3, 4, 5), {})), Example(shapes=((3, 4),), attributes={}, dtypes=("int64",)))
ROWS = ()
COMPOSITE_ROWS = tuple(
    composite(name, compose, (), EXAMPLES, f"{NATIVE}/TensorCompare.cpp", facts=POINTWISE_CALLS)
    for name, compose in (("isnan", _isnan), ("isinf", _isinf), ("isfinite", _isfinite))
)
