"""Rows of functions of one number, element by element: they differ in what each keeps for backward, and in how its gradient is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from memest.network.dtypes import FLOATING
from memest.ops.aten.copies import original
from memest.ops.aten.iterator import elementwise, incoming
from memest.ops.facts import POINTWISE_IN_PLACE
from memest.ops.operator import Attribute, Example, Operator, flag
from memest.ops.tape import Tape, Tensor

Formula = Callable[[Tape, Tensor, Tensor], Tensor]


class Unary(NamedTuple):
    """A function: what it keeps (``input``, ``result`` or nothing), the gradient from (grad, kept), whether ints become floats, and whether
    torch derives it in place, too."""

    keeps: str
    gradient: Formula
    floats: bool = True
    derived_in_place: bool = True


def unary_row(name: str, unary: Unary, torch: str = "torch.{}") -> Operator:
    """The row of a function; one that overwrites its input keeps a clone of what it needs of it."""

    def forward(k: Tape, input: Tensor, *, inplace: bool) -> Tensor:
        if unary.keeps == "input":
            k.save(input=original(k, input, inplace))
        dtype = "float32" if unary.floats and input.dtype not in FLOATING else input.dtype
        out = input if inplace else elementwise(k, input, compute=dtype)
        if unary.keeps == "result":
            k.save(result=out)
        return out

    def backward(k: Tape, saved: dict[str, Any], grads: Sequence[Tensor | None], *, inplace: bool) -> list[Tensor | None]:
        grad = incoming(grads)
        return [unary.gradient(k, grad, saved.get(unary.keeps, grad))]

    return Operator(
        name=name,
        torch=torch.replace("{}", name),
        roles=("input",),
        attributes=(Attribute(name="inplace", default=False, check=flag),),
        forward=forward,
        saves=(unary.keeps,) if unary.keeps else (),
        backward=backward,
        examples=(
            Example(shapes=((3, 4),), attributes={}),
            Example(shapes=((2, 3, 4, 5),), attributes={}, layout="channels_last"),
            Example(shapes=((3, 4),), attributes={"inplace": True}, frozen=() if unary.derived_in_place else (0,)),
        ),
        facts=POINTWISE_IN_PLACE,
        source=f"derivatives.yaml: {name}; aten/src/ATen/native/UnaryOps.cpp",
    )
