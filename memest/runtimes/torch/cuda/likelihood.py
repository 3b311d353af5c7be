"""Losses on class indices on CUDA: kernels read contiguous tensors, in backward too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.ops.aten.copies import contiguous
from memest.ops.aten.iterator import empty_like, incoming
from memest.ops.aten.masks import nonzero, scanned
from memest.ops.aten.targets import check_class_indices
from memest.ops.families import likelihood
from memest.ops.operator import Operator
from memest.ops.roles import in_order, note_given
from memest.ops.tape import Tape, Tensor

Saved = dict[str, Any]
Grads = list[Tensor | None]
FAMILY = {row.name: row for row in likelihood.ROWS}


def _read(k: Tape, *tensors: Tensor | None) -> None:
    """Contiguous forms, made one after the other and dropped last first."""
    k.free(*reversed([dense for t in tensors if t is not None and (dense := contiguous(k, t)) is not t]))


def _nll(k: Tape, input: Tensor, target: Tensor, weight: Tensor | None, *, reduction: str, ignore_index: int) -> Tensor:
    check_class_indices(input, target, weight)
    note_given(k, input=input, target=target, weight=weight)
    k.save(input=input, target=target, weight=weight)
    loss = k.empty(target.shape if reduction == "none" else (), input.dtype)
    total_weight = k.empty((), input.dtype)
    _read(k, input, target, weight)
    k.save(total_weight=total_weight)
    return loss


def _nll_backward(k: Tape, saved: Saved, grads: Grads, *, reduction: str, ignore_index: int) -> Grads:
    out = k.empty(saved["input"].shape, saved["input"].dtype)
    _read(k, saved["target"], saved["input"], saved.get("weight"))
    return in_order(saved, input=out)


def _nll2d(k: Tape, input: Tensor, target: Tensor, weight: Tensor | None, *, reduction: str, ignore_index: int) -> Tensor:
    check_class_indices(input, target, weight)
    if input.ndim != 4:
        raise ShapeError(f"nll_loss2d_forward needs 4 dims, got shape {list(input.shape)}")
    note_given(k, input=input, target=target, weight=weight)
    k.save(input=input, target=target, weight=weight)
    total_weight = k.empty((), input.dtype)
    loss = k.empty(target.shape if reduction == "none" else (), input.dtype)
    _read(k, *((weight,) if reduction == "none" else (input, weight, target)))
    k.save(total_weight=total_weight)
    return loss


def _nll2d_backward(k: Tape, saved: Saved, grads: Grads, *, reduction: str, ignore_index: int) -> Grads:
    out = empty_like(k, saved["input"])
    if not out.is_contiguous:
        raise UnsupportedError("torch has no gradient of nll_loss2d for an input that is not contiguous on CUDA; call contiguous() first")
    weight = saved.get("weight")
    _read(k, *((weight,) if reduction == "none" else (saved["target"], weight)))
    return in_order(saved, input=out)


def _masked_select(k: Tape, input: Tensor, mask: Tensor, *, count: int | None) -> Tensor:
    """An index by mask: where it is true, then the elements there. ``count`` says how many, by default all."""
    if mask.shape != input.shape:
        raise ShapeError(f"masked_select needs a mask of the input's shape {list(input.shape)}, got {list(mask.shape)}")
    k.save(mask=mask, input=input)
    chosen = input.numel if count is None else count
    places = nonzero(k, mask, chosen)
    out = k.empty((chosen,), input.dtype)
    k.free(places)
    return out


def _masked_select_backward(k: Tape, saved: Saved, grads: Grads, *, count: int | None) -> Grads:
    """Zeros, into which the gradient is scattered: a running count of the mask tells where from."""
    mask = saved["mask"]
    out = empty_like(k, saved["input"])
    serial = k.empty(out.shape, "int64")
    dense = contiguous(k, mask)
    scanned(k, mask.numel, "int64")
    source = incoming(grads)
    read = contiguous(k, source)
    k.free(None if read is source else read, None if dense is mask else dense, serial)
    return [out, None]


ROWS: tuple[Operator, ...] = (
    replace(FAMILY["nll_loss_forward"], forward=_nll, backward=_nll_backward, source="aten/src/ATen/native/cuda/Loss.cu"),
    replace(FAMILY["nll_loss2d_forward"], forward=_nll2d, backward=_nll2d_backward, source="aten/src/ATen/native/cuda/NLLLoss2d.cu"),
    replace(
        FAMILY["masked_select"],
        forward=_masked_select,
        backward=_masked_select_backward,
        source="aten/src/ATen/native/cuda/IndexKernel.cpp (masked_select, masked_scatter), Nonzero.cu",
    ),
)
SAME = ("gather",)
