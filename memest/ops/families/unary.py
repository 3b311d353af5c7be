"""Functions of one tensor, element by element. What each keeps for backward, and how its gradient is computed, stands in one table."""

from __future__ import annotations

from memest.ops.aten.iterator import elementwise, empty_like, with_number
from memest.ops.aten.unary import Formula, Unary, unary_row
from memest.ops.tape import Tape, Tensor


def _zeros(k: Tape, grad: Tensor, kept: Tensor) -> Tensor:
    return empty_like(k, grad)


def _one(k: Tape, grad: Tensor, kept: Tensor) -> Tensor:
    """One kernel over the gradient and what was kept (nothing kept: over the gradient)."""
    return elementwise(k, grad) if kept is grad else elementwise(k, grad, kept)


def _product_with(k: Tape, grad: Tensor, kept: Tensor) -> Tensor:
    """grad * f(self)."""
    return elementwise(k, grad, elementwise(k, kept))


def _product_with_negated(k: Tape, grad: Tensor, kept: Tensor) -> Tensor:
    """grad * -f(self)."""
    return elementwise(k, grad, elementwise(k, elementwise(k, kept)))


def _by_number(number: float) -> Formula:
    """grad combined with what was kept, combined with a number (an int and a float reach float64 tensors differently)."""

    def gradient(k: Tape, grad: Tensor, kept: Tensor) -> Tensor:
        return elementwise(k, grad, with_number(k, kept, number))

    return gradient


def _reciprocal(k: Tape, grad: Tensor, kept: Tensor) -> Tensor:
    """-grad * (result * result)."""
    square = elementwise(k, kept, kept)
    return elementwise(k, elementwise(k, grad), square)


def _rsqrt(k: Tape, grad: Tensor, kept: Tensor) -> Tensor:
    """-0.5 * grad * result ** 3."""
    cube = elementwise(k, kept)
    return elementwise(k, with_number(k, grad, -0.5), cube)


def _erf(k: Tape, grad: Tensor, kept: Tensor) -> Tensor:
    """2 / sqrt(pi) * exp(-(self ** 2)) * grad."""
    bell = elementwise(k, elementwise(k, elementwise(k, kept)))
    return elementwise(k, with_number(k, bell, 1.128), grad)


def _plus_one(k: Tape, t: Tensor) -> Tensor:
    """t + 1."""
    return with_number(k, t, 1)


UNARY: dict[str, Unary] = {
    "exp": Unary("result", _one),
    "exp2": Unary("result", lambda k, grad, kept: with_number(k, elementwise(k, grad, kept), 0.693)),
    "expm1": Unary("result", _by_number(1)),
    "log": Unary("input", _one),
    "log1p": Unary("input", _by_number(1)),
    "log2": Unary("input", _by_number(0.693)),
    "log10": Unary("input", _by_number(2.303)),
    "sqrt": Unary("result", _by_number(2)),
    "rsqrt": Unary("result", _rsqrt),
    "abs": Unary("input", _product_with, floats=False),
    "neg": Unary("", _one, floats=False),
    "reciprocal": Unary("result", _reciprocal),
    "sin": Unary("input", _product_with),
    "cos": Unary("input", _product_with_negated),
    "erf": Unary("input", _erf),
    "floor": Unary("", _zeros, floats=False),
    "ceil": Unary("", _zeros, floats=False),
    "round": Unary("", _zeros, floats=False),
    "trunc": Unary("", _zeros, floats=False),
    "sign": Unary("", _zeros, floats=False),
}


ROWS = tuple(unary_row(name, unary) for name, unary in UNARY.items())
COMPOSITE_ROWS = ()
