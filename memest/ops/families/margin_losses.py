"""Losses with a margin between classes.

Source: aten/src/ATen/native/LossMultiMargin.cpp, LossMultiLabelMargin.cpp, Loss.cpp (``soft_margin_loss``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.errors import ShapeError
from memest.network.dtypes import HALVES
from memest.ops.aten.copies import contiguous
from memest.ops.aten.iterator import elementwise, elementwise_, incoming, refuse_dtypes, with_number_
from memest.ops.aten.places import refuse_on_cuda
from memest.ops.aten.reductions import mean_into, sum_into
from memest.ops.facts import EVERYWHERE_FACTS, FLOAT32
from memest.ops.operator import Example, choice, number
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, FUNCTIONAL, attribute, row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def _soft(k: Tape, input: Tensor, target: Tensor, *, reduction: str) -> Tensor:
    """One tensor, worked on in place; it holds its mean or sum, too."""
    refuse_on_cuda(k)
    if input.shape != target.shape:
        raise ShapeError(f"soft_margin_loss of input {list(input.shape)} and target {list(target.shape)}")
    k.save(target=target, input=input)
    signed = elementwise(k, input)
    elementwise_(k, signed, target)
    if reduction == "none":
        return signed
    out = k.empty((), signed.dtype)
    (mean_into if reduction == "mean" else sum_into)(k, signed, out)
    k.free(out)
    return k.restride(signed, (), ())


def _soft_backward(k: Tape, saved: Saved, grads: Grads, *, reduction: str) -> list[Tensor | None]:
    """-target * z / (1 + z) * grad with z = exp(-target * input)."""
    grad, input, target = incoming(grads), saved["input"], saved["target"]
    turned = elementwise(k, target)
    product = elementwise(k, turned, input)
    power = elementwise(k, product)
    k.free(product, turned)
    out = elementwise(k, target, power)
    with_number_(k, out, 1.0)
    with_number_(k, power, 1)
    elementwise_(k, out, power)
    elementwise_(k, out, grad)
    k.free(power)
    return [out, *[None] * (len(k.needs) - 1)]


def _reduced(input: Tensor, reduction: str) -> tuple[int, ...]:
    return input.shape[:1] if reduction == "none" and input.ndim == 2 else ()


def _multi(k: Tape, input: Tensor, target: Tensor, weight: Tensor | None, *, p: int, margin: float, reduction: str) -> Tensor:
    refuse_on_cuda(k)
    refuse_dtypes("multi_margin_loss", input, HALVES)
    if input.ndim > 2 or target.ndim > 1:
        raise ShapeError(f"multi_margin_loss of input {list(input.shape)} and target {list(target.shape)}")
    k.save(input=input, target=target, weight=weight)
    out = k.empty(_reduced(input, reduction), input.dtype)
    k.free(*_copies(k, input, target))
    return out


def _copies(k: Tape, *tensors: Tensor) -> list[Tensor]:
    """Those that do not lie row by row, copied."""
    return [copy for t in tensors if (copy := contiguous(k, t)) is not t][::-1]


def _multi_backward(k: Tape, saved: Saved, grads: Grads, **attributes: Any) -> list[Tensor | None]:
    input: Tensor = saved["input"]
    out = k.empty(input.shape, input.dtype)
    k.free(*_copies(k, input, saved["target"]))
    return [out, *[None] * (len(k.needs) - 1)]


def _multilabel(k: Tape, input: Tensor, target: Tensor, *, reduction: str) -> Tensor:
    """Beside the loss, which elements are targets; the least and the greatest of those are looked at."""
    refuse_on_cuda(k)
    refuse_dtypes("multilabel_margin_loss", input, HALVES)
    if input.shape != target.shape or input.ndim > 2:
        raise ShapeError(f"multilabel_margin_loss of input {list(input.shape)} and target {list(target.shape)}")
    k.save(input=input, target=target)
    out = k.empty(_reduced(input, reduction), input.dtype)
    is_target = k.empty(target.shape, input.dtype)
    k.free(*_copies(k, target, input))
    for _ in range(2):
        k.free(k.empty((), "int64"))
    k.save(is_target=is_target)
    return out


def _multilabel_backward(k: Tape, saved: Saved, grads: Grads, *, reduction: str) -> list[Tensor | None]:
    input: Tensor = saved["input"]
    out = k.empty(input.shape, input.dtype)
    for dtype in ("int64", "int64", input.dtype, input.dtype):
        k.free(k.empty((), dtype))
    return [out, *[None] * (len(k.needs) - 1)]


FACTS = EVERYWHERE_FACTS.but(autocast=FLOAT32)
REDUCTION = attribute("reduction", "mean", choice("none", "mean", "sum"))
KINDS: tuple[dict[str, Any], ...] = ({}, {"reduction": "sum"}, {"reduction": "none"})
ROWS = (
    row(
        "soft_margin_loss",
        _soft,
        _soft_backward,
        (REDUCTION,),
        tuple(Example(shapes=((6, 5), (6, 5)), attributes=kind, frozen=(1,)) for kind in KINDS),
        f"{DERIVED}/Loss.cpp",
        facts=FACTS,
        roles=("input", "target"),
        saves=("input", "target"),
        torch=FUNCTIONAL,
    ),
    row(
        "multi_margin_loss",
        _multi,
        _multi_backward,
        (attribute("p", 1), attribute("margin", 1.0, number), REDUCTION),
        (
            *(Example(shapes=((6, 5), (6,), None), attributes=kind, dtypes=("float32", "int64")) for kind in KINDS),
            Example(shapes=((6, 5), (6,), (5,)), attributes={"p": 2}, dtypes=("float32", "int64", "float32"), frozen=(2,)),
            Example(shapes=((6, 5), (6,), None), attributes={}, dtypes=("float32", "int64"), layout="transposed"),
        ),
        f"{DERIVED}/LossMultiMargin.cpp",
        facts=FACTS,
        roles=("input", "target", "weight?"),
        saves=("input", "target", "weight"),
        torch=FUNCTIONAL,
    ),
    row(
        "multilabel_margin_loss",
        _multilabel,
        _multilabel_backward,
        (REDUCTION,),
        tuple(Example(shapes=((6, 5), (6, 5)), attributes=kind, dtypes=("float32", "int64")) for kind in KINDS),
        f"{DERIVED}/LossMultiLabelMargin.cpp",
        facts=FACTS,
        roles=("input", "target"),
        saves=("input", "target", "is_target"),
        torch=FUNCTIONAL,
    ),
)
COMPOSITE_ROWS = ()
