"""Writing over a tensor in place: with a number, with random numbers, with another tensor. The overwritten gets zeros as its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.errors import ShapeError
from memest.ops.aten.iterator import broadcast_shape, empty_like, incoming, result_dtype
from memest.ops.facts import POINTWISE_FACTS
from memest.ops.operator import REQUIRED, Attribute, Example, Operator, number, number_or_flag
from memest.ops.tape import Tape, Tensor

Grads = Sequence[Tensor | None]


def _overwrite(k: Tape, input: Tensor, **attributes: Any) -> Tensor:
    return input


def _zeros(k: Tape, saved: dict[str, Any], grads: Grads, **attributes: Any) -> list[Tensor | None]:
    return [empty_like(k, incoming(grads))]


def _copy(k: Tape, input: Tensor, src: Tensor) -> Tensor:
    if broadcast_shape(input, src) != input.shape:
        raise ShapeError(f"copy of shape {list(src.shape)} into {list(input.shape)}")
    k.note(dtype=src.dtype)
    return input


def _copy_backward(k: Tape, saved: dict[str, Any], grads: Grads) -> list[Tensor | None]:
    grad = incoming(grads)
    first = k.empty(grad.shape, grad.dtype) if k.needs[0] else None
    if not k.needs[1]:
        return [first, None]
    return [first, grad if grad.dtype == saved["dtype"] else empty_like(k, grad, saved["dtype"])]


def _into(k: Tape, out: Tensor, input: Tensor, other: Tensor) -> Tensor:
    """``torch.div(input, other, out=out)`` and the like, which torch runs without autograd alone."""
    if broadcast_shape(input, other) != out.shape or result_dtype(input, other) != out.dtype:
        raise ShapeError(f"out= of shape {list(out.shape)} and {out.dtype} is not what the call gives: torch would make another tensor")
    return out


INTO = ("div", "maximum", "minimum")
"""Calls that write where ``out=`` says."""
FILLS: dict[str, tuple[tuple[str, Any], ...]] = {
    "fill_": (("value", REQUIRED),),
    "zero_": (),
    "bernoulli_": (("p", 0.5),),
    "uniform_": (("from_", 0.0), ("to", 1.0)),
    "normal_": (("mean", 0.0), ("std", 1.0)),
}


def _row(name: str, attributes: tuple[tuple[str, Any], ...]) -> Operator:
    given = {"value": 0.0} if name == "fill_" else {}
    return Operator(
        name=name,
        torch=f"torch.Tensor.{name}",
        roles=("input",),
        attributes=tuple(Attribute(name=n, default=d, check=number_or_flag if n == "value" else number) for n, d in attributes),
        forward=_overwrite,
        saves=(),
        backward=_zeros,
        examples=(Example(shapes=((3, 4),), attributes=given, frozen=(0,)), Example(shapes=((2, 3, 4, 5),), attributes=given, frozen=(0,))),
        facts=POINTWISE_FACTS,
        source=f"derivatives.yaml: {name}; aten/src/ATen/native/Fill.cpp, Distributions.cpp",
    )


ROWS = (
    *(_row(name, attributes) for name, attributes in FILLS.items()),
    *(
        Operator(
            name=f"{name}_into_",
            torch=f"torch.{name}",
            oracle=f"{name}_into",
            roles=("out", "input", "other"),
            attributes=(),
            forward=_into,
            saves=(),
            backward=None,
            examples=(Example(shapes=((6,), (6,), (6,)), attributes={}, frozen=(0, 1, 2)),),
            facts=POINTWISE_FACTS,
            source="aten/src/ATen/native/BinaryOps.cpp",
        )
        for name in INTO
    ),
    Operator(
        name="copy_",
        torch="torch.Tensor.copy_",
        roles=("input", "src"),
        attributes=(),
        forward=_copy,
        saves=(),
        backward=_copy_backward,
        examples=(Example(shapes=((3, 4), (3, 4)), attributes={}, frozen=(0,)), Example(shapes=((3, 4), (4,)), attributes={}, frozen=(0,))),
        facts=POINTWISE_FACTS,
        source="derivatives.yaml: copy_; torch/csrc/autograd/functions/tensor.cpp (CopyBackwards)",
    ),
)
COMPOSITE_ROWS = ()
