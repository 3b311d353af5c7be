"""Dropouts. The CPU ones draw a mask of the input's own dtype and multiply by it; the mask is all that is kept.

``dropout1d`` … ``dropout3d`` and ``feature_alpha_dropout`` draw one number a channel. Outside training, and with ``p`` 0, they return
their very input.
"""

from __future__ import annotations

from typing import Any

from memest.errors import ShapeError
from memest.ops.aten.iterator import elementwise, empty_like, with_number, with_number_
from memest.ops.facts import KEEPS_MASK, POINTWISE_FACTS
from memest.ops.operator import Attribute, Example, Operator, flag, number, optional
from memest.ops.tape import Tape, Tensor


def _drop(k: Tape, input: Tensor, mask: Tensor, inplace: bool) -> Tensor:
    k.save(mask=mask)
    return input if inplace else elementwise(k, input, mask)


def _dropout(k: Tape, input: Tensor, *, p: float, training: bool, inplace: bool) -> Tensor:
    if p == 0 or not training or not input.numel:
        return k.noop(input)
    if p == 1:
        return _drop(k, input, k.empty((), input.dtype), inplace)
    return _drop(k, input, with_number_(k, empty_like(k, input), 0.5), inplace)


def _feature_mask(k: Tape, op: str, input: Tensor) -> Tensor:
    if input.ndim < 2:
        raise ShapeError(f"{op} needs at least 2 dims (batch, channels), got shape {list(input.shape)}")
    return k.empty((*input.shape[:2], *(1,) * (input.ndim - 2)), input.dtype)


def _feature_dropout(k: Tape, input: Tensor, *, p: float, training: bool, inplace: bool) -> Tensor:
    if p == 0 or not training or not input.numel:
        return k.noop(input)
    if p == 1:
        return _drop(k, input, k.empty((), input.dtype), inplace)
    return _drop(k, input, with_number_(k, _feature_mask(k, "feature dropout", input), 0.5), inplace)


def _batched(ndim: int, op: str) -> Any:
    def forward(k: Tape, input: Tensor, *, p: float, training: bool, inplace: bool) -> Tensor:
        if input.ndim != ndim:
            raise ShapeError(f"{op} needs {ndim} dims (batch, channels, space), got shape {list(input.shape)}")
        return _feature_dropout(k, input, p=p, training=training, inplace=inplace)

    return forward


def _alpha(k: Tape, input: Tensor, mask: Tensor, inplace: bool) -> Tensor:
    """Affine in the mask: ``input * (a * mask) + (a' * (mask - 1) + b')``, the second term a tensor of its own."""
    shift = with_number(k, mask, -1)
    for target in (shift, shift, mask):
        with_number_(k, target, 0.5)
    out = _drop(k, input, mask, inplace)
    k.free(shift)
    return out


def _alpha_dropout(k: Tape, input: Tensor, *, p: float, training: bool, inplace: bool) -> Tensor:
    if p in (0, 1) or not training or not input.numel:
        return _dropout(k, input, p=p, training=training, inplace=inplace)
    return _alpha(k, input, empty_like(k, input), inplace)


def _feature_alpha_dropout(k: Tape, input: Tensor, *, p: float, training: bool, inplace: bool) -> Tensor:
    if p in (0, 1) or not training or not input.numel:
        return _dropout(k, input, p=p, training=training, inplace=inplace)
    return _alpha(k, input, _feature_mask(k, "feature_alpha_dropout", input), inplace)


def _backward(k: Tape, saved: dict[str, Any], grads: list[Tensor | None], **_: Any) -> list[Tensor | None]:
    (grad,) = grads
    assert grad is not None
    mask = saved.get("mask")
    return [grad if mask is None else elementwise(k, grad, mask)]


def _probability(value: Any) -> Any:
    if not 0 <= number(value) <= 1:
        raise ValueError("expected a number from 0 to 1")
    return value


_ATTRIBUTES = (
    Attribute(name="p", default=0.5, check=_probability),
    Attribute(name="training", default=None, check=optional(flag)),
    Attribute(name="inplace", default=False, check=flag),
)


def _row(name: str, forward: Any, shape: tuple[int, ...], derivative: str = "mul.Tensor") -> Operator:
    def example(layout: str = "contiguous", **attributes: Any) -> Example:
        return Example(shapes=(shape,), attributes={"training": True, **attributes}, layout=layout)

    layouts = ("contiguous", "channels_last") if len(shape) in (4, 5) else ("contiguous",)
    return Operator(
        name=name,
        torch=f"torch.nn.functional.{name}",
        roles=("input",),
        attributes=_ATTRIBUTES,
        forward=forward,
        saves=("mask",),
        backward=_backward,
        examples=(*(example(layout) for layout in layouts), example(inplace=True), example(p=1.0), example(training=False)),
        facts=POINTWISE_FACTS.but(overwrites=KEEPS_MASK),
        source=f"derivatives.yaml: {derivative}; aten/src/ATen/native/Dropout.cpp (_dropout_impl)",
    )


ROWS = (
    _row("dropout", _dropout, (2, 3, 4, 5)),
    _row("dropout1d", _batched(3, "dropout1d"), (2, 3, 4)),
    _row("dropout2d", _batched(4, "dropout2d"), (2, 3, 4, 5)),
    _row("dropout3d", _batched(5, "dropout3d"), (2, 3, 4, 5, 2)),
    _row("alpha_dropout", _alpha_dropout, (2, 3, 4, 5), "mul.Tensor, add.Tensor"),
    _row("feature_alpha_dropout", _feature_alpha_dropout, (2, 3, 4, 5), "mul.Tensor, add.Tensor"),
)
COMPOSITE_ROWS = ()
