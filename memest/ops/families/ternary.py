"""Three tensors in one kernel: products and quotients added, weighted means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.errors import ShapeError
from memest.ops.aten.copies import original
from memest.ops.aten.iterator import broadcast_shape, elementwise, elementwise_, empty_like, incoming, wants, with_number
from memest.ops.facts import POINTWISE_IN_PLACE
from memest.ops.operator import Attribute, Example, flag, number, optional
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]

INPLACE = Attribute(name="inplace", default=False, check=flag)


def _consumed(k: Tape, result: Tensor, *temporaries: Tensor) -> Tensor:
    """``result``, its temporaries dropped in the reverse order of their making."""
    k.free(*reversed(temporaries))
    return result


def _addcmul(k: Tape, input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float, inplace: bool) -> Tensor:
    if wants(k, 2):
        k.save(tensor1=tensor1)
    if wants(k, 1):
        k.save(tensor2=tensor2)
    return _ternary(k, input, tensor1, tensor2, inplace)


def _ternary(k: Tape, input: Tensor, first: Tensor, second: Tensor, inplace: bool) -> Tensor:
    if not inplace:
        return elementwise(k, input, first, second)
    if broadcast_shape(input, first, second) != input.shape:
        raise ShapeError(f"operands of shapes {list(first.shape)} and {list(second.shape)} do not fit in place into {list(input.shape)}")
    return elementwise_(k, input, first, second)


def _addcmul_backward(k: Tape, saved: Saved, grads: Grads, *, value: float, inplace: bool) -> list[Tensor | None]:
    grad = incoming(grads)

    def of_factor(other: Tensor) -> Tensor:
        scaled = with_number(k, other, value)
        return _consumed(k, elementwise(k, grad, scaled), scaled)

    return [
        grad if k.needs[0] else None,
        of_factor(saved["tensor2"]) if k.needs[1] else None,
        of_factor(saved["tensor1"]) if k.needs[2] else None,
    ]


def _addcdiv(k: Tape, input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float, inplace: bool) -> Tensor:
    if wants(k, 2):
        k.save(tensor1=tensor1)
    k.save(tensor2=tensor2)
    return _ternary(k, input, tensor1, tensor2, inplace)


def _addcdiv_backward(k: Tape, saved: Saved, grads: Grads, *, value: float, inplace: bool) -> list[Tensor | None]:
    grad = incoming(grads)
    divisor: Tensor = saved["tensor2"]

    def of_numerator() -> Tensor:
        quotient = empty_like(k, divisor)
        return _consumed(k, elementwise(k, grad, quotient), quotient)

    def of_divisor() -> Tensor:
        square = elementwise(k, divisor, divisor)
        scaled = with_number(k, saved["tensor1"], value)
        quotient = elementwise(k, scaled, square)
        negative = elementwise(k, grad)
        return _consumed(k, elementwise(k, negative, quotient), square, scaled, quotient, negative)

    return [grad if k.needs[0] else None, of_numerator() if k.needs[1] else None, of_divisor() if k.needs[2] else None]


def _lerp(k: Tape, input: Tensor, end: Tensor, weight: Tensor | None, *, value: float | None, inplace: bool) -> Tensor:
    if weight is None:
        return _ternary(k, input, end, end, inplace)
    if wants(k, 2):
        k.save(input=original(k, input, inplace), end=end)
    k.save(weight=weight)
    return _ternary(k, input, end, weight, inplace)


def _lerp_backward(k: Tape, saved: Saved, grads: Grads, *, value: float | None, inplace: bool) -> list[Tensor | None]:
    grad = incoming(grads)
    if "weight" not in saved:
        of_end = with_number(k, grad, 0.5) if k.needs[1] else None
        return [with_number(k, grad, 0.5) if k.needs[0] else None, of_end]
    end = elementwise(k, grad, saved["weight"]) if k.needs[1] else None
    first = third = None
    if k.needs[0]:
        rest = empty_like(k, saved["weight"])
        first = _consumed(k, elementwise(k, grad, rest), rest)
    if k.needs[2]:
        difference = elementwise(k, saved["end"], saved["input"])
        third = _consumed(k, elementwise(k, grad, difference), difference)
    return [first, end, third]


TRIPLE = (
    Example(shapes=((4, 5), (4, 5), (4, 5)), attributes={"value": 0.5}),
    Example(shapes=((4, 5), (1, 5), (4, 1)), attributes={}),
    Example(shapes=((4, 5), (4, 5), (4, 5)), attributes={"inplace": True}),
)


VALUE = Attribute(name="value", default=None, check=optional(number))


ROWS = (
    row(
        "addcmul",
        _addcmul,
        _addcmul_backward,
        (Attribute(name="value", default=1, check=number), INPLACE),
        TRIPLE,
        f"{DERIVED}/PointwiseOps.cpp",
        facts=POINTWISE_IN_PLACE,
        saves=("tensor1", "tensor2"),
        roles=("input", "tensor1", "tensor2"),
    ),
    row(
        "addcdiv",
        _addcdiv,
        _addcdiv_backward,
        (Attribute(name="value", default=1, check=number), INPLACE),
        TRIPLE,
        f"{DERIVED}/PointwiseOps.cpp",
        facts=POINTWISE_IN_PLACE,
        saves=("tensor1", "tensor2"),
        roles=("input", "tensor1", "tensor2"),
    ),
    row(
        "lerp",
        _lerp,
        _lerp_backward,
        (VALUE, INPLACE),
        (
            Example(shapes=((4, 5), (4, 5), None), attributes={"value": 0.25}),
            Example(shapes=((4, 5), (4, 5), (4, 5)), attributes={}),
            Example(shapes=((4, 5), (4, 5), None), attributes={"value": 0.25, "inplace": True}),
        ),
        "derivatives.yaml: lerp.Scalar, lerp.Tensor; aten/src/ATen/native/Lerp.cpp",
        facts=POINTWISE_IN_PLACE,
        saves=("input", "end", "weight"),
        roles=("input", "end", "weight?"),
    ),
)
COMPOSITE_ROWS = ()
