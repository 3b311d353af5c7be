"""Normalizations on CUDA.

Batch norm is :mod:`of one process <memest.runtimes.torch.cuda.normalization_batch>` or :mod:`of all ranks
<memest.runtimes.torch.cuda.normalization_synced>`.

Group norm works on contiguous tensors alone; layer norm and the fused RMS norm keep statistics in float32 whatever the input is.

Sources: aten/src/ATen/native/group_norm.cpp, cuda/group_norm_kernel.cu, layer_norm.cpp, cuda/layer_norm_kernel.cu.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

from memest.errors import UnsupportedError
from memest.network.dtypes import opmath
from memest.network.tensor import Shape
from memest.ops.aten.copies import contiguous, suggests_channels_last
from memest.ops.aten.iterator import empty_like
from memest.ops.aten.reductions import sum_into
from memest.ops.composite import Caller, Composite
from memest.ops.families import normalization as on_cpu
from memest.ops.families.normalization import check_group_norm, check_normalized
from memest.ops.operator import Operator
from memest.ops.roles import in_order, note_given, wanted
from memest.ops.tape import Tape, Tensor
from memest.runtimes.torch.cuda.copies import release
from memest.runtimes.torch.cuda.normalization_batch import Grads, Saved, batch_norm, batch_norm_backward
from memest.runtimes.torch.cuda.normalization_synced import synced_batch_norm, synced_batch_norm_backward

LARGEST_INDEX = (1 << 31) - 1


# batch norm --------------------------------------------------------------------------------------------------------------


def _batch_norm(k: Tape, *tensors: Tensor | None, training: bool, momentum: float, eps: float, ranks: int | None) -> Tensor:
    """Statistics are those of all ranks only while the network trains (nn.SyncBatchNorm)."""
    of = ranks if training and k.training and ranks is not None else 1
    k.note(ranks=of)
    return synced_batch_norm(k, *tensors, ranks=of) if of > 1 else batch_norm(k, *tensors, training=training)


def _batch_norm_backward(k: Tape, saved: Saved, grads: Grads, *, training: bool, momentum: float, eps: float, ranks: int | None) -> Grads:
    (grad,) = grads
    assert grad is not None
    return synced_batch_norm_backward(k, saved, grad) if saved["ranks"] > 1 else batch_norm_backward(k, saved, grad, training)


# group norm --------------------------------------------------------------------------------------------------------------

FLOAT_STATISTICS_SINCE, SCRATCH_SINCE = (2, 13), (2, 14)


def _group_norm(k: Tape, input: Tensor, weight: Tensor | None, bias: Tensor | None, *, num_groups: int, eps: float) -> Tensor:
    """Up to 2.13 a contiguous copy of the input comes first and is kept; from 2.14 on the kernel makes and drops it. From 2.13 on it has
    the statistics of half types in float32 besides."""
    check_group_norm(input, weight, bias, num_groups)
    _refuse_mixed("group_norm", input, weight, bias)
    note_given(k, input=input, weight=weight, bias=bias)
    n, channels = input.shape[:2]
    since_2_14 = k.target.version >= SCRATCH_SINCE
    kept = input if since_2_14 else contiguous(k, input)
    k.save(input=kept, weight=weight)
    out = k.empty(input.shape, input.dtype)
    mean, rstd = k.empty((n, num_groups), input.dtype), k.empty((n, num_groups), input.dtype)
    x = contiguous(k, kept)
    dtype = opmath(input.dtype)
    terms: list[Tensor] = []
    if k.target.version >= FLOAT_STATISTICS_SINCE and dtype != input.dtype:
        terms += [k.empty((n, num_groups), dtype) for _ in range(2)]
    if (weight is not None or bias is not None) and prod(input.shape[2:]) != 1:
        terms += [k.empty((n, channels), dtype) for _ in range(2)]
    k.free(*reversed(terms))
    release(k, (x, kept))
    k.save(mean=mean, rstd=rstd)
    return out


def _refuse_mixed(op: str, input: Tensor, *parameters: Tensor | None) -> None:
    for t in parameters:
        if t is not None and t.dtype != input.dtype:
            raise UnsupportedError(f"torch has no {op} of {input.dtype} with parameters in {t.dtype} on CUDA")


def _group_norm_backward(k: Tape, saved: Saved, grads: Grads, *, num_groups: int, eps: float) -> Grads:
    (grad,) = grads
    assert grad is not None
    x = saved["input"]
    wants = wanted(k, saved)
    n, channels = x.shape[:2]
    dtype = opmath(x.dtype)
    dense = [(contiguous(k, t), t) for t in (grad, x)]
    for_input = empty_like(k, dense[1][0]) if "input" in wants else None  # one channel may lie in both orders, and keeps its strides
    for_weight = k.empty((channels,), x.dtype) if "weight" in wants else None
    for_bias = k.empty((channels,), x.dtype) if "bias" in wants else None
    flat = prod(x.shape[2:]) == 1
    terms = [k.empty((n, channels), dtype) for _ in range(0 if flat and k.target.version >= SCRATCH_SINCE else 2)]
    if for_input is not None:
        terms += [k.empty((n, num_groups), dtype) for _ in range(2)]
        if saved.get("weight") is not None and not flat:
            terms.append(k.empty((n, channels), dtype))
    k.free(*reversed(terms))
    release(k, *reversed(dense))
    return in_order(saved, input=for_input, weight=for_weight, bias=for_bias)


# layer norm, RMS norm ----------------------------------------------------------------------------------------------------

MANY_ROWS, SEGMENT_WIDTH, SEGMENT_ROWS, MOST_SEGMENTS = 64 * 1024, 32, 32, 32 * 1024


def _layer_norm(k: Tape, input: Tensor, weight: Tensor | None, bias: Tensor | None, *, normalized_shape: Shape, eps: float) -> Tensor:
    check_normalized("layer_norm", input.shape, normalized_shape, weight=_shape(weight), bias=_shape(bias))
    _refuse_mixed("layer_norm", input, weight, bias)
    note_given(k, input=input, weight=weight, bias=bias)
    k.save(bias=bias, input=input, weight=weight)
    out, statistics = _normalized(k, input, normalized_shape, 2)
    k.save(mean=statistics[0], rstd=statistics[1])
    return out


def _rms_norm(k: Tape, input: Tensor, weight: Tensor | None, *, normalized_shape: Shape, eps: float | None) -> Tensor:
    check_normalized("rms_norm", input.shape, normalized_shape, weight=_shape(weight))
    note_given(k, input=input, weight=weight)
    k.save(input=input, weight=weight)
    out, (rstd,) = _normalized(k, input, normalized_shape, 1)
    k.save(rstd=rstd)
    return out


def _shape(t: Tensor | None) -> Shape | None:
    return None if t is None else t.shape


def _normalized(k: Tape, input: Tensor, normalized: Shape, kinds: int) -> tuple[Tensor, list[Tensor]]:
    outer = (*input.shape[: input.ndim - len(normalized)], *(1,) * len(normalized))
    x = contiguous(k, input)
    out = k.empty(input.shape, input.dtype)
    statistics = [k.empty(outer, opmath(input.dtype)) for _ in range(kinds)]
    release(k, (x, input))
    return out, statistics


def _layer_norm_backward(k: Tape, saved: Saved, grads: Grads, *, normalized_shape: Shape, eps: float) -> Grads:
    return in_order(saved, **_normalized_backward(k, saved, grads, normalized_shape, ("weight", "bias")))


def _rms_norm_backward(k: Tape, saved: Saved, grads: Grads, *, normalized_shape: Shape, eps: float | None) -> Grads:
    return in_order(saved, **_normalized_backward(k, saved, grads, normalized_shape, ("weight",)))


def _normalized_backward(k: Tape, saved: Saved, grads: Grads, normalized: Shape, parameters: tuple[str, ...]) -> dict[str, Tensor | None]:
    (grad,) = grads
    assert grad is not None
    input = saved["input"]
    wants = wanted(k, saved)
    x = contiguous(k, input)
    made: dict[str, Tensor | None] = {}
    if "input" in wants:
        made["input"] = k.empty(input.shape, input.dtype)
    for role in parameters:
        if role in wants:
            made[role] = k.empty(normalized, saved[role].dtype)
    dense = contiguous(k, grad)
    _in_segments(k, made, parameters, input, normalized)
    release(k, (dense, grad), (x, input))
    return made


def _in_segments(k: Tape, made: dict[str, Tensor | None], parameters: tuple[str, ...], input: Tensor, normalized: Shape) -> None:
    """``LaunchGammaBetaBackwardCUDAKernel``: of many short rows the parameters' gradients are summed in segments, into tensors of their
    own that are summed once more and take the place of those made before."""
    width = prod(normalized)
    rows = prod(input.shape) // width
    if rows <= MANY_ROWS or width // SEGMENT_WIDTH >= k.target.device.multiprocessors // 2:
        return
    segments = min(MOST_SEGMENTS // -(-width // SEGMENT_WIDTH), -(-rows // SEGMENT_ROWS))
    parts = {role: k.empty((segments, normalized[-1]), t.dtype) for role in parameters if (t := made.get(role)) is not None}
    for role, part in parts.items():
        total = k.empty((normalized[-1],), part.dtype)
        sum_into(k, part, total, [0])
        k.free(made[role])
        made[role] = total
    k.free(*reversed(parts.values()))


def _compose_rms_norm(c: Caller, input: Any, weight: Any, *, normalized_shape: Shape, eps: float | None) -> Any:
    """``rms_norm``: fused, unless the input is channels_last or the weight of another dtype."""
    last = suggests_channels_last(Tensor(input.spec.shape, input.spec.strides, input.spec.dtype, 0))
    if last or (weight is not None and weight.spec.dtype != input.spec.dtype):
        return COMPOSED.compose(c, input, weight, normalized_shape=normalized_shape, eps=eps)
    return c.call("_fused_rms_norm", input, weight, normalized_shape=normalized_shape, eps=eps)


BY_NAME = {row.name: row for row in on_cpu.ROWS}
(COMPOSED,) = (row for row in on_cpu.COMPOSITE_ROWS if row.name == "rms_norm")
FUSED = Operator(
    name="_fused_rms_norm",
    torch="torch.ops.aten._fused_rms_norm",
    roles=("input", "weight?"),
    attributes=COMPOSED.attributes,
    forward=_rms_norm,
    saves=("input", "weight", "rstd"),
    backward=_rms_norm_backward,
    examples=(),
    facts=BY_NAME["layer_norm"].facts,
    source="derivatives.yaml: _fused_rms_norm; aten/src/ATen/native/cuda/layer_norm_kernel.cu",
)
ROWS: tuple[Operator | Composite, ...] = (
    replace(
        BY_NAME["batch_norm"],
        forward=_batch_norm,
        saves=("input", "running_mean", "running_var", "weight", "save_mean", "save_invstd", "reserve", "counts"),
        backward=_batch_norm_backward,
        source="derivatives.yaml: cudnn_batch_norm, native_batch_norm; aten/src/ATen/native/cudnn/BatchNorm.cpp, cuda/Normalization.cu; "
        "torch/nn/modules/_functions.py (SyncBatchNorm)",
    ),
    replace(
        BY_NAME["group_norm"],
        forward=_group_norm,
        backward=_group_norm_backward,
        source="derivatives.yaml: native_group_norm; aten/src/ATen/native/group_norm.cpp, cuda/group_norm_kernel.cu",
    ),
    replace(
        BY_NAME["layer_norm"],
        forward=_layer_norm,
        backward=_layer_norm_backward,
        source="derivatives.yaml: native_layer_norm; aten/src/ATen/native/cuda/layer_norm_kernel.cu",
    ),
    FUSED,
    replace(COMPOSED, compose=_compose_rms_norm, source="aten/src/ATen/native/layer_norm.cpp (rms_norm)"),
)
SAME: tuple[str, ...] = ()
