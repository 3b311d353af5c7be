"""Signs, and the greater or the lesser of two numbers where one of them may be NaN.

Source: aten/src/ATen/native/BinaryOps.cpp, UnaryOps.cpp; torch/csrc/autograd/FunctionsManual.cpp (``copysign_tensor_self_backward``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from memest.ops.aten.iterator import elementwise, elementwise_, empty_like, incoming, wants, where, with_number
from memest.ops.aten.places import refuse_on_cuda
from memest.ops.facts import POINTWISE_FACTS
from memest.ops.operator import number
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, NATIVE, attribute, calls, row

SHARED_SINCE = (2, 14)
Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def _copysign(k: Tape, input: Tensor, other: Tensor) -> Tensor:
    refuse_on_cuda(k)
    k.save(input=input)
    out = elementwise(k, input, other)
    k.save(result=out)
    k.note(sizes=other.shape)
    return out


def _copysign_backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
    """grad times result / self, which is set to 0 where self is; zeros for the sign."""
    grad = incoming(grads)
    of_other = k.empty(saved["sizes"], grad.dtype) if wants(k, 1) else None
    of_input = None
    if k.needs[0]:
        ratio = elementwise(k, saved["result"], saved["input"])
        k.free(with_number(k, saved["input"], 0, "bool"))
        of_input = elementwise(k, grad, ratio)
        k.free(ratio)
    return [of_input, of_other]


def _lesser(k: Tape, input: Tensor, other: Tensor) -> Tensor:
    refuse_on_cuda(k)
    k.save(other=other, input=input)
    return elementwise(k, input, other)


def _lesser_backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
    """grad, with 0 where the other operand was chosen, ``other``'s first; since 2.14 equal operands share it."""
    grad = incoming(grads)
    out: list[Tensor | None] = [None, None]
    for at in (1, 0):
        if wants(k, at) and k.target.version >= SHARED_SINCE:
            outside = elementwise(k, saved["input"], saved["other"], dtype="bool")
            half = with_number(k, grad, 2)
            equal = elementwise(k, saved["input"], saved["other"], dtype="bool")
            out[at] = where(k, equal, half, grad)
            k.free(equal, half, outside)
        elif wants(k, at):
            mask = elementwise(k, saved["input"], saved["other"], dtype="bool")
            missing = elementwise(k, saved["other"], saved["other"], dtype="bool")
            elementwise_(k, mask, missing)
            out[at] = empty_like(k, grad)
            k.free(missing, mask)
    return out


def _test(k: Tape, input: Tensor) -> Tensor:
    refuse_on_cuda(k)
    return elementwise(k, input, dtype="bool")


def _heaviside(k: Tape, input: Tensor, values: Tensor) -> Tensor:
    refuse_on_cuda(k)
    return elementwise(k, input, values)


def _polygamma(k: Tape, input: Tensor, *, n: int) -> Tensor:
    refuse_on_cuda(k)
    k.save(input=input)
    return elementwise(k, input)


def _polygamma_backward(k: Tape, saved: Saved, grads: Grads, *, n: int) -> list[Tensor | None]:
    """grad * polygamma(n + 1, self)."""
    return [elementwise(k, incoming(grads), elementwise(k, saved["input"]))]


def _in_degrees(k: Tape, input: Tensor) -> Tensor:
    """Into a tensor made before, by a number."""
    refuse_on_cuda(k)
    out = empty_like(k, input)
    with_number_into(k, input)
    return out


def with_number_into(k: Tape, input: Tensor) -> None:
    """``mul_out`` with a number: nothing, but for the number and its cast."""
    number = k.empty((), "float64")
    cast = k.empty((), input.dtype) if input.dtype != "float64" else None
    k.free(cast, number)


def _in_degrees_backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
    return [with_number(k, incoming(grads), 57.3)]


BOTH = calls((((3, 4), (3, 4)), {}), (((3, 4), (1, 4)), {}), (((2, 3, 4), (4,)), {}))
FROZEN = tuple(replace(example, frozen=(0, 1)) for example in BOTH)
ONE = (*calls(((3, 4), {})), *calls(((2, 3, 4, 5), {}), layout="channels_last"))
ROWS = (
    row(
        "copysign",
        _copysign,
        _copysign_backward,
        (),
        BOTH,
        f"{DERIVED}/BinaryOps.cpp",
        facts=POINTWISE_FACTS,
        roles=("input", "other"),
        saves=("input", "result"),
    ),
    *(
        row(
            name,
            _lesser,
            _lesser_backward,
            (),
            BOTH,
            f"{DERIVED}/BinaryOps.cpp",
            facts=POINTWISE_FACTS,
            roles=("input", "other"),
            saves=("input", "other"),
        )
        for name in ("fmax", "fmin")
    ),
    row("heaviside", _heaviside, None, (), FROZEN, f"{NATIVE}/BinaryOps.cpp", facts=POINTWISE_FACTS, roles=("input", "values")),
    *(row(name, _test, None, (), ONE, f"{NATIVE}/UnaryOps.cpp", facts=POINTWISE_FACTS) for name in ("signbit", "isposinf", "isneginf")),
    *(
        row(name, _in_degrees, _in_degrees_backward, (), ONE, f"{DERIVED}/UnaryOps.cpp", facts=POINTWISE_FACTS)
        for name in ("deg2rad", "rad2deg")
    ),
    row(
        "polygamma",
        _polygamma,
        _polygamma_backward,
        (attribute("n", check=number),),
        calls(((3, 4), {"n": 1})),
        f"{DERIVED}/UnaryOps.cpp",
        facts=POINTWISE_FACTS,
        saves=("input",),
        oracle="polygamma",
    ),
)
COMPOSITE_ROWS = ()
