"""Products and quotients with a number that no row of its own has, as formulas meet them.

``by number``: with a number that a call before wrapped and kept; it is kept again, and stays a number in type promotion. ``in place``:
``t.div_(2)`` of C++, which keeps nothing. Source: derivatives.yaml (mul.Tensor, div.Scalar).
"""

from __future__ import annotations

from typing import Any

from memest.ops.aten.iterator import Number, elementwise, incoming, wants, with_number, with_number_
from memest.ops.facts import POINTWISE_FACTS
from memest.ops.operator import REQUIRED, Attribute, Operator, number
from memest.ops.tape import Tape, Tensor

Saved = dict[str, Any]
Grads = list[Tensor | None]


def _by(k: Tape, input: Tensor, other: Tensor) -> Tensor:
    if wants(k, 0):
        k.save(other=other)
    return elementwise(k, input, Number((), (), other.dtype, other.slot))


def _by_backward(k: Tape, saved: Saved, grads: Grads) -> Grads:
    other: Tensor = saved["other"]
    return [elementwise(k, incoming(grads), Number((), (), other.dtype, other.slot)), None]


def _in_place(k: Tape, input: Tensor, *, value: float) -> Tensor:
    return with_number_(k, input, value)


def _in_place_backward(k: Tape, saved: Saved, grads: Grads, *, value: float) -> Grads:
    return [with_number(k, incoming(grads), value)]


def _operator(name: str, forward: Any, backward: Any, roles: tuple[str, ...], *attributes: Attribute, saves: tuple[str, ...]) -> Operator:
    return Operator(
        name=name,
        torch="",
        roles=roles,
        attributes=attributes,
        forward=forward,
        saves=saves,
        backward=backward,
        examples=(),
        facts=POINTWISE_FACTS,
        source="derivatives.yaml: mul, div",
    )


_VALUE = Attribute(name="value", default=REQUIRED, check=number)
NAMES = ("mul", "div")
BY_NUMBER = {n: _operator(f"{n} by number", _by, _by_backward, ("input", "other"), saves=("other",)) for n in NAMES}
IN_PLACE = {n: _operator(f"{n} in place", _in_place, _in_place_backward, ("input",), _VALUE, saves=()) for n in NAMES}
