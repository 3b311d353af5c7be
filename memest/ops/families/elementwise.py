"""Arithmetic between tensors and with numbers: a product keeps its factors, a sum keeps nothing.

A Python number is attribute ``value`` in place of the second tensor; it reaches the kernel wrapped into a 0-dim tensor of 8 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.network.dtypes import FLOATING
from memest.ops.aten.copies import original
from memest.ops.aten.iterator import (
    Number,
    broadcast_shape,
    elementwise,
    elementwise_,
    empty_like,
    incoming,
    passed,
    result_dtype,
    scalar,
    wants,
    where,
    with_number,
)
from memest.ops.composite import Caller, Composite
from memest.ops.facts import BY_METHOD, POINTWISE_CALLS, POINTWISE_FACTS, POINTWISE_IN_PLACE
from memest.ops.operator import REQUIRED, Attribute, Example, choice, flag, number, optional
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import NATIVE, row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]

VALUE = Attribute(name="value", default=None, check=optional(number))
ALPHA = Attribute(name="alpha", default=1, check=number)
INPLACE = Attribute(name="inplace", default=False, check=flag)
ROUNDING = Attribute(name="rounding_mode", default=None, check=optional(choice("trunc", "floor")))


def operand(k: Tape, other: Tensor | None, value: float | None) -> Tensor:
    """The second operand: a tensor, or a number wrapped for the call."""
    if other is not None:
        return other
    if value is None:
        raise ShapeError("needs a second tensor or a value")
    return passed(k, value)


def binary(k: Tape, input: Tensor, other: Tensor, inplace: bool, compute: str | None = None) -> Tensor:
    """One arithmetic kernel, into ``input`` or a new tensor."""
    if not inplace:
        return elementwise(k, input, other, compute=compute)
    if broadcast_shape(input, other) != input.shape:
        raise ShapeError(f"a result of shape {list(broadcast_shape(input, other))} does not fit in place into {list(input.shape)}")
    return elementwise_(k, input, other)


def _kept(saved: Saved, value: float | None) -> Tensor:
    """The saved second operand; a wrapped number stays one across saving."""
    other: Tensor = saved["other"]
    return other if value is None else Number((), (), other.dtype, other.slot)


def _scaled(k: Tape, t: Tensor, factor: float) -> Tensor:
    """``maybe_multiply``."""
    return t if factor == 1 else _consumed(k, with_number(k, t, factor), t)


def _consumed(k: Tape, result: Tensor, *temporaries: Tensor | None) -> Tensor:
    """``result``, its temporaries dropped in the reverse order of their making."""
    k.free(*reversed(temporaries))
    return result


def pair(k: Tape, of_input: Callable[[], Tensor], of_other: Callable[[], Tensor]) -> list[Tensor | None]:
    """Gradients of both operands, in the generated code's order: by the alphabet of their names, ``other`` before ``self``."""
    second = of_other() if wants(k, 1) else None
    first = of_input() if k.needs[0] else None
    return [first, second][: len(k.needs)]


def _add(k: Tape, input: Tensor, other: Tensor | None, *, value: float | None, alpha: float, inplace: bool) -> Tensor:
    return binary(k, input, operand(k, other, value), inplace)


def _add_backward(k: Tape, saved: Saved, grads: Grads, *, value: float | None, alpha: float, inplace: bool) -> list[Tensor | None]:
    grad = incoming(grads)
    return pair(k, lambda: grad, lambda: _scaled(k, grad, alpha))


def _sub_backward(k: Tape, saved: Saved, grads: Grads, *, value: float | None, alpha: float, inplace: bool) -> list[Tensor | None]:
    grad = incoming(grads)
    return pair(k, lambda: grad, lambda: _scaled(k, elementwise(k, grad), alpha))


def _rsub(k: Tape, input: Tensor, other: Tensor | None, *, value: float | None, alpha: float) -> Tensor:
    return elementwise(k, operand(k, other, value), input)


def _rsub_backward(k: Tape, saved: Saved, grads: Grads, *, value: float | None, alpha: float) -> list[Tensor | None]:
    grad = incoming(grads)
    return pair(k, lambda: _scaled(k, elementwise(k, grad), alpha), lambda: grad)


def _mul(k: Tape, input: Tensor, other: Tensor | None, *, value: float | None, inplace: bool) -> Tensor:
    second = operand(k, other, value)
    if wants(k, 0):
        k.save(other=second)
    if wants(k, 1):
        k.save(input=original(k, input, inplace))
    return binary(k, input, second, inplace)


def _mul_backward(k: Tape, saved: Saved, grads: Grads, *, value: float | None, inplace: bool) -> list[Tensor | None]:
    grad = incoming(grads)
    return pair(k, lambda: elementwise(k, grad, _kept(saved, value)), lambda: elementwise(k, grad, saved["input"]))


def _div(k: Tape, input: Tensor, other: Tensor | None, *, value: float | None, rounding_mode: str | None, inplace: bool) -> Tensor:
    second = operand(k, other, value)
    k.note(dtype=input.dtype)
    k.save(other=second)
    if wants(k, 1):
        k.save(input=original(k, input, inplace))
    common = result_dtype(input, second)
    return binary(k, input, second, inplace, "float32" if rounding_mode is None and common not in FLOATING else common)


def _div_backward(
    k: Tape, saved: Saved, grads: Grads, *, value: float | None, rounding_mode: str | None, inplace: bool
) -> list[Tensor | None]:
    grad = incoming(grads)
    if rounding_mode is not None:
        return pair(k, lambda: empty_like(k, grad, saved["dtype"]), lambda: empty_like(k, grad, saved["other"].dtype))

    def of_other() -> Tensor:
        quotient = elementwise(k, saved["input"], saved["other"])
        square = elementwise(k, quotient, saved["other"])
        negative = elementwise(k, grad)
        return _consumed(k, elementwise(k, negative, square), quotient, square, negative)

    return pair(k, lambda: elementwise(k, grad, _kept(saved, value)), of_other)


def _pow(k: Tape, input: Tensor, other: Tensor | None, *, exponent: float | None, inplace: bool) -> Tensor:
    if other is None:
        if exponent is None:
            raise ShapeError("needs a second tensor or an exponent")
        k.save(input=original(k, input, inplace))
        return input if inplace else _power_of_number(k, input, exponent)
    k.save(exponent=other, input=original(k, input, inplace))
    out = binary(k, input, other, inplace)
    k.save(result=out)
    return out


def _power_of_number(k: Tape, input: Tensor, exponent: float) -> Tensor:
    dtype = "float32" if isinstance(exponent, float) and input.dtype not in FLOATING else input.dtype
    return elementwise(k, input, compute=dtype)


def _pow_backward(k: Tape, saved: Saved, grads: Grads, *, exponent: float | None, inplace: bool) -> list[Tensor | None]:
    grad = incoming(grads)
    base: Tensor = saved["input"]
    if "exponent" in saved:
        return pair(k, lambda: _of_base(k, grad, base, saved["exponent"]), lambda: _of_exponent(k, grad, base, saved))
    if exponent is None or exponent == 0:
        return [k.empty(base.shape, base.dtype)]
    power = elementwise(k, base)
    scaled = with_number(k, power, 2.0)
    return [_consumed(k, elementwise(k, grad, scaled), power, scaled)]


def _of_base(k: Tape, grad: Tensor, base: Tensor, exponent: Tensor) -> Tensor:
    """pow_backward_self: where(exponent == 0, 0, grad * (exponent * self ** (exponent - 1)))."""
    less = with_number(k, exponent, 1)
    power = elementwise(k, base, less)
    product = elementwise(k, exponent, power)
    full = elementwise(k, grad, product)
    zero = k.empty((), grad.dtype)
    mask = with_number(k, exponent, 0.0, "bool")
    return _consumed(k, where(k, mask, zero, full), less, power, product, full, zero, mask)


def _of_exponent(k: Tape, grad: Tensor, base: Tensor, saved: Saved) -> Tensor:
    """pow_backward_exponent: grad * where(self == 0 and exponent >= 0, 0, result * self.log()), in the result's dtype."""
    positive = with_number(k, saved["exponent"], 0, "bool")
    null = with_number(k, base, 0, "bool")
    mask = elementwise(k, null, positive)
    k.free(null, positive)
    wide = base if base.dtype == saved["result"].dtype else empty_like(k, base, saved["result"].dtype)
    log = elementwise(k, wide)
    product = elementwise(k, saved["result"], log)
    zero = k.empty((), grad.dtype)
    factor = where(k, mask, zero, product)
    return _consumed(k, elementwise(k, grad, factor), mask, None if wide is base else wide, log, product, zero, factor)


def _rpow(k: Tape, input: Tensor, *, value: float) -> Tensor:
    """The number is wrapped after the result is there; to the power of 1 is a fill."""
    k.save(input=input)
    dtype = "float32" if isinstance(value, float) and input.dtype not in FLOATING else input.dtype
    out = k.empty(input.shape, dtype)
    if value != 1:
        number = scalar(k, value)
        casts = [k.empty(t.shape, dtype, t.strides) for t in (number, input) if t.dtype != dtype]
        k.free(*reversed(casts), number)
    k.save(result=out)
    return out


def _rpow_backward(k: Tape, saved: Saved, grads: Grads, *, value: float) -> list[Tensor | None]:
    """pow_backward_exponent: grad * (result * log(value)), of a power of 0 only where the exponent is negative."""
    grad = incoming(grads)
    factor = with_number(k, saved["result"], 1.0)
    if value:
        return [_consumed(k, elementwise(k, grad, factor), factor)]
    zero = k.empty((), grad.dtype)
    mask = with_number(k, saved["input"], 0, "bool")
    kept = where(k, mask, zero, factor)
    return [_consumed(k, elementwise(k, grad, kept), kept, mask, zero, factor)]


def _floor_divide(k: Tape, input: Tensor, other: Tensor | None, *, value: float | None, inplace: bool) -> Tensor:
    return binary(k, input, operand(k, other, value), inplace)


def _fmod(k: Tape, input: Tensor, other: Tensor | None, *, value: float | None, inplace: bool) -> Tensor:
    second = operand(k, other, value)
    if wants(k, 1):
        k.save(other=second, input=original(k, input, inplace))
    return binary(k, input, second, inplace)


def _fmod_backward(k: Tape, saved: Saved, grads: Grads, *, value: float | None, inplace: bool) -> list[Tensor | None]:
    """The gradient as it came; -grad * self.div(other, rounded)."""
    grad = incoming(grads)

    def of_other() -> Tensor:
        quotient = elementwise(k, saved["input"], saved["other"])
        negative = elementwise(k, grad)
        return _consumed(k, elementwise(k, negative, quotient), quotient, negative)

    return pair(k, lambda: grad, of_other)


def _remainder(k: Tape, input: Tensor, other: Tensor | None, *, value: float | None, inplace: bool) -> Tensor:
    if wants(k, 1):
        raise UnsupportedError("the gradient of a remainder's divisor has no rule: detach() it, or use torch.fmod")
    return binary(k, input, operand(k, other, value), inplace)


def _remainder_backward(k: Tape, saved: Saved, grads: Grads, *, value: float | None, inplace: bool) -> list[Tensor | None]:
    return pair(k, lambda: incoming(grads), lambda: incoming(grads))


def _rdiv(c: Caller, input: Any, *, value: float) -> Any:
    return c.call("mul", c.call("reciprocal", input), None, value=value)


def _square(c: Caller, input: Any, *, inplace: bool) -> Any:
    return c.call("pow", input, None, exponent=2, inplace=inplace)


BY_NUMBER_AND_TENSOR = (
    Example(shapes=((4, 5), None), attributes={"value": 2.0}),
    Example(shapes=((4, 5), (4, 1)), attributes={}),
    Example(shapes=((4, 5), (4, 5)), attributes={}, frozen=(1,)),
)
SAME = Example(shapes=((4, 5), (4, 5)), attributes={})
PLAIN = (
    SAME,
    Example(shapes=((2, 3, 4, 5), (3, 1, 1)), attributes={}, layout="channels_last"),
    Example(shapes=((4, 5), None), attributes={"value": 2.0}),
    Example(shapes=((4, 5), None), attributes={"value": 3, "inplace": True}),
    Example(shapes=((4, 5), (4, 1)), attributes={"inplace": True}),
)
SCALED = Example(shapes=((4, 5), (5,)), attributes={"alpha": 0.5})
BINARY = f"{NATIVE}/BinaryOps.cpp"


_row = partial(row, roles=("input", "other?"), attributes=(VALUE, INPLACE), examples=PLAIN, facts=POINTWISE_IN_PLACE)


ROWS = (
    _row(
        "add",
        _add,
        _add_backward,
        attributes=(VALUE, ALPHA, INPLACE),
        examples=(*PLAIN, SCALED),
        source=f"derivatives.yaml: add.Tensor; {BINARY}",
    ),
    _row(
        "sub",
        _add,
        _sub_backward,
        attributes=(VALUE, ALPHA, INPLACE),
        examples=(*PLAIN, SCALED),
        source=f"derivatives.yaml: sub.Tensor; {BINARY}",
    ),
    _row(
        "rsub",
        _rsub,
        _rsub_backward,
        attributes=(VALUE, ALPHA),
        examples=(SAME, SCALED, Example(shapes=((4, 5), None), attributes={"value": 1})),
        source=f"derivatives.yaml: rsub.Tensor; {BINARY}",
        facts=POINTWISE_FACTS,
    ),
    _row("mul", _mul, _mul_backward, source=f"derivatives.yaml: mul.Tensor, mul_tensor_backward; {BINARY}", saves=("input", "other")),
    _row(
        "div",
        _div,
        _div_backward,
        attributes=(VALUE, ROUNDING, INPLACE),
        examples=(*PLAIN, Example(shapes=((4, 5), (4, 5)), attributes={"rounding_mode": "floor"})),
        source=f"derivatives.yaml: div.Tensor, div.Tensor_mode; {BINARY}",
        saves=("input", "other"),
    ),
    _row(
        "pow",
        _pow,
        _pow_backward,
        attributes=(Attribute(name="exponent", default=None, check=optional(number)), INPLACE),
        examples=(
            *(SAME, Example(shapes=((2, 3, 4, 5), (3, 1, 1)), attributes={}, layout="channels_last")),
            *(Example(shapes=((4, 5), None), attributes={"exponent": e}) for e in (2, 0.5, 3.0, 0)),
            Example(shapes=((4, 5), None), attributes={"exponent": 2, "inplace": True}),
        ),
        source=f"derivatives.yaml: pow.Tensor_Scalar, pow.Tensor_Tensor; {NATIVE}/Pow.cpp",
        saves=("input", "exponent", "result"),
    ),
    row(
        "rpow",
        _rpow,
        _rpow_backward,
        (Attribute(name="value", default=REQUIRED, check=number),),
        (
            *(Example(shapes=((4, 5),), attributes={"value": value}) for value in (2.0, 10000, 1, 0)),
            *(Example(shapes=((8,),), attributes={"value": value}, dtypes=("int64",)) for value in (2, 2.5)),
            Example(shapes=((2, 3, 4, 5),), attributes={"value": 0.5}, layout="channels_last"),
        ),
        f"derivatives.yaml: pow.Scalar; {NATIVE}/Pow.cpp",
        facts=POINTWISE_FACTS,
        saves=("input", "result"),
        torch="torch.Tensor.__rpow__",
        oracle="rpow",
    ),
    _row(
        "floor_divide",
        _floor_divide,
        None,
        examples=(
            Example(shapes=((4, 5), None), attributes={"value": 2}, dtypes=("int64",)),
            Example(shapes=((4, 5), None), attributes={"value": 2, "inplace": True}, dtypes=("int64",)),
        ),
        source=f"{BINARY} (no derivative)",
    ),
    _row(
        "remainder",
        _remainder,
        _remainder_backward,
        examples=(Example(shapes=((4, 5), None), attributes={"value": 2}, dtypes=("int64",)),),
        source=f"derivatives.yaml: remainder.Scalar; {BINARY}",
    ),
    _row(
        "fmod",
        _fmod,
        _fmod_backward,
        saves=("input", "other"),
        examples=(Example(shapes=((4, 5), None), attributes={"value": 2}, dtypes=("int64",)), *BY_NUMBER_AND_TENSOR),
        source=f"derivatives.yaml: fmod.Tensor; {BINARY}",
    ),
)
COMPOSITE_ROWS = (
    Composite(
        name="rdiv",
        torch="torch.Tensor.__rdiv__",
        oracle="rdiv",
        roles=("input",),
        attributes=(Attribute(name="value", default=REQUIRED, check=number),),
        compose=_rdiv,
        examples=(Example(shapes=((4, 5),), attributes={"value": 1}), Example(shapes=((4, 5),), attributes={"value": 2.0})),
        facts=POINTWISE_CALLS,
        source="torch/_tensor.py (__rdiv__: self.reciprocal() * other)",
    ),
    Composite(
        name="square",
        torch="torch.square",
        roles=("input",),
        attributes=(INPLACE,),
        compose=_square,
        examples=(Example(shapes=((4, 5),), attributes={}), Example(shapes=((4, 5),), attributes={"inplace": True})),
        facts=POINTWISE_CALLS.but(overwrites=BY_METHOD),
        source="aten/src/ATen/native/UnaryOps.cpp (square: pow(2))",
    ),
)
