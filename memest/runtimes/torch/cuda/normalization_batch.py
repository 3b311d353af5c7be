"""Batch norm on CUDA, which has two forms. cuDNN's takes inputs of 3 dims or more with weight and bias, in float32 and float64, and float16
with float32 parameters; it keeps a reserve besides the statistics. ATen's own takes the rest: bfloat16, inputs without parameters, N×C. In
evaluation both are followed by ATen's backward.

Sources: aten/src/ATen/native/Normalization.cpp (``_select_batch_norm_backend``), cudnn/BatchNorm.cpp, cuda/Normalization.cu, .cuh.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

from memest.errors import UnsupportedError
from memest.network.dtypes import HALVES, opmath
from memest.network.tensor import Shape, is_channels_last
from memest.ops.aten.copies import contiguous, suggests_channels_last
from memest.ops.aten.cuda_reduce import reduce, welford
from memest.ops.aten.iterator import empty_like
from memest.ops.aten.views import viewed_strides
from memest.ops.families.normalization import check_batch_norm
from memest.ops.roles import in_order, note_given, wanted
from memest.ops.tape import Tape, Tensor
from memest.runtimes.torch.cuda.copies import formatted, release

Saved = dict[str, Any]
Grads = list[Tensor | None]
LARGEST_INDEX = (1 << 31) - 1


MOST_IMAGES = {True: 880_801, False: 65_535}
BATCH_ROLES = ("input", "running_mean", "running_var", "weight", "bias", "num_batches_tracked")


def batch_norm(k: Tape, *tensors: Tensor | None, training: bool) -> Tensor:
    """``batch_norm`` of this process alone."""
    given = dict(zip(BATCH_ROLES, tensors, strict=True))
    input, mean, var, weight, bias = (given[role] for role in BATCH_ROLES[:-1])
    assert input is not None
    check_batch_norm(input, training, running_mean=mean, running_var=var, weight=weight, bias=bias)
    check_dtypes(input, weight, bias, mean, var)
    note_given(k, **given)
    by_cudnn = k.target.settings.enabled and _takes_cudnn(input, weight, bias, mean, var, training)
    k.note(by_cudnn=by_cudnn)
    if by_cudnn:
        return _by_cudnn(k, input, mean, var, weight, training)
    k.save(input=input, running_mean=mean, running_var=var, weight=weight)
    out = empty_like(k, input)
    kept = [k.empty((input.shape[1],), opmath(input.dtype)) for _ in range(2)]
    if training:
        _statistics(k, input, kept)
    kernel = kernel_of(input)
    if kernel == "general" or (kernel == "channels_last" and out.strides != input.strides):
        k.free(*(k.empty((), kept[0].dtype) for t in (weight, bias) if t is None))
    k.save(save_mean=kept[0], save_invstd=kept[1])
    return out


def check_dtypes(input: Tensor, *parameters: Tensor | None) -> None:
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
    k.save(input=x, running_mean=mean, running_var=var, weight=weight)
    out = formatted(k, x.shape, x.dtype, last)
    if not training:
        none = k.empty((0,), weight.dtype)
        k.save(save_mean=none, save_invstd=none)
        return out
    save_mean, save_invstd = k.empty(weight.shape, weight.dtype), k.empty(weight.shape, weight.dtype)
    high_workspace, high_reserve = _most_of_cudnn(k, x, last)
    workspace = _modelled(k, high_workspace)
    reserve = _modelled(k, high_reserve)
    k.free(workspace)
    k.save(save_mean=save_mean, save_invstd=save_invstd, reserve=reserve)
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


def kernel_of(t: Tensor) -> Kernel:
    """``batch_norm_choose_impl``."""
    if prod(t.shape) > LARGEST_INDEX:
        return "general"
    if t.is_contiguous:
        return "channels_last" if t.strides[1] == 1 else "contiguous"
    return "channels_last" if t.ndim == 4 and is_channels_last(t.shape, t.strides) else "general"


def lies_channels_last(t: Tensor) -> bool:
    """``batch_norm_use_channels_last_kernels``, which counts volumes in."""
    return is_channels_last(t.shape, t.strides) or (t.is_contiguous and t.strides[1] == 1)


def _statistics(k: Tape, input: Tensor, kept: Sequence[Tensor]) -> None:
    kernel = kernel_of(input)
    if kernel == "channels_last":
        stage(k, input, kept[0].dtype, 4)
    elif kernel == "general":
        gone = [d for d in range(input.ndim) if d != 1]
        cast = empty_like(k, input, "float32") if input.dtype == "bfloat16" else input  # a reduction to two results reads float16 alone
        reduce(k, cast, gone, welford(cast.dtype, kept[0].dtype), keepdim=False, out_bytes=kept[0].itemsize)
        release(k, (cast, input))


BLOCK, TILE, ROWS_PER_THREAD, MOST_BLOCKS, FEWEST_BLOCKS = 512, 32, 16, 128, 8


def stage(k: Tape, input: Tensor, dtype: str, parts: int) -> None:
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


def batch_norm_backward(k: Tape, saved: Saved, grad: Tensor, training: bool) -> Grads:
    """Its backward."""
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
    if reduces and "input" in wants and not lies_channels_last(input) and prod(input.shape) <= LARGEST_INDEX:
        return _fused_backward(k, input, weight, grad, wants)
    dtype = opmath(input.dtype)
    channels = (input.shape[1],)
    if saved["save_mean"].numel == 0:
        if reduces and saved["running_mean"].dtype != dtype:
            k.empty(channels, dtype)
        k.empty(channels, dtype)
    made = reduced(k, input, weight, grad, wants, dtype)[1] if reduces else {}
    if "input" in wants:
        made["input"] = elementwise_backward(k, input, weight, grad, dtype) if training else k.empty(input.shape, grad.dtype)
    return made


def _fused_backward(k: Tape, input: Tensor, weight: Tensor | None, grad: Tensor, wants: frozenset[str]) -> dict[str, Tensor | None]:
    by_planes(k, input, grad)
    made: dict[str, Tensor | None] = {"input": k.empty(input.shape, input.dtype)}
    for role in ("weight", "bias"):
        if role in wants:
            assert weight is not None
            made[role] = k.empty(weight.shape, weight.dtype)
    return made


def reduced(
    k: Tape, input: Tensor, weight: Tensor | None, grad: Tensor, wants: frozenset[str], dtype: str
) -> tuple[list[Tensor], dict[str, Tensor | None]]:
    """``batch_norm_backward_reduce_cuda``: two sums, gradients of the parameters. By columns all are made, wanted or not."""
    channels = (input.shape[1],)
    by_columns = prod(grad.shape) <= LARGEST_INDEX and lies_channels_last(grad) and lies_channels_last(input)
    copies = [] if by_columns else by_planes(k, input, grad)
    sums = [k.empty(channels, dtype) for _ in range(2 if by_columns or "input" in wants else 0)]
    made: dict[str, Tensor | None] = {}
    for role in ("weight", "bias"):
        if weight is not None and (by_columns or role in wants):
            made[role] = k.empty(channels, weight.dtype)
    if by_columns:
        stage(k, input, dtype, 2)
    k.free(*reversed(copies))
    return sums, made


def by_planes(k: Tape, *tensors: Tensor) -> list[Tensor]:
    """``reshape({N, C, -1})``: copies of what cannot be seen so, kept by the kernel."""
    return [k.empty(t.shape, t.dtype) for t in tensors if viewed_strides(t.shape, t.strides, planes(t.shape)) is None]


def planes(shape: Shape) -> Shape:
    return (shape[0], shape[1], prod(shape[2:]))


def elementwise_backward(k: Tape, input: Tensor, weight: Tensor | None, grad: Tensor, dtype: str) -> Tensor:
    kernel = kernel_of(input) if kernel_of(input) == kernel_of(grad) else "general"
    if kernel == "contiguous":
        return k.empty(input.shape, input.dtype)
    if kernel == "channels_last":
        return empty_like(k, input)
    one = k.empty((), dtype) if weight is None else None
    out = formatted(k, input.shape, grad.dtype, suggests_channels_last(input))
    k.free(one)
    return out
