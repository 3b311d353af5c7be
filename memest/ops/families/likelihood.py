"""Losses on class indices: negative log likelihood, and the cross entropy that ATen builds on it."""

from __future__ import annotations

from math import prod
from typing import Any

from memest.errors import GraphError, ShapeError, UnsupportedError
from memest.ops.aten.copies import contiguous, scatter_into
from memest.ops.aten.iterator import empty_like
from memest.ops.aten.reductions import GRAIN_SIZE, sum_into
from memest.ops.aten.targets import REDUCTION, check_class_indices
from memest.ops.aten.views import wrapped
from memest.ops.composite import Caller, Composite
from memest.ops.facts import ALONG_DIM_FACTS, EVERYWHERE_CALLS, EVERYWHERE_FACTS, FALLS_THROUGH, FLOAT32, Dispatched, Policy, called
from memest.ops.operator import REQUIRED, Attribute, Example, Operator, integer, number, optional
from memest.ops.roles import in_order, note_given
from memest.ops.tape import Tape, Tensor

Saved = dict[str, Any]
Grads = list[Tensor | None]

_IGNORE_INDEX = Attribute(name="ignore_index", default=-100, check=integer)
_INDICES = ("float32", "int64")

# negative log likelihood -----------------------------------------------------------------------------------------------


def _nll(k: Tape, input: Tensor, target: Tensor, weight: Tensor | None, *, reduction: str, ignore_index: int) -> Tensor:
    check_class_indices(input, target, weight)
    note_given(k, input=input, target=target, weight=weight)
    k.save(input=input, target=target, weight=weight)
    loss = k.empty(target.shape if reduction == "none" else (), input.dtype)
    total_weight = k.empty((), input.dtype)
    _drop_copies(k, reduction, input, target)
    k.save(total_weight=total_weight)
    return loss


def _nll2d(k: Tape, input: Tensor, target: Tensor, weight: Tensor | None, *, reduction: str, ignore_index: int) -> Tensor:
    check_class_indices(input, target, weight)
    if input.ndim != 4:
        raise ShapeError(f"nll_loss2d_forward needs 4 dims, got shape {list(input.shape)}")
    note_given(k, input=input, target=target, weight=weight)
    k.save(input=input, target=target, weight=weight)
    total_weight = k.empty((), input.dtype)
    loss = k.empty(target.shape if reduction == "none" else (), input.dtype)
    _drop_copies(k, reduction, input, target)
    k.save(total_weight=total_weight)
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
    check_class_indices(input, target, weight)
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
        raise ShapeError("cross_entropy needs at least 1 dim (classes), got a scalar (a network that returns its own loss: loss='output')")
    dim = 0 if len(input.shape) == 1 else 1
    if tuple(input.shape) == tuple(target.shape):
        return _cross_entropy_probabilities(c, input, target, weight, dim, reduction, label_smoothing)
    check_class_indices(input, target, weight)
    log_probabilities = c.call("log_softmax", input, dim=dim, dtype=input.spec.dtype)
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
    second = c.call("mul.Scalar", smooth, value=label_smoothing / input.shape[dim])
    return c.call("add", c.call("mul.Scalar", nll, value=1 - label_smoothing), second)


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
    log_probabilities = c.call("log_softmax", input, dim=dim, dtype=input.spec.dtype)
    if label_smoothing > 0:
        scaled = c.call("mul.Scalar", target, value=1 - label_smoothing)
        target = c.call("add", scaled, None, value=label_smoothing / classes)
        c.drop(scaled)
    product = c.call("mul", log_probabilities, target)
    if weight is not None:
        product = c.call("mul", product, _along(c, weight, len(input.shape)))
    if reduction == "none":
        return c.call("neg", c.call("sum", product, dim=(dim,)))
    total = c.call("neg", c.call("sum", product))
    return c.call("div.Scalar", total, value=prod(input.shape) // classes) if reduction == "mean" else total


# choosing the weights of the targets -------------------------------------------------------------------------------------


def _masked_select(k: Tape, input: Tensor, mask: Tensor, *, count: int | None) -> Tensor:
    """How many are chosen is in the data; ``count`` says it, by default all."""
    if mask.shape != input.shape:
        raise ShapeError(f"masked_select needs a mask of the input's shape {list(input.shape)}, got {list(mask.shape)}")
    k.save(mask=mask, input=input)
    total = k.empty((), "int64")
    sum_into(k, mask, total)
    k.free(total)
    out = k.empty((input.numel if count is None else count,), input.dtype)
    serial = input.numel < GRAIN_SIZE or k.target.cpu.threads == 1
    if not (serial and input.is_contiguous and mask.is_contiguous):
        k.free(k.empty(input.shape, "int64"), k.empty(input.shape, "int64"))
    return out


def _masked_select_backward(k: Tape, saved: Saved, grads: Grads, *, count: int | None) -> Grads:
    return [empty_like(k, saved["input"]), None]


def _gather(k: Tape, input: Tensor, index: Tensor, *, dim: int) -> Tensor:
    if input.ndim != index.ndim:
        raise ShapeError(f"gather needs an index of as many dims as the input, got {list(index.shape)} for {list(input.shape)}")
    k.save(index=index, input=input)
    out = k.empty(index.shape, input.dtype)
    wide = None
    if index.dtype != "int64":
        if k.target.on_cuda:
            raise UnsupportedError(f"gather at an index of {index.dtype} is not modelled on torch-cuda yet: make it int64")
        wide = empty_like(k, index, "int64")
    if not _gathers_rows(input, index, wrapped(dim, input.ndim)):
        scatter_into(k, out)
    k.free(wide)
    return out


def _gathers_rows(input: Tensor, index: Tensor, dim: int) -> bool:
    """``can_use_expanded_index_path``: one index a row, so that whole rows are copied."""
    if dim != 0 or not input.ndim or 0 in input.shape or 0 in index.shape or not input.is_contiguous or input.shape[1:] != index.shape[1:]:
        return False
    return index.strides[0] > 0 and all(
        step == 0 or (step == 1 and n == 1) for n, step in zip(index.shape[1:], index.strides[1:], strict=True)
    )


def _gather_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int) -> Grads:
    out = k.empty(saved["input"].shape, saved["input"].dtype)
    wide = None if saved["index"].dtype == "int64" else empty_like(k, saved["index"], "int64")
    scatter_into(k, out)
    k.free(wide)
    return [out, None]


# rows ------------------------------------------------------------------------------------------------------------------


def _nll_row(name: str, forward: Any, backward: Any, shape: tuple[int, ...], source: str) -> Operator:
    indices = (*shape[:1], *shape[2:])
    return Operator(
        name=name,
        torch=f"torch._C._nn.{name.removesuffix('_forward')}",
        oracle=name,
        roles=("input", "target", "weight?"),
        attributes=(REDUCTION, _IGNORE_INDEX),
        forward=forward,
        saves=("input", "target", "weight", "total_weight"),
        backward=backward,
        examples=(
            Example(shapes=(shape, indices, None), attributes={}, dtypes=_INDICES),
            Example(shapes=(shape, indices, shape[1:2]), attributes={"reduction": "none"}, dtypes=_INDICES, frozen=(2,)),
        ),
        facts=EVERYWHERE_FACTS.but(autocast=called(name.removesuffix("_forward"), FLOAT32)),
        source=source,
    )


ROWS = (
    _nll_row("nll_loss_forward", _nll, _nll_backward, (4, 5), "derivatives.yaml: nll_loss_forward; aten/src/ATen/native/LossNLL.cpp"),
    _nll_row(
        "nll_loss2d_forward",
        _nll2d,
        _nll2d_backward,
        (2, 5, 3, 4),
        "derivatives.yaml: nll_loss2d_forward; aten/src/ATen/native/LossNLL2d.cpp",
    ),
    Operator(
        name="masked_select",
        torch="torch.masked_select",
        oracle="masked_select",
        roles=("input", "mask"),
        attributes=(Attribute(name="count", default=None, check=optional(integer)),),
        forward=_masked_select,
        saves=("mask", "input"),
        backward=_masked_select_backward,
        examples=(Example(shapes=((3, 4, 2), (3, 4, 2)), attributes={"count": 0}, dtypes=("float32", "bool")),),
        facts=EVERYWHERE_FACTS,
        source="derivatives.yaml: masked_select; aten/src/ATen/native/TensorAdvancedIndexing.cpp",
    ),
    Operator(
        name="gather",
        torch="torch.gather",
        oracle="gather",
        roles=("input", "index"),
        attributes=(Attribute(name="dim", default=REQUIRED, check=integer),),
        forward=_gather,
        saves=("index", "input"),
        backward=_gather_backward,
        examples=(
            Example(shapes=((5,), (24,)), attributes={"dim": 0}, dtypes=_INDICES),
            Example(shapes=((3, 5, 4), (3, 2, 4)), attributes={"dim": 1}, dtypes=_INDICES),
            Example(shapes=((3, 5, 4), (3, 2, 4)), attributes={"dim": 1}, dtypes=("float32", "int32")),
        ),
        facts=ALONG_DIM_FACTS,
        source="derivatives.yaml: gather; aten/src/ATen/native/TensorAdvancedIndexing.cpp",
    ),
)


def _class_indices_composite(
    name: str, compose: Any, autocast: Policy | Dispatched, attributes: tuple[Attribute, ...], *more: Example
) -> Composite:
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
        facts=EVERYWHERE_CALLS.but(autocast=autocast),
        source="aten/src/ATen/native/LossNLL.cpp",
    )


_SMOOTHED = {"label_smoothing": 0.1}

COMPOSITE_ROWS = (
    _class_indices_composite("nll_loss", _nll_loss, called("nll_loss_nd", FALLS_THROUGH), (REDUCTION, _IGNORE_INDEX)),
    _class_indices_composite(
        "cross_entropy",
        _cross_entropy,
        called("cross_entropy_loss", FLOAT32),
        (REDUCTION, _IGNORE_INDEX, Attribute(name="label_smoothing", default=0.0, check=number)),
        Example(shapes=((3, 5, 4, 2), (3, 4, 2), None), attributes=_SMOOTHED, dtypes=_INDICES),
        Example(shapes=((3, 5, 4, 2), (3, 4, 2), (5,)), attributes=_SMOOTHED, dtypes=_INDICES, frozen=(2,)),
        Example(shapes=((3, 5, 4), (3, 5, 4), (5,)), attributes=_SMOOTHED, frozen=(1, 2)),
    ),
)
