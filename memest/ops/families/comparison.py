"""Comparisons and what chooses by them: masks, clamping, minimum and maximum, where. A mask is a bool tensor of one byte an element."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.ops.aten.copies import original
from memest.ops.aten.iterator import broadcast_shape, elementwise, elementwise_, result_dtype, where, with_number, with_number_
from memest.ops.facts import POINTWISE_FACTS, POINTWISE_IN_PLACE
from memest.ops.operator import REQUIRED, Attribute, Example, Operator, flag, number, optional
from memest.ops.tape import Tape, Tensor

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]
VALUE = Attribute(name="value", default=None, check=optional(number))
INPLACE = Attribute(name="inplace", default=False, check=flag)
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
LOGICAL = ("logical_and", "logical_or", "logical_xor")
BITWISE = ("bitwise_and", "bitwise_or", "bitwise_xor")
SHIFTS = ("bitwise_left_shift", "bitwise_right_shift")


def _comparison(k: Tape, input: Tensor, other: Tensor | None, *, value: float | None, inplace: bool) -> Tensor:
    if other is None and value is None:
        raise ShapeError("needs a second tensor or a value")
    if inplace:
        return _written(k, input, other, value)
    if other is not None:
        return elementwise(k, input, other, dtype="bool")
    assert value is not None
    return with_number(k, input, value, "bool")


def _written(k: Tape, input: Tensor, other: Tensor | None = None, value: float | None = None) -> Tensor:
    """Over the input, whose gradient would be zeros from there on."""
    if any(k.needs):
        raise UnsupportedError("written over a tensor that wants a gradient, which becomes zeros: not modelled; write to another")
    if k.target.on_cuda:
        raise UnsupportedError("a comparison in place is not modelled on torch-cuda yet; ask for torch-cpu")
    if other is None:
        return input if value is None else with_number_(k, input, value)
    if broadcast_shape(input, other) != input.shape:
        raise ShapeError(f"{list(other.shape)} does not fit in place onto {list(input.shape)}")
    return elementwise_(k, input, other)


def _logical(k: Tape, input: Tensor, other: Tensor, *, inplace: bool) -> Tensor:
    return _written(k, input, other) if inplace else elementwise(k, input, other, dtype="bool")


def _bitwise(k: Tape, input: Tensor, other: Tensor | None, *, value: int | None, inplace: bool) -> Tensor:
    if other is None and value is None:
        raise ShapeError("needs a second tensor or a value")
    if inplace:
        return _written(k, input, other, value)
    if other is not None:
        return elementwise(k, input, other)
    assert value is not None
    if k.target.on_cuda:
        raise UnsupportedError("bits with a number are not modelled on torch-cuda yet; ask for torch-cpu")
    return with_number(k, input, value)


def _logical_not(k: Tape, input: Tensor, *, inplace: bool) -> Tensor:
    return _written(k, input) if inplace else elementwise(k, input, dtype="bool")


def _bitwise_not(k: Tape, input: Tensor, *, inplace: bool) -> Tensor:
    return _written(k, input) if inplace else elementwise(k, input)


def _grad(grads: Grads) -> Tensor:
    (grad,) = grads
    assert grad is not None
    return grad


def _where(
    k: Tape, condition: Tensor, input: Tensor | None, other: Tensor | None, *, input_value: float | None, other_value: float | None
) -> Tensor:
    given = [t for t in (input, other) if t is not None]
    values = [v for t, v in ((input, input_value), (other, other_value)) if t is None]
    if None in values:
        raise ShapeError("needs a tensor or a value on both sides")
    dtype = result_dtype(*given) if given else _number_dtype(*values)
    sides = [t if t is not None else k.empty((), dtype) for t in (input, other)]
    k.save(condition=condition)
    return where(k, condition, sides[0], sides[1])


def _number_dtype(*values: float | None) -> str:
    return "float32" if any(isinstance(v, float) for v in values) else "int64"


def _where_backward(k: Tape, saved: Saved, grads: Grads, *, input_value: float | None, other_value: float | None) -> list[Tensor | None]:
    grad = _grad(grads)
    result: list[Tensor | None] = [None] * len(k.needs)
    for i in reversed(range(1, len(k.needs))):
        if k.needs[i]:
            zero = k.empty((), grad.dtype)
            result[i] = where(k, saved["condition"], zero, grad)
            k.free(zero)
    return result


def _masked_fill(k: Tape, input: Tensor, mask: Tensor, *, value: float, inplace: bool) -> Tensor:
    k.save(mask=mask)
    shape = broadcast_shape(input, mask)
    if not inplace:
        return k.empty(shape, input.dtype)
    if shape != input.shape:
        raise ShapeError(f"a mask of shape {list(mask.shape)} does not fit in place onto {list(input.shape)}")
    return input


def _masked_fill_backward(k: Tape, saved: Saved, grads: Grads, *, value: float, inplace: bool) -> list[Tensor | None]:
    grad = _grad(grads)
    return [k.empty(grad.shape, grad.dtype), None]


def _clamp(k: Tape, input: Tensor, *, min: float | None, max: float | None, inplace: bool) -> Tensor:
    if min is None and max is None:
        raise ShapeError("needs min, max or both")
    return _limited(k, input, inplace)


def _limited(k: Tape, input: Tensor, inplace: bool) -> Tensor:
    k.save(input=original(k, input, inplace))
    return input if inplace else elementwise(k, input)


def _limited_backward(k: Tape, grad: Tensor, kept: Tensor, *limits: float) -> list[Tensor | None]:
    """where(self >= min && self <= max, grad, 0)."""
    zero = k.empty((), grad.dtype)
    masks = [with_number(k, kept, limit, "bool") for limit in limits]
    return [where(k, masks[0], grad, zero)]


def _clamp_backward(k: Tape, saved: Saved, grads: Grads, *, min: float | None, max: float | None, inplace: bool) -> list[Tensor | None]:
    return _limited_backward(k, _grad(grads), saved["input"], *(v for v in (min, max) if v is not None))


def _clamp_min(k: Tape, input: Tensor, *, min: float, inplace: bool) -> Tensor:
    return _limited(k, input, inplace)


def _clamp_min_backward(k: Tape, saved: Saved, grads: Grads, *, min: float, inplace: bool) -> list[Tensor | None]:
    return _limited_backward(k, _grad(grads), saved["input"], min)


def _clamp_max(k: Tape, input: Tensor, *, max: float, inplace: bool) -> Tensor:
    return _limited(k, input, inplace)


def _clamp_max_backward(k: Tape, saved: Saved, grads: Grads, *, max: float, inplace: bool) -> list[Tensor | None]:
    return _limited_backward(k, _grad(grads), saved["input"], max)


def _extremum(k: Tape, input: Tensor, other: Tensor) -> Tensor:
    k.save(other=other, input=input)
    return elementwise(k, input, other)


def _extremum_backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
    """where(self == other, grad / 2, grad).masked_fill_(self < other, 0), ``other`` first. From 2.14 on a function masks
    (masked_fill_inplace_if_safe), so its mask is made before the other argument."""
    grad = _grad(grads)

    def compared() -> Tensor:
        return elementwise(k, saved["input"], saved["other"], dtype="bool")

    def side() -> Tensor:
        mask_first = k.target.version >= (2, 14)
        early = compared() if mask_first else None
        half = with_number(k, grad, 2)
        ties = compared()
        out = where(k, ties, half, grad)
        late = None if mask_first else compared()
        k.free(late, ties, half, early)
        return out

    second = side() if k.needs[1] else None
    return [side() if k.needs[0] else None, second]


def _mask_row(
    name: str,
    forward: Any,
    roles: tuple[str, ...],
    examples: tuple[Example, ...],
    attributes: tuple[Attribute, ...] = (),
) -> Operator:
    return Operator(
        name=name,
        torch=f"torch.{name}",
        roles=roles,
        attributes=(*attributes, INPLACE),
        forward=forward,
        saves=(),
        backward=None,
        examples=(*examples, *(replace(e, attributes={**e.attributes, "inplace": True}, frozen=(0, 1)) for e in examples)),
        facts=POINTWISE_IN_PLACE,
        source="aten/src/ATen/native/BinaryOps.cpp, UnaryOps.cpp (not differentiable)",
    )


COMPARED = (
    Example(shapes=((3, 4), (3, 4)), attributes={}),
    Example(shapes=((2, 3, 4, 5), None), attributes={"value": 0.5}, layout="channels_last"),
    Example(shapes=((3, 4), None), attributes={"value": 1}, dtypes=("int64",)),
)
MASKS = (Example(shapes=((3, 4), (4,)), attributes={}, dtypes=("bool", "bool")),)
BITS = (
    Example(shapes=((3, 4), (4,)), attributes={}, dtypes=("int64", "int64")),
    Example(shapes=((2, 3, 4, 5), None), attributes={"value": 3}, dtypes=("int64",), layout="channels_last"),
    Example(shapes=((3, 4), None), attributes={"value": 3}, dtypes=("int32",)),
)
MASK = (Example(shapes=((3, 4),), attributes={}, dtypes=("bool",)),)


def _limit_row(name: str, forward: Any, backward: Any, limits: dict[str, Any], required: bool) -> Operator:
    default, check = (REQUIRED, number) if required else (None, optional(number))
    calls = [{**limits}, {**limits, "inplace": True}] if required else [{**limits}, {"min": 0}, {"max": 1.5}, {**limits, "inplace": True}]
    return Operator(
        name=name,
        torch=f"torch.{name}",
        roles=("input",),
        attributes=(*(Attribute(name=n, default=default, check=check) for n in limits), INPLACE),
        forward=forward,
        saves=("input",),
        backward=backward,
        examples=tuple(Example(shapes=((3, 4),), attributes=a) for a in calls),
        facts=POINTWISE_IN_PLACE,
        source=f"derivatives.yaml: {name}; aten/src/ATen/native/TensorCompare.cpp",
    )


def _extremum_row(name: str) -> Operator:
    return Operator(
        name=name,
        torch=f"torch.{name}",
        roles=("input", "other"),
        attributes=(),
        forward=_extremum,
        saves=("input", "other"),
        backward=_extremum_backward,
        examples=(Example(shapes=((3, 4), (3, 4)), attributes={}), Example(shapes=((3, 4), (1, 4)), attributes={})),
        facts=POINTWISE_FACTS,
        source=f"derivatives.yaml: {name}; aten/src/ATen/native/BinaryOps.cpp",
    )


ROWS = (
    *(_mask_row(name, _comparison, ("input", "other?"), COMPARED, (VALUE,)) for name in COMPARISONS),
    *(_mask_row(name, _logical, ("input", "other"), MASKS) for name in LOGICAL),
    *(_mask_row(name, _bitwise, ("input", "other?"), MASKS, (VALUE,)) for name in BITWISE),
    *(_mask_row(name, _bitwise, ("input", "other?"), BITS, (VALUE,)) for name in SHIFTS),
    _mask_row("logical_not", _logical_not, ("input",), MASK),
    _mask_row("bitwise_not", _bitwise_not, ("input",), MASK),
    _limit_row("clamp", _clamp, _clamp_backward, {"min": 0, "max": 1.0}, False),
    _limit_row("clamp_min", _clamp_min, _clamp_min_backward, {"min": 0}, True),
    _limit_row("clamp_max", _clamp_max, _clamp_max_backward, {"max": 0.5}, True),
    _extremum_row("minimum"),
    _extremum_row("maximum"),
    Operator(
        name="where",
        torch="torch.where",
        oracle="where",
        roles=("condition", "input?", "other?"),
        attributes=(
            Attribute(name="input_value", default=None, check=optional(number)),
            Attribute(name="other_value", default=None, check=optional(number)),
        ),
        forward=_where,
        saves=("condition",),
        backward=_where_backward,
        examples=(
            Example(shapes=((3, 4), (3, 4), (4,)), attributes={}, dtypes=("bool",)),
            Example(shapes=((3, 4), (3, 4), None), attributes={"other_value": 0.0}, dtypes=("bool",)),
            Example(shapes=((3, 4), None, (3, 4)), attributes={"input_value": 1}, dtypes=("bool", "float32", "float32")),
        ),
        facts=POINTWISE_FACTS,
        source="derivatives.yaml: where.self; aten/src/ATen/native/TensorCompare.cpp",
    ),
    Operator(
        name="masked_fill",
        torch="torch.masked_fill",
        roles=("input", "mask"),
        attributes=(Attribute(name="value", default=REQUIRED, check=number), INPLACE),
        forward=_masked_fill,
        saves=("mask",),
        backward=_masked_fill_backward,
        examples=(
            Example(shapes=((3, 4), (3, 4)), attributes={"value": 0.0}, dtypes=("float32", "bool")),
            Example(shapes=((3, 4), (4,)), attributes={"value": 0, "inplace": True}, dtypes=("float32", "bool")),
        ),
        facts=POINTWISE_IN_PLACE,
        source="derivatives.yaml: masked_fill.Scalar; aten/src/ATen/native/TensorAdvancedIndexing.cpp",
    ),
)
COMPOSITE_ROWS = ()
