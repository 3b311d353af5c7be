"""Losses on targets of the prediction's own shape, and soft dice. (:mod:`memest.ops.families.likelihood` has those on class indices.)

A reduced ``mse_loss``, ``smooth_l1_loss`` or ``binary_cross_entropy`` is a scalar on a storage as large as the prediction: the
kernel fills a full tensor first and resizes it to no dims, which keeps its memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.ops.aten.activations import log_sigmoid_forward
from memest.ops.aten.copies import scatter_into
from memest.ops.aten.iterator import elementwise, elementwise_, empty_like, with_number, with_number_
from memest.ops.aten.reductions import mean_into, sum_into
from memest.ops.aten.targets import REDUCTION, check_class_indices
from memest.ops.aten.views import expanded
from memest.ops.composite import Caller, Composite
from memest.ops.facts import EVERYWHERE_CALLS, EVERYWHERE_FACTS, FLOAT32, POINTWISE_FACTS
from memest.ops.operator import Attribute, Example, Operator, choice, flag, number
from memest.ops.roles import in_order, note_given, wanted
from memest.ops.tape import Tape, Tensor

Saved = dict[str, Any]
Grads = list[Tensor | None]


def _reduce_into(k: Tape, source: Tensor, out: Tensor, reduction: str) -> None:
    (mean_into if reduction == "mean" else sum_into)(k, source, out)


def _same_shape(op: str, input: Tensor, target: Tensor) -> None:
    if input.shape != target.shape:
        raise ShapeError(f"{op} needs a target of the prediction's shape {list(input.shape)}, got {list(target.shape)}")


def _only_grad(grads: Grads) -> Tensor:
    (grad,) = grads
    assert grad is not None
    return grad


# distances -------------------------------------------------------------------------------------------------------------


def _distance(op: str) -> Callable[..., Tensor]:
    """mse_loss, smooth_l1_loss: the scalar's storage was allocated for the unreduced loss."""

    def forward(k: Tape, input: Tensor, target: Tensor, *, reduction: str, **_: Any) -> Tensor:
        _same_shape(op, input, target)
        k.save(input=input, target=target)
        out = elementwise(k, input, target)
        if reduction == "none":
            return out
        loss = elementwise(k, input, target)
        reduced = k.view(out, ()) if out.numel else k.empty((), out.dtype)  # nothing was allocated for no elements
        _reduce_into(k, loss, reduced, reduction)
        k.free(loss)
        return reduced

    return forward


def _huber(k: Tape, input: Tensor, target: Tensor, *, reduction: str, delta: float) -> Tensor:
    _same_shape("huber_loss", input, target)
    k.save(input=input, target=target)
    loss = empty_like(k, input)
    if reduction == "none":
        return loss
    out = k.empty((), input.dtype)
    _reduce_into(k, loss, out, reduction)
    return out


def _distance_backward(k: Tape, saved: Saved, grads: Grads, **_: Any) -> Grads:
    return [
        k.empty(saved[role].shape, saved[role].dtype) if need else None for role, need in zip(("input", "target"), k.needs, strict=True)
    ]


def _distance_row(name: str, forward: Callable[..., Tensor], *attributes: Attribute) -> Operator:
    shape = (2, 4, 3, 5)
    return Operator(
        name=name,
        torch=f"torch.nn.functional.{name}",
        roles=("input", "target"),
        attributes=(REDUCTION, *attributes),
        forward=forward,
        saves=("input", "target"),
        backward=_distance_backward,
        examples=(
            Example(shapes=(shape, shape), attributes={}, layout="channels_last", frozen=(1,)),
            Example(shapes=(shape, shape), attributes={"reduction": "sum"}),
            Example(shapes=(shape, shape), attributes={"reduction": "none"}, frozen=(1,)),
            Example(shapes=((3, 120, 100), (3, 120, 100)), attributes={}, frozen=(1,)),
        ),
        facts=SINGLE,
        source=f"derivatives.yaml: {name}; aten/src/ATen/native/Loss.cpp",
    )


def _reduced(c: Caller, loss: Any, reduction: str) -> Any:
    """``apply_loss_reduction``."""
    return loss if reduction == "none" else c.call(reduction, loss)


def _l1_loss(c: Caller, input: Any, target: Any, *, reduction: str) -> Any:
    _same_shape("l1_loss", input, target)
    return _reduced(c, c.call("abs", c.call("sub", input, target)), reduction)


def _kl_div(c: Caller, input: Any, target: Any, *, reduction: str, log_target: bool) -> Any:
    if log_target:
        difference = c.call("sub", target, input)
        weights = c.call("exp", target)
        loss = c.call("mul", weights, difference)
        c.drop(weights, difference)
    else:
        cross = c.call("mul", target, input)
        own = c.call("xlogy", target, target)
        loss = c.call("sub", own, cross)
        c.drop(own, cross)
    if reduction != "batchmean":
        return _reduced(c, loss, reduction)
    total = c.call("sum", loss)
    c.drop(loss)
    return c.call("div", total, None, value=input.shape[0])


def _xlogy(k: Tape, input: Tensor, other: Tensor) -> Tensor:
    k.save(other=other, input=input)
    return elementwise(k, input, other)


def _xlogy_backward(k: Tape, saved: Saved, grads: Grads) -> Grads:
    """``grad * input / other``, then ``xlogy(grad, other)`` with zeros where input is 0 and other is not positive."""
    grad = _only_grad(grads)
    input, other = saved["input"], saved["other"]
    for_input, for_other = None, None
    if k.needs[1]:
        scaled = elementwise(k, grad, input)
        for_other = elementwise(k, scaled, other)
        k.free(scaled)
    if k.needs[0]:
        logs = elementwise(k, grad, other)
        masks = [with_number(k, other, 0.0, "bool"), with_number(k, input, 0.0, "bool")]
        masks.append(elementwise(k, *masks))
        for_input = k.empty(logs.shape, logs.dtype)
        k.free(*masks, logs)
    return [for_input, for_other]


# binary cross entropy --------------------------------------------------------------------------------------------------


def _no_target_gradient(op: str, wants: frozenset[str]) -> None:
    for role in wants - {"input"}:
        raise UnsupportedError(f"{op}: the gradient of its {role} has no rule; detach it")


def _binary_cross_entropy(k: Tape, input: Tensor, target: Tensor, weight: Tensor | None, *, reduction: str) -> Tensor:
    _same_shape("binary_cross_entropy", input, target)
    note_given(k, input=input, target=target, weight=weight)
    k.save(input=input, target=target, weight=None if weight is None else expanded(k, weight, target.shape))
    loss = empty_like(k, input)
    if reduction == "none":
        return loss
    reduced = k.empty((), input.dtype)
    _reduce_into(k, loss, reduced, reduction)
    k.free(reduced)
    return k.view(loss, ())


def _binary_cross_entropy_backward(k: Tape, saved: Saved, grads: Grads, *, reduction: str) -> Grads:
    _no_target_gradient("binary_cross_entropy", wanted(k, saved))
    out = empty_like(k, saved["input"])
    if reduction == "mean":
        with_number_(k, out, 1)
    return in_order(saved, input=out)


def _with_logits(k: Tape, input: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None, *, reduction: str) -> Tensor:
    _same_shape("binary_cross_entropy_with_logits", input, target)
    note_given(k, input=input, target=target, weight=weight, pos_weight=pos_weight)
    k.save(pos_weight=pos_weight, input=input, target=target, weight=weight)
    log_sigmoid, buffer = log_sigmoid_forward(k, input)
    k.free(buffer)
    if pos_weight is not None:
        less_one = with_number(k, pos_weight, 1)
        log_weight = with_number_(k, elementwise(k, less_one, target), 1)
        k.free(less_one)
        elementwise_(k, log_sigmoid, log_weight)
        k.free(log_weight)
    loss = empty_like(k, target)
    for factor in (input, log_sigmoid, weight):
        if factor is not None:
            elementwise_(k, loss, factor)
    if reduction == "none":
        return loss
    out = k.empty((), loss.dtype)
    _reduce_into(k, loss, out, reduction)
    k.free(loss, log_sigmoid)
    return out


def _with_logits_backward(k: Tape, saved: Saved, grads: Grads, *, reduction: str) -> Grads:
    _no_target_gradient("binary_cross_entropy_with_logits", wanted(k, saved))
    if "pos_weight" in saved:
        weighted = elementwise(k, saved["pos_weight"], saved["target"])
        out = elementwise_(k, with_number(k, weighted, 1), saved["target"])
        sigmoid = elementwise(k, saved["input"])
        elementwise_(k, elementwise_(k, out, sigmoid), weighted)
        k.free(sigmoid, weighted)
    else:
        out = elementwise_(k, elementwise(k, saved["input"]), saved["target"])
    elementwise_(k, out, _only_grad(grads))
    if "weight" in saved:
        elementwise_(k, out, saved["weight"])
    if reduction == "mean":
        with_number_(k, out, 1)
    return in_order(saved, input=out)


# soft dice -------------------------------------------------------------------------------------------------------------


def _class_mask(k: Tape, input: Tensor, target: Tensor) -> Tensor:
    check_class_indices(input, target, None)
    out = empty_like(k, input)
    scatter_into(k, out)
    return out


def _dice_loss(c: Caller, input: Any, target: Any, *, activation: str, batch: bool, smooth: float) -> Any:
    ndim = len(input.shape)
    if ndim < 3:
        raise ShapeError(f"dice_loss needs at least 3 dims (batch, classes, space), got shape {list(input.shape)}")
    dims = (*((0,) if batch else ()), *range(2, ndim))
    probabilities = c.call("softmax", input, dim=1) if activation == "softmax" else c.call("sigmoid", input)
    if tuple(target.shape) != tuple(input.shape):
        target = c.call("class_mask", probabilities, target)
    product = c.call("mul", probabilities, target)
    overlap = c.call("sum", product, dim=dims)
    c.drop(product)
    predicted = c.call("sum", probabilities, dim=dims)
    expected = c.call("sum", target, dim=dims)
    total = c.call("add", predicted, expected)
    c.drop(predicted, expected)
    twice = c.call("mul", overlap, None, value=2)
    numerator = c.call("add", twice, None, value=smooth)
    c.drop(twice)
    denominator = c.call("add", total, None, value=smooth)
    dice = c.call("div", numerator, denominator)
    c.drop(numerator, denominator)
    mean = c.call("mean", dice)
    return c.call("rsub", mean, None, value=1)


# rows ------------------------------------------------------------------------------------------------------------------


SINGLE = EVERYWHERE_FACTS.but(autocast=FLOAT32)
_PAIR = ((2, 4, 3, 5), (2, 4, 3, 5))

ROWS = (
    _distance_row("mse_loss", _distance("mse_loss")),
    _distance_row("smooth_l1_loss", _distance("smooth_l1_loss"), Attribute(name="beta", default=1.0, check=number)),
    _distance_row("huber_loss", _huber, Attribute(name="delta", default=1.0, check=number)),
    Operator(
        name="binary_cross_entropy",
        torch="torch.nn.functional.binary_cross_entropy",
        roles=("input", "target", "weight?"),
        attributes=(REDUCTION,),
        forward=_binary_cross_entropy,
        saves=("input", "target", "weight"),
        backward=_binary_cross_entropy_backward,
        examples=(
            Example(shapes=(*_PAIR, None), attributes={}, layout="channels_last", frozen=(1,)),
            Example(shapes=(*_PAIR, (5,)), attributes={"reduction": "sum"}, frozen=(1, 2)),
            Example(shapes=(*_PAIR, None), attributes={"reduction": "none"}, frozen=(1,)),
        ),
        facts=SINGLE,
        source="derivatives.yaml: binary_cross_entropy; aten/src/ATen/native/Loss.cpp",
    ),
    Operator(
        name="binary_cross_entropy_with_logits",
        torch="torch.nn.functional.binary_cross_entropy_with_logits",
        roles=("input", "target", "weight?", "pos_weight?"),
        attributes=(REDUCTION,),
        forward=_with_logits,
        saves=("pos_weight", "input", "target", "weight"),
        backward=_with_logits_backward,
        examples=(
            Example(shapes=(*_PAIR, None, None), attributes={}, layout="channels_last", frozen=(1,)),
            Example(shapes=(*_PAIR, (5,), (5,)), attributes={}, frozen=(1, 2, 3)),
            Example(shapes=(*_PAIR, None, None), attributes={"reduction": "none"}, frozen=(1,)),
        ),
        facts=SINGLE,
        source="derivatives.yaml: binary_cross_entropy_with_logits; aten/src/ATen/native/Loss.cpp",
    ),
    Operator(
        name="xlogy",
        torch="torch.xlogy",
        roles=("input", "other"),
        attributes=(),
        forward=_xlogy,
        saves=("input", "other"),
        backward=_xlogy_backward,
        examples=(Example(shapes=((5, 4), (5, 4)), attributes={}), Example(shapes=((5, 4), (4,)), attributes={}, frozen=(0,))),
        facts=POINTWISE_FACTS,
        source="derivatives.yaml: xlogy.Tensor; aten/src/ATen/native/BinaryOps.cpp",
    ),
    Operator(
        name="class_mask",
        torch="",
        oracle="class_mask",
        roles=("input", "target"),
        attributes=(),
        forward=_class_mask,
        saves=(),
        backward=None,
        examples=(Example(shapes=((2, 3, 4, 5), (2, 4, 5)), attributes={}, dtypes=("float32", "int64"), frozen=(0,)),),
        facts=EVERYWHERE_FACTS,
        source="class indices as one plane of ones a class: zeros_like(input).scatter_(1, target.unsqueeze(1), 1)",
    ),
)


_DICE_SHAPE = (2, 3, 4, 5)

COMPOSITE_ROWS = (
    Composite(
        name="l1_loss",
        torch="torch.nn.functional.l1_loss",
        roles=("input", "target"),
        attributes=(REDUCTION,),
        compose=_l1_loss,
        examples=(
            Example(shapes=_PAIR, attributes={}, frozen=(1,)),
            Example(shapes=_PAIR, attributes={"reduction": "sum"}, layout="channels_last"),
        ),
        facts=EVERYWHERE_CALLS.but(autocast=FLOAT32),
        source="aten/src/ATen/native/Loss.cpp (l1_loss)",
    ),
    Composite(
        name="kl_div",
        torch="torch.nn.functional.kl_div",
        roles=("input", "target"),
        attributes=(
            Attribute(name="reduction", default="mean", check=choice("none", "mean", "sum", "batchmean")),
            Attribute(name="log_target", default=False, check=flag),
        ),
        compose=_kl_div,
        examples=(
            Example(shapes=_PAIR, attributes={}, frozen=(1,)),
            Example(shapes=_PAIR, attributes={"reduction": "batchmean"}, frozen=(1,)),
            Example(shapes=_PAIR, attributes={"log_target": True}, frozen=(1,)),
        ),
        facts=EVERYWHERE_CALLS.but(autocast=FLOAT32),
        source="aten/src/ATen/native/Loss.cpp (kl_div), torch/nn/functional.py (batchmean)",
    ),
    Composite(
        name="dice_loss",
        torch="",
        oracle="dice_loss",
        roles=("input", "target"),
        attributes=(
            Attribute(name="activation", default="softmax", check=choice("softmax", "sigmoid")),
            Attribute(name="batch", default=False, check=flag),
            Attribute(name="smooth", default=1.0, check=number),
        ),
        compose=_dice_loss,
        examples=(
            Example(shapes=(_DICE_SHAPE, (2, 4, 5)), attributes={}, dtypes=("float32", "int64")),
            Example(shapes=(_DICE_SHAPE, _DICE_SHAPE), attributes={"activation": "sigmoid"}, frozen=(1,)),
            Example(shapes=((2, 3, 4, 5, 2), (2, 4, 5, 2)), attributes={"batch": True}, dtypes=("float32", "int64")),
        ),
        facts=EVERYWHERE_CALLS,
        source="soft dice, one score a sample and class: 1 - mean((2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth))",
    ),
)
