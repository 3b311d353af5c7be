"""Normalizations on CUDA.

Batch norm has two forms. cuDNN's takes inputs of 3 dims or more with weight and bias, in float32 and float64, and float16 with float32
parameters; it keeps a reserve besides the statistics. ATen's own takes the rest: bfloat16, inputs without parameters, N×C. In evaluation
both are followed by ATen's backward.

Group norm works on contiguous tensors alone; layer norm and the fused RMS norm keep statistics in float32 whatever the input is.

Sources: aten/src/ATen/native/Normalization.cpp (``_select_batch_norm_backend``), cudnn/BatchNorm.cpp, cuda/Normalization.cu, .cuh,
group_norm.cpp, cuda/group_norm_kernel.cu, layer_norm.cpp, cuda/layer_norm_kernel.cu.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any, Literal

from memest.errors import UnsupportedError
from memest.network.dtypes import HALVES
from memest.network.tensor import Shape, is_channels_last
from memest.ops.aten.copies import contiguous, suggests_channels_last
from memest.ops.aten.cuda_reduce import reduce, welford
from memest.ops.aten.iterator import empty_like
from memest.ops.aten.reductions import sum_into
from memest.ops.aten.views import viewed_strides
from memest.ops.composite import Caller, Composite
from memest.ops.families import normalization as on_cpu
from memest.ops.families.normalization import check_batch_norm, check_group_norm, check_normalized
from memest.ops.operator import Operator
from memest.ops.roles import in_order, note_given, wanted
from memest.ops.tape import Tape, Tensor
from memest.runtimes.torch.cuda.copies import formatted, release

Saved = dict[str, Any]
Grads = list[Tensor | None]
LARGEST_INDEX = (1 << 31) - 1


def _accumulator(dtype: str) -> str:
    """``toAccumulateType`` on CUDA."""
    return "float32" if dtype in HALVES else dtype


# batch norm --------------------------------------------------------------------------------------------------------------

MOST_IMAGES = {True: 880_801, False: 65_535}
BATCH_ROLES = ("input", "running_mean", "running_var", "weight", "bias", "num_batches_tracked")


def _batch_norm(k: Tape, *tensors: Tensor | None, training: bool, momentum: float, eps: float) -> Tensor:
    given = dict(zip(BATCH_ROLES, tensors, strict=True))
    input, mean, var, weight, bias = (given[role] for role in BATCH_ROLES[:-1])
    assert input is not None
    check_batch_norm(input, training, running_mean=mean, running_var=var, weight=weight, bias=bias)
    _check_dtypes(input, weight, bias, mean, var)
    note_given(k, **given)
    by_cudnn = k.target.settings.enabled and _takes_cudnn(input, weight, bias, mean, var, training)
    k.note(by_cudnn=by_cudnn)
    if by_cudnn:
        return _by_cudnn(k, input, mean, var, weight, training)
    out = empty_like(k, input)
    kept = [k.empty((input.shape[1],), _accumulator(input.dtype)) for _ in range(2)]
    if training:
        _statistics(k, input, kept)
    kernel = _kernel(input)
    if kernel == "general" or (kernel == "channels_last" and out.strides != input.strides):
        k.free(*(k.empty((), kept[0].dtype) for t in (weight, bias) if t is None))
    k.save(input=input, running_mean=mean, running_var=var, weight=weight, save_mean=kept[0], save_invstd=kept[1])
    return out


def _check_dtypes(input: Tensor, *parameters: Tensor | None) -> None:
    for t in parameters:
        if t is not None and t.dtype != input.dtype and not (input.dtype in HALVES and t.dtype == "float32"):
            raise UnsupportedError(f"torch has no batch_norm of {input.dtype} with parameters in {t.dtype} on CUDA")


def _takes_cudnn(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, var: Tensor | None, training: bool
) -> bool:
    if weight is None or bias is None or "bfloat16" in (input.dtype, weight.dtype) or input.ndim < 3:
        return False
    if input.dtype == "float16" and weight.dtype != "float32":
        return False
    statistics = (mean is None) == (var is None) and (mean is not None or training)
    return statistics and input.shape[0] <= MOST_IMAGES[training] and prod(input.shape) < LARGEST_INDEX


def _by_cudnn(k: Tape, input: Tensor, mean: Tensor | None, var: Tensor | None, weight: Tensor | None, training: bool) -> Tensor:
    """``cudnn_batch_norm``: the input is made dense in the format it suggests, and kept so."""
    assert weight is not None
    last = suggests_channels_last(input)
    x = contiguous(k, input, last)
    out = formatted(k, x.shape, x.dtype, last)
    if not training:
        none = k.empty((0,), weight.dtype)
        k.save(input=x, running_mean=mean, running_var=var, weight=weight, save_mean=none, save_invstd=none)
        return out
    save_mean, save_invstd = k.empty(weight.shape, weight.dtype), k.empty(weight.shape, weight.dtype)
    high_workspace, high_reserve = _most_of_cudnn(k, x, last)
    workspace = _modelled(k, high_workspace)
    reserve = _modelled(k, high_reserve)
    k.free(workspace)
    k.save(input=x, running_mean=mean, running_var=var, weight=weight, save_mean=save_mean, save_invstd=save_invstd, reserve=reserve)
    return out


def _modelled(k: Tape, most: int) -> Tensor | None:
    """Nothing, but perhaps up to ``most``."""
    return k.scratch(0, (0, most)) if most else None


def _most_of_cudnn(k: Tape, x: Tensor, last: bool) -> tuple[int, int]:
    """Most bytes of the workspace and of the reserve of ``CUDNN_BATCHNORM_OPS_BN``.

    Not known from the library, which answers with a device alone. Published peaks of networks on a card leave no room for a reserve in
    contiguous float32: 0 there, and so in float64. cuDNN's manual gives a workspace to the semi-persistent kernels, which take
    channels_last in float16 (partial sums of both statistics a multiprocessor), and a reserve to the fused activations (a bit an
    element): these are the bounds where such kernels may run.
    """
    if x.dtype != "float16" or not last:
        return 0, 0
    return 2 * 4 * x.shape[1] * k.target.device.multiprocessors, -(-prod(x.shape) // 8)


Kernel = Literal["contiguous", "channels_last", "general"]


def _kernel(t: Tensor) -> Kernel:
    """``batch_norm_choose_impl``."""
    if prod(t.shape) > LARGEST_INDEX:
        return "general"
    if t.is_contiguous:
        return "channels_last" if t.strides[1] == 1 else "contiguous"
    return "channels_last" if t.ndim == 4 and is_channels_last(t.shape, t.strides) else "general"


def _lies_channels_last(t: Tensor) -> bool:
    """``batch_norm_use_channels_last_kernels``, which counts volumes in."""
    return is_channels_last(t.shape, t.strides) or (t.is_contiguous and t.strides[1] == 1)


def _statistics(k: Tape, input: Tensor, kept: Sequence[Tensor]) -> None:
    kernel = _kernel(input)
    if kernel == "channels_last":
        _stage(k, input, kept[0].dtype, 4)
    elif kernel == "general":
        gone = [d for d in range(input.ndim) if d != 1]
        cast = empty_like(k, input, "float32") if input.dtype == "bfloat16" else input  # a reduction to two results reads float16 alone
        reduce(k, cast, gone, welford(cast.dtype, kept[0].dtype), keepdim=False, out_bytes=kept[0].itemsize)
        release(k, (cast, input))


BLOCK, TILE, ROWS_PER_THREAD, MOST_BLOCKS, FEWEST_BLOCKS = 512, 32, 16, 128, 8


def _stage(k: Tape, input: Tensor, dtype: str, parts: int) -> None:
    """``flexible_launch_configs``: where blocks share a channel, ``parts`` numbers of each and semaphores."""
    channels = input.shape[1]
    rows = prod(input.shape) // channels
    wide = min(_last_power_of_2(channels), TILE)
    high = min(_last_power_of_2(-(-rows // ROWS_PER_THREAD)), BLOCK // wide)
    if wide * high != BLOCK:
        wide = min(_last_power_of_2(channels), BLOCK // high)
    blocks = min(-(-rows // (high * ROWS_PER_THREAD)), MOST_BLOCKS)
    if blocks >= FEWEST_BLOCKS:
        staging = k.empty((parts * channels * blocks,), dtype)
        k.free(k.empty((-(-channels // wide),), "int32"), staging)


def _last_power_of_2(n: int) -> int:
    power = 1
    while power * 2 <= n:
        power *= 2
    return power


def _batch_norm_backward(k: Tape, saved: Saved, grads: Grads, *, training: bool, momentum: float, eps: float) -> Grads:
    (grad,) = grads
    assert grad is not None
    wants = wanted(k, saved)
    if saved["by_cudnn"] and training:
        return in_order(saved, **_cudnn_backward(k, saved, grad))
    return in_order(saved, **_native_backward(k, saved, grad, wants, training))


def _cudnn_backward(k: Tape, saved: Saved, grad: Tensor) -> dict[str, Tensor | None]:
    """``cudnn_batch_norm_backward`` makes all three gradients, whatever is wanted."""
    x, weight = saved["input"], saved["weight"]
    last = suggests_channels_last(x)
    contiguous(k, grad, last)
    for_input = formatted(k, x.shape, x.dtype, last)
    for_weight, for_bias = k.empty(weight.shape, weight.dtype), k.empty(weight.shape, weight.dtype)
    k.free(_modelled(k, _most_of_cudnn(k, x, last)[0]))
    return {"input": for_input, "weight": for_weight, "bias": for_bias}


def _native_backward(k: Tape, saved: Saved, grad: Tensor, wants: frozenset[str], training: bool) -> dict[str, Tensor | None]:
    """``batch_norm_backward_cuda``."""
    input, weight = saved["input"], saved.get("weight")
    reduces = training or "weight" in wants or "bias" in wants
    if reduces and "input" in wants and not _lies_channels_last(input) and prod(input.shape) <= LARGEST_INDEX:
        return _fused_backward(k, input, weight, grad, wants)
    dtype = _accumulator(input.dtype)
    channels = (input.shape[1],)
    if saved["save_mean"].numel == 0:
        if reduces and saved["running_mean"].dtype != dtype:
            k.empty(channels, dtype)
        k.empty(channels, dtype)
    made = _reduced(k, input, weight, grad, wants, dtype) if reduces else {}
    if "input" in wants:
        made["input"] = _elementwise_backward(k, input, weight, grad, dtype) if training else k.empty(input.shape, grad.dtype)
    return made


def _fused_backward(k: Tape, input: Tensor, weight: Tensor | None, grad: Tensor, wants: frozenset[str]) -> dict[str, Tensor | None]:
    _by_planes(k, input, grad)
    made: dict[str, Tensor | None] = {"input": k.empty(input.shape, input.dtype)}
    for role in ("weight", "bias"):
        if role in wants:
            assert weight is not None
            made[role] = k.empty(weight.shape, weight.dtype)
    return made


def _reduced(k: Tape, input: Tensor, weight: Tensor | None, grad: Tensor, wants: frozenset[str], dtype: str) -> dict[str, Tensor | None]:
    """``batch_norm_backward_reduce_cuda``: two sums, gradients of the parameters. By columns all are made, wanted or not."""
    channels = (input.shape[1],)
    by_columns = prod(grad.shape) <= LARGEST_INDEX and _lies_channels_last(grad) and _lies_channels_last(input)
    copies = [] if by_columns else _by_planes(k, input, grad)
    if by_columns or "input" in wants:
        k.empty(channels, dtype), k.empty(channels, dtype)
    made: dict[str, Tensor | None] = {}
    for role in ("weight", "bias"):
        if weight is not None and (by_columns or role in wants):
            made[role] = k.empty(channels, weight.dtype)
    if by_columns:
        _stage(k, input, dtype, 2)
    k.free(*reversed(copies))
    return made


def _by_planes(k: Tape, *tensors: Tensor) -> list[Tensor]:
    """``reshape({N, C, -1})``: copies of what cannot be seen so, kept by the kernel."""
    return [k.empty(t.shape, t.dtype) for t in tensors if viewed_strides(t.shape, t.strides, _planes(t.shape)) is None]


def _planes(shape: Shape) -> Shape:
    return (shape[0], shape[1], prod(shape[2:]))


def _elementwise_backward(k: Tape, input: Tensor, weight: Tensor | None, grad: Tensor, dtype: str) -> Tensor:
    kernel = _kernel(input) if _kernel(input) == _kernel(grad) else "general"
    if kernel == "contiguous":
        return k.empty(input.shape, input.dtype)
    if kernel == "channels_last":
        return empty_like(k, input)
    one = k.empty((), dtype) if weight is None else None
    out = formatted(k, input.shape, grad.dtype, suggests_channels_last(input))
    k.free(one)
    return out


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
    out = k.empty(input.shape, input.dtype)
    mean, rstd = k.empty((n, num_groups), input.dtype), k.empty((n, num_groups), input.dtype)
    x = contiguous(k, kept)
    dtype = _accumulator(input.dtype)
    terms: list[Tensor] = []
    if k.target.version >= FLOAT_STATISTICS_SINCE and dtype != input.dtype:
        terms += [k.empty((n, num_groups), dtype) for _ in range(2)]
    if (weight is not None or bias is not None) and prod(input.shape[2:]) != 1:
        terms += [k.empty((n, channels), dtype) for _ in range(2)]
    k.free(*reversed(terms))
    release(k, (x, kept))
    k.save(input=kept, weight=weight, mean=mean, rstd=rstd)
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
    dtype = _accumulator(x.dtype)
    dense = [(contiguous(k, t), t) for t in (grad, x)]
    for_input = k.empty(x.shape, x.dtype) if "input" in wants else None
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
    out, statistics = _normalized(k, input, normalized_shape, 2)
    k.save(bias=bias, input=input, weight=weight, mean=statistics[0], rstd=statistics[1])
    return out


def _rms_norm(k: Tape, input: Tensor, weight: Tensor | None, *, normalized_shape: Shape, eps: float | None) -> Tensor:
    check_normalized("rms_norm", input.shape, normalized_shape, weight=_shape(weight))
    note_given(k, input=input, weight=weight)
    out, (rstd,) = _normalized(k, input, normalized_shape, 1)
    k.save(input=input, weight=weight, rstd=rstd)
    return out


def _shape(t: Tensor | None) -> Shape | None:
    return None if t is None else t.shape


def _normalized(k: Tape, input: Tensor, normalized: Shape, kinds: int) -> tuple[Tensor, list[Tensor]]:
    outer = (*input.shape[: input.ndim - len(normalized)], *(1,) * len(normalized))
    x = contiguous(k, input)
    out = k.empty(input.shape, input.dtype)
    statistics = [k.empty(outer, _accumulator(input.dtype)) for _ in range(kinds)]
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
        saves=("input", "running_mean", "running_var", "weight", "save_mean", "save_invstd", "reserve"),
        backward=_batch_norm_backward,
        source="derivatives.yaml: cudnn_batch_norm, native_batch_norm; aten/src/ATen/native/cudnn/BatchNorm.cpp, cuda/Normalization.cu",
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
