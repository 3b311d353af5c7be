"""nn.SyncBatchNorm on CUDA: batch norm whose statistics are those of all ranks, a Python function of ATen's kernels.

Every rank tells mean, inverse deviation and the number of its elements a channel; ranks that have none are left out by a mask (all are
taken to have some). The sums of backward are added up among the ranks in place. NCCL's collectives take nothing of torch's allocator.

Sources: torch/nn/modules/_functions.py (SyncBatchNorm), batchnorm.py; aten/src/ATen/native/cuda/Normalization.cu
(``batch_norm_stats``, ``batch_norm_gather_stats_with_counts``, ``batch_norm_elemt``, ``batch_norm_backward_reduce``,
``batch_norm_backward_elemt``).
"""

from __future__ import annotations

from math import prod

from memest.network.dtypes import opmath
from memest.network.tensor import is_channels_last
from memest.ops.aten.copies import contiguous
from memest.ops.aten.iterator import empty_like
from memest.ops.aten.masks import nonzero
from memest.ops.families.normalization import check_batch_norm
from memest.ops.roles import in_order, note_given, wanted
from memest.ops.tape import Tape, Tensor
from memest.runtimes.torch.cuda.normalization_batch import (
    BATCH_ROLES,
    LARGEST_INDEX,
    Grads,
    Saved,
    by_planes,
    check_dtypes,
    kernel_of,
    lies_channels_last,
    reduced,
    stage,
)


def synced_batch_norm(k: Tape, *tensors: Tensor | None, ranks: int) -> Tensor:
    """Forward."""
    given = dict(zip(BATCH_ROLES, tensors, strict=True))
    input, mean, var, weight, bias = (given[role] for role in BATCH_ROLES[:-1])
    assert input is not None
    check_batch_norm(input, True, ranks, running_mean=mean, running_var=var, weight=weight, bias=bias)
    check_dtypes(input, weight, bias, mean, var)
    note_given(k, **given)
    x = _dense(k, input)
    dtype, channels = opmath(x.dtype), x.shape[1]
    local = [k.empty((channels,), dtype) for _ in range(2)]
    if lies_channels_last(x):
        stage(k, x, dtype, 4)
    count = k.empty((1,), dtype)
    own = k.empty((2 * channels + 1,), dtype)
    told = k.empty((1, ranks * own.numel), dtype)
    k.free(own)
    mask = k.empty((ranks,), "bool")
    counts, *of_all = (_where(k, mask, columns, dtype) for columns in (1, channels, channels))
    cast = k.empty((ranks,), mean.dtype) if mean is not None and mean.dtype != dtype else None
    found = [k.empty((channels,), dtype) for _ in range(2)]
    k.free(*local)
    kept = k.empty((ranks, 1), "int32")
    out = empty_like(k, x)
    if kernel_of(x) == "general":
        k.free(*(k.empty((), dtype) for t in (weight, bias) if t is None))
    k.free(count, *of_all, mask, cast, counts, told)
    k.save(input=x, weight=weight, save_mean=found[0], save_invstd=found[1], counts=kept)
    return out


def _dense(k: Tape, t: Tensor) -> Tensor:
    return t if is_channels_last(t.shape, t.strides) else contiguous(k, t)


def _where(k: Tape, mask: Tensor, columns: int, dtype: str) -> Tensor:
    """``gathered[mask]``, whose rows all are true."""
    rows = nonzero(k, mask, mask.numel)
    out = k.empty((mask.numel, columns), dtype)
    k.free(rows)
    return out


def synced_batch_norm_backward(k: Tape, saved: Saved, grad: Tensor) -> Grads:
    """Backward: the sums of all ranks are one tensor, of which views are read."""
    input, weight = saved["input"], saved.get("weight")
    dtype = opmath(input.dtype)
    wants = wanted(k, saved)
    dense = _dense(k, grad)
    sums, made = reduced(k, input, weight, dense, wants, dtype)
    if "input" in wants:
        k.empty((2 * input.shape[1],), dtype)
        k.free(*sums)
        if weight is not None and weight.dtype != dtype:
            k.empty(weight.shape, dtype)
        made["input"] = _gradient(k, input, dense)
    return in_order(saved, **made)


def _gradient(k: Tape, input: Tensor, grad: Tensor) -> Tensor:
    """``batch_norm_backward_elemt_cuda``."""
    if prod(grad.shape) <= LARGEST_INDEX and lies_channels_last(grad) and lies_channels_last(input):
        return empty_like(k, input)
    copy = by_planes(k, input)
    out = k.empty(input.shape, input.dtype)
    k.free(*by_planes(k, grad), *copy)
    return out
