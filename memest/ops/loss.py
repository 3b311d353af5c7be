"""Rows of the losses, and what ``torch.nn.functional`` builds from them.

A reduced ``mse_loss``, ``smooth_l1_loss`` or ``binary_cross_entropy`` is a scalar on a storage as large as the prediction: the
kernel fills a full tensor first and resizes it to no dims, which keeps its memory.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from memest.errors import GraphError, ShapeError, UnsupportedError
from memest.ops.composite import Caller, Composite
from memest.ops.kernels import contiguous, elementwise, empty_like, mean_into, sum_into, with_number, with_number_
from memest.ops.operator import Attribute, Example, Operator, choice, flag, integer, number
from memest.ops.roles import in_order, note_given, wanted
from memest.ops.tape import Tape, Tensor

Saved = dict[str, Any]
Grads = list[Tensor | None]

_REDUCTION = Attribute(name="reduction", default="mean", check=choice("none", "mean", "sum"))
_IGNORE_INDEX = Attribute(name="ignore_index", default=-100, check=integer)
_INDICES = ("float32", "int64")


def _reduce_into(k: Tape, source: Tensor, out: Tensor, reduction: str) -> None:
    (mean_into if reduction == "mean" else sum_into)(k, source, out)


def _same_shape(op: str, input: Tensor, target: Tensor) -> None:
    if input.shape != target.shape:
        raise ShapeError(f"{op} needs a target of the prediction's shape {list(input.shape)}, got {list(target.shape)}")


def _only_grad(grads: Grads) -> Tensor:
    (grad,) = grads
    assert grad is not None
    return grad


# negative log likelihood -----------------------------------------------------------------------------------------------


def _check_nll(input: Any, target: Any, weight: Any) -> None:
    """Class indices: the prediction's shape without its class dim."""
    shape = tuple(input.shape)
    expected = () if len(shape) == 1 else (*shape[:1], *shape[2:])
    if not shape or tuple(target.shape) != expected:
        raise ShapeError(f"class indices for a prediction of shape {list(shape)} need shape {list(expected)}, got {list(target.shape)}")
    classes = shape[0] if len(shape) == 1 else shape[1]
    if weight is not None and tuple(weight.shape) != (classes,):
        raise ShapeError(f"weight of {classes} classes needs {classes} values, got shape {list(weight.shape)}")


def _nll(k: Tape, input: Tensor, target: Tensor, weight: Tensor | None, *, reduction: str, ignore_index: int) -> Tensor:
    _check_nll(input, target, weight)
    note_given(k, input=input, target=target, weight=weight)
    loss = k.empty(target.shape if reduction == "none" else (), input.dtype)
    total_weight = k.empty((), input.dtype)
    _drop_copies(k, reduction, input, target)
    k.save(input=input, target=target, weight=weight, total_weight=total_weight)
    return loss


def _nll2d(k: Tape, input: Tensor, target: Tensor, weight: Tensor | None, *, reduction: str, ignore_index: int) -> Tensor:
    _check_nll(input, target, weight)
    if input.ndim != 4:
        raise ShapeError(f"nll_loss2d_forward needs 4 dims, got shape {list(input.shape)}")
    note_given(k, input=input, target=target, weight=weight)
    total_weight = k.empty((), input.dtype)
    loss = k.empty(target.shape if reduction == "none" else (), input.dtype)
    _drop_copies(k, reduction, input, target)
    k.save(input=input, target=target, weight=weight, total_weight=total_weight)
    return loss


def _drop_copies(k: Tape, reduction: str, *tensors: Tensor) -> None:
    """The reducing loops walk dense tensors."""
    if reduction != "none":
        k.free(*reversed([dense for t in tensors if (dense := contiguous(k, t)) is not t]))


def _nll_backward(k: Tape, saved: Saved, grads: Grads, *, reduction: str, ignore_index: int) -> Grads:
    return in_order(saved, input=k.empty(saved["input"].shape, saved["input"].dtype))


def _nll2d_backward(k: Tape, saved: Saved, grads: Grads, *, reduction: str, ignore_index: int) -> Grads:
    return in_order(saved, input=empty_like(k, saved["input"]))


def _nll_loss(c: Caller, input: Any, target: Any, weight: Any, **options: Any) -> Any:
    _check_nll(input, target, weight)
    shape = input.shape
    if len(shape) <= 2:
        return c.call("nll_loss_forward", input, target, weight, **options)
    if len(shape) == 4:
        return c.call("nll_loss2d_forward", input, target, weight, **options)
    flat = c.call("view", c.call("contiguous", input), shape=(shape[0], shape[1], 1, prod(shape[2:])))
    indices = c.call("view", c.call("contiguous", target), shape=(shape[0], 1, prod(shape[2:])))
    out = c.call("nll_loss2d_forward", flat, indices, weight, **options)
    return c.call("view", out, shape=target.shape) if options["reduction"] == "none" else out


# cross entropy ---------------------------------------------------------------------------------------------------------


def _cross_entropy(c: Caller, input: Any, target: Any, weight: Any, *, reduction: str, ignore_index: int, label_smoothing: float) -> Any:
    if not input.shape:
        raise ShapeError("cross_entropy needs at least 1 dim (classes), got a scalar")
    dim = 0 if len(input.shape) == 1 else 1
    if tuple(input.shape) == tuple(target.shape):
        return _cross_entropy_probabilities(c, input, target, weight, dim, reduction, label_smoothing)
    _check_nll(input, target, weight)
    log_probabilities = c.call("log_softmax", input, dim=dim)
    options = {"reduction": reduction, "ignore_index": ignore_index}
    nll = c.call("nll_loss", log_probabilities, target, weight, **options)
    if label_smoothing == 0:
        return nll
    smooth = _smooth_loss(c, log_probabilities, weight, dim)
    ignored = c.call("eq", target, None, value=ignore_index)
    c.call("masked_fill", smooth, ignored, value=0.0, inplace=True)
    if reduction == "mean":
        smooth = _smooth_mean(c, smooth, ignored, target, weight)
    elif reduction == "sum":
        smooth = c.call("sum", smooth)
    second = c.call("mul", smooth, None, value=label_smoothing / input.shape[dim])
    return c.call("add", c.call("mul", nll, None, value=1 - label_smoothing), second)


def _along(c: Caller, weight: Any, ndim: int) -> Any:
    """A weight per class, viewed so that it broadcasts along dim 1."""
    return weight if ndim == 1 else c.call("view", weight, shape=(1, weight.shape[0], *(1,) * (ndim - 2)))


def _smooth_loss(c: Caller, log_probabilities: Any, weight: Any, dim: int) -> Any:
    weighted = None
    if weight is not None:
        weighted = c.call("mul", log_probabilities, _along(c, weight, len(log_probabilities.shape)))
    total = c.call("sum", log_probabilities if weighted is None else weighted, dim=(dim,))
    smooth = c.call("neg", total)
    c.drop(total, weighted)
    return smooth


def _smooth_mean(c: Caller, smooth: Any, ignored: Any, target: Any, weight: Any) -> Any:
    """The mean over targets that are not ignored, by count or by their classes' weights (assuming none is ignored)."""
    kept = c.call("bitwise_not", ignored)
    if weight is None:
        count = c.call("sum", kept)
    else:
        indices = c.call("masked_select", target, kept)
        weights = c.call("gather", weight, indices, dim=0)
        count = c.call("sum", weights)
    total = c.call("sum", smooth)
    mean = c.call("div", total, count)
    c.drop(total, count)
    if weight is not None:
        c.drop(weights, indices)
    c.drop(kept)
    return mean


def _cross_entropy_probabilities(c: Caller, input: Any, target: Any, weight: Any, dim: int, reduction: str, label_smoothing: float) -> Any:
    if target.spec.dtype not in ("float32", "float64", "bfloat16", "float16"):
        raise GraphError(f"cross_entropy with a target of the prediction's shape needs probabilities, got {target.spec.dtype}")
    classes = input.shape[dim]
    log_probabilities = c.call("log_softmax", input, dim=dim)
    if label_smoothing > 0:
        scaled = c.call("mul", target, None, value=1 - label_smoothing)
        target = c.call("add", scaled, None, value=label_smoothing / classes)
        c.drop(scaled)
    product = c.call("mul", log_probabilities, target)
    if weight is not None:
        product = c.call("mul", product, _along(c, weight, len(input.shape)))
    if reduction == "none":
        return c.call("neg", c.call("sum", product, dim=(dim,)))
    total = c.call("neg", c.call("sum", product))
    return c.call("div", total, None, value=prod(input.shape) // classes) if reduction == "mean" else total


# distances -------------------------------------------------------------------------------------------------------------


def _distance(k: Tape, input: Tensor, target: Tensor, *, reduction: str, **_: Any) -> Tensor:
    """mse_loss, smooth_l1_loss: the scalar's storage was allocated for the unreduced loss."""
    _same_shape("this loss", input, target)
    k.save(input=input, target=target)
    out = elementwise(k, input, target)
    if reduction == "none":
        return out
    loss = elementwise(k, input, target)
    reduced = k.view(out, ())
    _reduce_into(k, loss, reduced, reduction)
    k.free(loss)
    return reduced


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
        attributes=(_REDUCTION, *attributes),
        forward=forward,
        saves=("input", "target"),
        backward=_distance_backward,
        examples=(
            Example(shapes=(shape, shape), attributes={}, layout="channels_last", frozen=(1,)),
            Example(shapes=(shape, shape), attributes={"reduction": "sum"}),
            Example(shapes=(shape, shape), attributes={"reduction": "none"}, frozen=(1,)),
            Example(shapes=((3, 120, 100), (3, 120, 100)), attributes={}, frozen=(1,)),
        ),
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


# binary cross entropy --------------------------------------------------------------------------------------------------


def _no_target_gradient(op: str, wants: frozenset[str]) -> None:
    for role in wants - {"input"}:
        raise UnsupportedError(f"{op}: the gradient of its {role} has no rule; detach it")


def _binary_cross_entropy(k: Tape, input: Tensor, target: Tensor, weight: Tensor | None, *, reduction: str) -> Tensor:
    _same_shape("binary_cross_entropy", input, target)
    note_given(k, input=input, target=target, weight=weight)
    k.save(input=input, target=target, weight=weight)
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
    log_sigmoid, buffer = k.empty(input.shape, input.dtype), k.empty(input.shape, input.dtype)
    dense = contiguous(k, input)
    k.free(None if dense is input else dense, buffer)
    if pos_weight is not None:
        less_one = with_number(k, pos_weight, 1)
        log_weight = with_number_(k, elementwise(k, less_one, target), 1)
        k.free(less_one, log_weight)
    loss = empty_like(k, input)
    if reduction == "none":
        return loss
    out = k.empty((), input.dtype)
    _reduce_into(k, loss, out, reduction)
    k.free(loss, log_sigmoid)
    return out


def _with_logits_backward(k: Tape, saved: Saved, grads: Grads, *, reduction: str) -> Grads:
    _no_target_gradient("binary_cross_entropy_with_logits", wanted(k, saved))
    if "pos_weight" in saved:
        weighted = elementwise(k, saved["pos_weight"], saved["target"])
        out = with_number(k, weighted, 1)
        sigmoid = elementwise(k, saved["input"])
        k.free(sigmoid, weighted)
    else:
        out = elementwise(k, saved["input"])
    if reduction == "mean":
        with_number_(k, out, 1)
    return in_order(saved, input=out)


# soft dice -------------------------------------------------------------------------------------------------------------


def _class_mask(k: Tape, input: Tensor, target: Tensor) -> Tensor:
    _check_nll(input, target, None)
    return empty_like(k, input)


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


def _nll_row(name: str, forward: Any, backward: Any, shape: tuple[int, ...], source: str) -> Operator:
    indices = (*shape[:1], *shape[2:])
    return Operator(
        name=name,
        torch=f"validation.adapters.{name}",
        roles=("input", "target", "weight?"),
        attributes=(_REDUCTION, _IGNORE_INDEX),
        forward=forward,
        saves=("input", "target", "weight", "total_weight"),
        backward=backward,
        examples=(
            Example(shapes=(shape, indices, None), attributes={}, dtypes=_INDICES),
            Example(shapes=(shape, indices, shape[1:2]), attributes={"reduction": "none"}, dtypes=_INDICES, frozen=(2,)),
        ),
        source=source,
    )


_PAIR = ((2, 4, 3, 5), (2, 4, 3, 5))

ROWS = (
    _nll_row("nll_loss_forward", _nll, _nll_backward, (4, 5), "derivatives.yaml: nll_loss_forward; aten/src/ATen/native/LossNLL.cpp"),
    _nll_row(
        "nll_loss2d_forward",
        _nll2d,
        _nll2d_backward,
        (2, 5, 3, 4),
        "derivatives.yaml: nll_loss2d_forward; aten/src/ATen/native/LossNLL2d.cpp",
    ),
    _distance_row("mse_loss", _distance),
    _distance_row("smooth_l1_loss", _distance, Attribute(name="beta", default=1.0, check=number)),
    _distance_row("huber_loss", _huber, Attribute(name="delta", default=1.0, check=number)),
    Operator(
        name="binary_cross_entropy",
        torch="torch.nn.functional.binary_cross_entropy",
        roles=("input", "target", "weight?"),
        attributes=(_REDUCTION,),
        forward=_binary_cross_entropy,
        saves=("input", "target", "weight"),
        backward=_binary_cross_entropy_backward,
        examples=(
            Example(shapes=(*_PAIR, None), attributes={}, layout="channels_last", frozen=(1,)),
            Example(shapes=(*_PAIR, (5,)), attributes={"reduction": "sum"}, frozen=(1, 2)),
            Example(shapes=(*_PAIR, None), attributes={"reduction": "none"}, frozen=(1,)),
        ),
        source="derivatives.yaml: binary_cross_entropy; aten/src/ATen/native/Loss.cpp",
    ),
    Operator(
        name="binary_cross_entropy_with_logits",
        torch="torch.nn.functional.binary_cross_entropy_with_logits",
        roles=("input", "target", "weight?", "pos_weight?"),
        attributes=(_REDUCTION,),
        forward=_with_logits,
        saves=("pos_weight", "input", "target", "weight"),
        backward=_with_logits_backward,
        examples=(
            Example(shapes=(*_PAIR, None, None), attributes={}, layout="channels_last", frozen=(1,)),
            Example(shapes=(*_PAIR, (5,), (5,)), attributes={}, frozen=(1, 2, 3)),
            Example(shapes=(*_PAIR, None, None), attributes={"reduction": "none"}, frozen=(1,)),
        ),
        source="derivatives.yaml: binary_cross_entropy_with_logits; aten/src/ATen/native/Loss.cpp",
    ),
    Operator(
        name="class_mask",
        torch="validation.adapters.class_mask",
        roles=("input", "target"),
        attributes=(),
        forward=_class_mask,
        saves=(),
        backward=None,
        examples=(Example(shapes=((2, 3, 4, 5), (2, 4, 5)), attributes={}, dtypes=_INDICES, frozen=(0,)),),
        source="class indices as one plane of ones a class: zeros_like(input).scatter_(1, target.unsqueeze(1), 1)",
    ),
)


def _class_indices_composite(name: str, compose: Any, attributes: tuple[Attribute, ...], *more: Example) -> Composite:
    def example(*shape: int, weight: bool = False, **options: Any) -> Example:
        shapes = (shape, (*shape[:1], *shape[2:]), shape[1:2] if weight else None)
        return Example(shapes=shapes, attributes=options, dtypes=_INDICES, frozen=(2,))

    return Composite(
        name=name,
        torch=f"torch.nn.functional.{name}",
        roles=("input", "target", "weight?"),
        attributes=attributes,
        compose=compose,
        examples=(
            example(4, 5),
            example(3, 5, 4, 2),
            example(2, 5, 3, 2, 2, weight=True),
            example(2, 5, 3, reduction="none"),
            *more,
        ),
        source="aten/src/ATen/native/LossNLL.cpp",
    )


_SMOOTHED = {"label_smoothing": 0.1}
_DICE_SHAPE = (2, 3, 4, 5)

COMPOSITE_ROWS = (
    _class_indices_composite("nll_loss", _nll_loss, (_REDUCTION, _IGNORE_INDEX)),
    _class_indices_composite(
        "cross_entropy",
        _cross_entropy,
        (_REDUCTION, _IGNORE_INDEX, Attribute(name="label_smoothing", default=0.0, check=number)),
        Example(shapes=((3, 5, 4, 2), (3, 4, 2), None), attributes=_SMOOTHED, dtypes=_INDICES),
        Example(shapes=((3, 5, 4, 2), (3, 4, 2), (5,)), attributes=_SMOOTHED, dtypes=_INDICES, frozen=(2,)),
        Example(shapes=((3, 5, 4), (3, 5, 4), (5,)), attributes=_SMOOTHED, frozen=(1, 2)),
    ),
    Composite(
        name="l1_loss",
        torch="torch.nn.functional.l1_loss",
        roles=("input", "target"),
        attributes=(_REDUCTION,),
        compose=_l1_loss,
        examples=(
            Example(shapes=_PAIR, attributes={}, frozen=(1,)),
            Example(shapes=_PAIR, attributes={"reduction": "sum"}, layout="channels_last"),
        ),
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
        source="aten/src/ATen/native/Loss.cpp (kl_div), torch/nn/functional.py (batchmean)",
    ),
    Composite(
        name="dice_loss",
        torch="validation.adapters.dice_loss",
        roles=("input", "target"),
        attributes=(
            Attribute(name="activation", default="softmax", check=choice("softmax", "sigmoid")),
            Attribute(name="batch", default=False, check=flag),
            Attribute(name="smooth", default=1.0, check=number),
        ),
        compose=_dice_loss,
        examples=(
            Example(shapes=(_DICE_SHAPE, (2, 4, 5)), attributes={}, dtypes=_INDICES),
            Example(shapes=(_DICE_SHAPE, _DICE_SHAPE), attributes={"activation": "sigmoid"}, frozen=(1,)),
            Example(shapes=((2, 3, 4, 5, 2), (2, 4, 5, 2)), attributes={"batch": True}, dtypes=_INDICES),
        ),
        source="soft dice, one score a sample and class: 1 - mean((2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth))",
    ),
)
