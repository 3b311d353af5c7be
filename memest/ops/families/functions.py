"""Functions of calculus, element by element: inverse and hyperbolic ones, the gamma and error functions, and those of two numbers.

Each gradient is written as its formula stands; operands of a C++ product are evaluated from the right, and what a formula makes on the way
lives until it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from memest.network.dtypes import FLOATING
from memest.ops.aten.copies import original
from memest.ops.aten.iterator import elementwise, empty_like, incoming, result_dtype, wants, where, with_number
from memest.ops.aten.unary import Formula, Unary, unary_row
from memest.ops.facts import POINTWISE_FACTS, POINTWISE_IN_PLACE
from memest.ops.operator import Example, Operator, flag, number, optional
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import attribute, row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]
Both = Callable[[Tape, Tensor, Saved], list[Tensor | None]]


def number_less(k: Tape, t: Tensor) -> Tensor:
    """``number - t``: a tensor filled with the number, from which ``t`` is taken in place."""
    return empty_like(k, t)


def _with_factor(*steps: Callable[[Tape, Tensor], Tensor]) -> Formula:
    """grad times (or by) what ``steps`` make of what was kept, one after the other."""

    def gradient(k: Tape, grad: Tensor, kept: Tensor) -> Tensor:
        factor = kept
        for step in steps:
            factor = step(k, factor)
        return elementwise(k, grad, factor)

    return gradient


def _plain(k: Tape, t: Tensor) -> Tensor:
    return elementwise(k, t)


def _scaled(k: Tape, t: Tensor) -> Tensor:
    return with_number(k, t, 1.5)


def _raised(k: Tape, t: Tensor) -> Tensor:
    return with_number(k, t, 1)


def _squared(k: Tape, t: Tensor) -> Tensor:
    return elementwise(k, t, t)


def _minus_squared(k: Tape, t: Tensor) -> Tensor:
    return elementwise(k, elementwise(k, t), t)


def _atanh(k: Tape, grad: Tensor, kept: Tensor) -> Tensor:
    """grad * 1 / (1 - self ** 2)."""
    left = number_less(k, elementwise(k, kept))
    return elementwise(k, with_number(k, grad, 1), left)


def _sinc(k: Tape, grad: Tensor, kept: Tensor) -> Tensor:
    """where(self * self * pi == 0, 0, grad * ((a * cos(a) - sin(a)) / (self * self * pi))) with a = self * pi."""
    angle = with_number(k, kept, 3.14)
    product = elementwise(k, kept, kept)
    square = with_number(k, product, 3.14)
    k.free(product)
    sine = elementwise(k, angle)
    cosine = elementwise(k, angle)
    turned = elementwise(k, angle, cosine)
    difference = elementwise(k, turned, sine)
    ratio = elementwise(k, difference, square)
    out = elementwise(k, grad, ratio)
    k.free(ratio, difference, turned, cosine, sine)
    zero = k.empty((), grad.dtype)
    mask = with_number(k, square, 0.0, "bool")
    return where(k, mask, zero, out)


def _itself(k: Tape, grad: Tensor, kept: Tensor) -> Tensor:
    return grad


def _by_number(k: Tape, grad: Tensor, kept: Tensor) -> Tensor:
    return with_number(k, grad, 1.5)


def _finite(k: Tape, grad: Tensor, kept: Tensor) -> Tensor:
    """grad * isfinite(self)."""
    size = elementwise(k, kept)
    bounded = with_number(k, size, 1.5, "bool")
    own = elementwise(k, kept, kept, dtype="bool")
    finite = elementwise(k, own, bounded)
    k.free(own, bounded, size)
    return elementwise(k, grad, finite)


def _erfinv(k: Tape, grad: Tensor, kept: Tensor) -> Tensor:
    """sqrt(pi) / 2 * exp(erfinv(self) ** 2) * grad."""
    bell = elementwise(k, elementwise(k, elementwise(k, kept)))
    return elementwise(k, with_number(k, bell, 0.886), grad)


def _erfc(k: Tape, grad: Tensor, kept: Tensor) -> Tensor:
    """-2 / sqrt(pi) * exp(-self ** 2) * grad."""
    bell = elementwise(k, elementwise(k, elementwise(k, kept)))
    return elementwise(k, with_number(k, bell, -1.128), grad)


ONE: dict[str, Unary] = {
    "acos": Unary("input", _with_factor(_minus_squared, _raised, _plain, _plain)),
    "acosh": Unary("input", _with_factor(_squared, _raised, _plain), derived_in_place=False),
    "asin": Unary("input", _with_factor(_minus_squared, _raised, _plain)),
    "asinh": Unary("input", _with_factor(_plain, _raised, _plain), derived_in_place=False),
    "atan": Unary("input", _with_factor(_squared, _raised)),
    "atanh": Unary("input", _atanh, derived_in_place=False),
    "tan": Unary("result", _with_factor(_plain, _raised)),
    "cosh": Unary("input", _with_factor(_plain)),
    "sinh": Unary("input", _with_factor(_plain)),
    "erfc": Unary("input", _erfc),
    "erfinv": Unary("input", _erfinv),
    "lgamma": Unary("input", _with_factor(_plain)),
    "digamma": Unary("input", _with_factor(_plain)),
    "sinc": Unary("input", _sinc),
    "frac": Unary("", _itself, floats=False),
    "i0": Unary("input", _with_factor(_plain)),
}


def _nan_to_num(k: Tape, input: Tensor, *, nan: float | None, posinf: float | None, neginf: float | None, inplace: bool) -> Tensor:
    k.save(input=original(k, input, inplace))
    return input if inplace else elementwise(k, input)


def _nan_to_num_backward(k: Tape, saved: Saved, grads: Grads, **attributes: Any) -> list[Tensor | None]:
    return [_finite(k, incoming(grads), saved["input"])]


# of two numbers ---------------------------------------------------------------------------------------------------------


class Two(NamedTuple):
    """A function of two numbers: what it keeps of ``input``, ``other`` and ``result``, and both gradients from (grad, kept); ``apart``: an
    operand is kept for its own gradient alone."""

    keeps: tuple[str, ...]
    gradients: Both
    apart: bool = False


def _atan2(k: Tape, grad: Tensor, kept: Saved) -> list[Tensor | None]:
    """With the reciprocal of self ** 2 + other ** 2, in which infinities are masked; both gradients stand in one expression."""
    squares = elementwise(k, kept["other"], kept["other"]), elementwise(k, kept["input"], kept["input"])
    total = elementwise(k, *reversed(squares))
    k.free(*squares)
    reciprocal = elementwise(k, total)
    k.free(with_number(k, total, 0, "bool"))
    first = second = None
    if k.needs[0]:
        first = elementwise(k, elementwise(k, grad, kept["other"]), reciprocal)
    if wants(k, 1):
        second = elementwise(k, elementwise(k, grad, elementwise(k, kept["input"])), reciprocal)
    return [first, second]


def _each(of_input: Callable[[Tape, Tensor, Saved], Tensor], of_other: Callable[[Tape, Tensor, Saved], Tensor]) -> Both:
    """Two formulas, that of ``other`` first; what each makes on the way is dropped before the next."""

    def gradients(k: Tape, grad: Tensor, kept: Saved) -> list[Tensor | None]:
        out: list[Tensor | None] = [None, None]
        for place, formula in ((1, of_other), (0, of_input)):
            if wants(k, place):
                before = k.alive
                made = formula(k, grad, kept)
                k.free(*(_slot(k, s) for s in sorted(k.alive - before, reverse=True) if s != made.slot))
                out[place] = made
        return out

    return gradients


def _slot(k: Tape, slot: int) -> Tensor:
    """A tensor on a slot, for dropping it."""
    return Tensor((), (), "uint8", slot)


def _hypot_of(role: str) -> Callable[[Tape, Tensor, Saved], Tensor]:
    return lambda k, grad, kept: elementwise(k, elementwise(k, grad, kept[role]), kept["result"])


def _softened(first: str, second: str) -> Callable[[Tape, Tensor, Saved], Tensor]:
    """grad / (1 + exp(second - first))."""

    def formula(k: Tape, grad: Tensor, kept: Saved) -> Tensor:
        power = elementwise(k, elementwise(k, kept[second], kept[first]))
        return elementwise(k, grad, with_number(k, power, 1))

    return formula


TWO: dict[str, Two] = {
    "atan2": Two(("input", "other"), _atan2),
    "hypot": Two(("input", "other", "result"), _each(_hypot_of("input"), _hypot_of("other")), apart=True),
    "logaddexp": Two(("input", "other"), _each(_softened("input", "other"), _softened("other", "input"))),
}


def _of_two(name: str, two: Two) -> Operator:
    def forward(k: Tape, input: Tensor, other: Tensor) -> Tensor:
        keeps = (not two.apart or k.needs[0], not two.apart or wants(k, 1))
        k.save(**{role: t for role, t, kept in zip(("other", "input"), (other, input), reversed(keeps), strict=True) if kept})
        common = result_dtype(input, other)
        out = elementwise(k, input, other, compute=common if common in FLOATING else "float32")
        if "result" in two.keeps:
            k.save(result=out)
        return out

    def backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
        return two.gradients(k, incoming(grads), saved)

    shapes = (((3, 4), (3, 4)), ((3, 4), (1, 4)))
    return Operator(
        name=name,
        torch=f"torch.{name}",
        roles=("input", "other"),
        attributes=(),
        forward=forward,
        saves=two.keeps,
        backward=backward,
        examples=(
            *(Example(shapes=s, attributes={}) for s in shapes),
            Example(shapes=shapes[0], attributes={}, frozen=(1,)),
            Example(shapes=shapes[0], attributes={}, frozen=(0,)),
        ),
        facts=POINTWISE_FACTS,
        source=f"derivatives.yaml: {name}; aten/src/ATen/native/BinaryOps.cpp",
    )


ROWS = (
    *(unary_row(name, one) for name, one in ONE.items()),
    *(_of_two(name, two) for name, two in TWO.items()),
    row(
        "nan_to_num",
        _nan_to_num,
        _nan_to_num_backward,
        (*(attribute(n, None, optional(number)) for n in ("nan", "posinf", "neginf")), attribute("inplace", False, flag)),
        (Example(shapes=((3, 4),), attributes={}), Example(shapes=((3, 4),), attributes={"nan": 1.0, "posinf": 2.0})),
        "derivatives.yaml: {}; aten/src/ATen/native/UnaryOps.cpp",
        saves=("input",),
        facts=POINTWISE_IN_PLACE,
    ),
)
COMPOSITE_ROWS = ()
