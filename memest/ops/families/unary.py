"""Functions of one tensor, element by element. What each keeps for backward, and how its gradient is computed, stands in one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from memest.network.dtypes import FLOATING
from memest.ops.aten.copies import original
from memest.ops.aten.iterator import elementwise, empty_like, with_number
from memest.ops.facts import POINTWISE_IN_PLACE
from memest.ops.operator import Attribute, Example, Operator, flag
from memest.ops.tape import Tape, Tensor

Formula = Callable[[Tape, Tensor, Tensor], Tensor]


class Unary(NamedTuple):
    """A function: what it keeps (``input``, ``result`` or nothing), the gradient from (grad, kept) and whether ints become floats."""

    keeps: str
    gradient: Formula
    floats: bool = True


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


def _row(name: str, unary: Unary) -> Operator:
    def forward(k: Tape, input: Tensor, *, inplace: bool) -> Tensor:
        if unary.keeps == "input":
            k.save(input=original(k, input, inplace))
        dtype = "float32" if unary.floats and input.dtype not in FLOATING else input.dtype
        out = input if inplace else elementwise(k, input, compute=dtype)
        if unary.keeps == "result":
            k.save(result=out)
        return out

    def backward(k: Tape, saved: dict[str, Any], grads: Sequence[Tensor | None], *, inplace: bool) -> list[Tensor | None]:
        (grad,) = grads
        assert grad is not None
        return [unary.gradient(k, grad, saved.get(unary.keeps, grad))]

    return Operator(
        name=name,
        torch=f"torch.{name}",
        roles=("input",),
        attributes=(Attribute(name="inplace", default=False, check=flag),),
        forward=forward,
        saves=(unary.keeps,) if unary.keeps else (),
        backward=backward,
        examples=(
            Example(shapes=((3, 4),), attributes={}),
            Example(shapes=((2, 3, 4, 5),), attributes={}, layout="channels_last"),
            Example(shapes=((3, 4),), attributes={"inplace": True}),
        ),
        facts=POINTWISE_IN_PLACE,
        source=f"derivatives.yaml: {name}; aten/src/ATen/native/UnaryOps.cpp",
    )


ROWS = tuple(_row(name, unary) for name, unary in UNARY.items())
COMPOSITE_ROWS = ()
