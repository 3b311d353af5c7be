"""Whether numbers are finite: masks made by comparing a tensor with itself and with infinity.

Source: aten/src/ATen/native/TensorCompare.cpp (``isfinite``, ``isnan``, ``isinf``, ``isclose``).
"""

from __future__ import annotations

from typing import Any

from memest.errors import UnsupportedError
from memest.network.dtypes import FLOATING
from memest.ops.composite import Caller, refuse_on_cuda
from memest.ops.facts import POINTWISE_CALLS
from memest.ops.operator import Example, flag, number
from memest.ops.writing import NATIVE, attribute, calls, composite

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


def _isclose(c: Caller, input: Any, other: Any, *, rtol: float, atol: float, equal_nan: bool) -> Any:
    """Equal, or no farther apart than ``atol + rtol * abs(other)`` and by a finite number; each line is a statement of torch's, at whose
    end dies what it made on the way."""
    refuse_on_cuda(c, "isclose")
    if equal_nan or not (rtol and atol and input.spec.dtype in FLOATING and other.spec.dtype in FLOATING):
        raise UnsupportedError("isclose of whole numbers, with a tolerance of 0 or equal_nan has no rule; compare abs(x - y) with a number")
    close = c.call("eq", input, other)
    scaled = c.call("mul.Scalar", other, value=rtol)
    size = c.call("abs", scaled)
    allowed = c.call("add", size, None, value=atol)
    c.drop(size, scaled)
    difference = c.call("sub", input, other)
    apart = c.call("abs", difference)
    c.drop(difference)
    finite = c.call("isfinite", apart)
    near = c.call("le", apart, allowed)
    c.call("logical_and", finite, near, inplace=True)
    c.call("logical_or", close, finite, inplace=True)
    c.drop(near, finite, apart, allowed)
    return close


EXAMPLES = (*calls(((3, 4), {}), ((2, 3, 4, 5), {})), Example(shapes=((3, 4),), attributes={}, dtypes=("int64",)))
ROWS = ()
COMPOSITE_ROWS = (
    *[
        composite(name, compose, (), EXAMPLES, f"{NATIVE}/TensorCompare.cpp", facts=POINTWISE_CALLS)
        for name, compose in (("isnan", _isnan), ("isinf", _isinf), ("isfinite", _isfinite))
    ],
    composite(
        "isclose",
        _isclose,
        (attribute("rtol", 1e-5, number), attribute("atol", 1e-8, number), attribute("equal_nan", False, flag)),
        (Example(shapes=((3, 4), (3, 4)), attributes={}), Example(shapes=((2, 3, 4), (3, 1)), attributes={"rtol": 0.1})),
        f"{NATIVE}/TensorCompare.cpp",
        facts=POINTWISE_CALLS,
        roles=("input", "other"),
    ),
)
