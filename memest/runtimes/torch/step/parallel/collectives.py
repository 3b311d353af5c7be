"""What a collective takes from torch's allocator: the gloo backend's on CPU tensors, and nothing on CUDA, where NCCL works on the tensors
it is given, with buffers of its own that do not come from there.

Sources: torch/csrc/distributed/c10d/ProcessGroupGloo.cpp (allgather gathers into a flat tensor of its own, reduce_scatter is a clone
that is all-reduced in place, an average is a division by a number afterwards) and comm.cpp (broadcast_coalesced). All-reduce and
broadcast work in place; gloo's own buffers do not come from torch's allocator.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

from memest.machines.gpu import Device
from memest.machines.target import Target
from memest.memory.stream import Storage
from memest.network.dtypes import ITEMSIZE
from memest.network.tensor import Spec, nbytes
from memest.runtimes.torch.ledger import Ledger

IN_FLIGHT = 2  # max_in_flight of broadcast_coalesced
BROADCAST_BYTES = 250 * 1024**2  # broadcast_bucket_size of DistributedDataParallel


def number_op(ledger: Ledger, dtype: str, target: Target) -> None:
    """An in-place operator with a number: the float64 it is wrapped in, and its copy in the tensor's dtype (on CUDA neither is device
    memory)."""
    if target.on_cuda:
        return
    wrapped = ledger.allocate(8)
    cast = ledger.allocate(ITEMSIZE[dtype]) if dtype != "float64" else None
    if cast is not None:
        ledger.release(cast)
    ledger.release(wrapped)


def all_gather(ledger: Ledger, size: int, target: Target) -> None:
    """``all_gather_into_tensor`` of ``size`` bytes in all: a flat output when the work is made, another one when it runs."""
    if target.on_cuda:
        return
    for _ in range(2):
        ledger.release(ledger.allocate(size, reason="gloo's own output of an all-gather"))


def reduce_scatter(ledger: Ledger, size: int, dtype: str, world: int, target: Target) -> None:
    """The average over all ranks of ``size`` bytes, of which each gets its part. float32 and bfloat16 are summed and then divided; the
    others are divided by about the root of ``world`` before and by the rest after (``_get_gradient_divide_factors``)."""
    if target.on_cuda:
        return
    averages = dtype in ("float32", "bfloat16")
    before = 1
    while world % before == 0 and world / before > before:
        before *= 2
    if not averages and before != 1:
        number_op(ledger, dtype, target)
    clone = ledger.allocate(size, reason="gloo's own sum of a reduce-scatter")
    if averages:
        number_op(ledger, dtype, target)
    ledger.release(clone)
    if not averages and world != before:
        number_op(ledger, dtype, target)


def broadcast_coalesced(ledger: Ledger, tensors: Sequence[Spec]) -> None:
    """``_broadcast_coalesced``: tensors of one dtype go in flat copies of up to 250 MiB, two of them under way at a time."""
    waiting: list[Storage] = []
    for bucket in buckets(tensors, (BROADCAST_BYTES,)):
        if len(waiting) == IN_FLIGHT:
            ledger.release(waiting.pop(0))
        size = sum(nbytes(tensors[i].shape, tensors[i].dtype) for i in bucket)
        waiting.append(ledger.allocate(size if len(bucket) > 1 else 0, reason="buffers on their way to all ranks"))
    for flat in waiting:
        ledger.release(flat)


def buckets(tensors: Sequence[Spec], limits: Sequence[int]) -> list[list[int]]:
    """``compute_bucket_assignment_by_size``: numbers of the tensors that share a bucket. A bucket is full once it has reached its limit:
    the first bucket of a dtype has the first limit, the next ones the next, and the last limit stays."""
    done: list[list[int]] = []
    open_buckets: dict[str, tuple[list[int], int]] = {}
    filled: dict[str, int] = {}
    for i, t in enumerate(tensors):
        members, size = open_buckets.get(t.dtype, ([], 0))
        members, size = [*members, i], size + nbytes(t.shape, t.dtype)
        number = filled.get(t.dtype, 0)
        if size >= limits[min(number, len(limits) - 1)]:
            done.append(members)
            filled[t.dtype] = number + 1
            members, size = [], 0
        open_buckets[t.dtype] = (members, size)
    done.extend(members for members, _ in open_buckets.values() if members)
    return sorted(done, key=min)


# FSDP2's copies on CUDA -------------------------------------------------------------------------------------------------

BLOCK = 128  # threads
TILE = 16 * BLOCK  # bytes that a block copies at once
NUMBER_BYTES = 8


def copy_out_numbers(chunks: Sequence[int], world: int, device: Device) -> int:
    """Bytes of what ``split_with_sizes_copy`` tells its one kernel: for each tensor both addresses, the bytes it has of a rank, and where
    its blocks begin; for each block its tensor. Blocks take more at once where there are many (aten/src/ATen/native/cuda/TensorShape.cu).
    """
    most = device.multiprocessors * device.threads_per_multiprocessor // BLOCK * 2
    each = -(-sum(-(-n // TILE) for n in chunks) * world // most)
    at_once = min(isqrt(max(each - 1, 0)) + 1, world)
    tile = TILE * max(1, -(-each // at_once))
    return NUMBER_BYTES * (4 * len(chunks) + 1 + sum(-(-n // tile) for n in chunks))


def copy_in_numbers(chunks: Sequence[int]) -> int:
    """The same of ``_chunk_cat``: seven lists, of which two are one longer than there are tensors and one tells the tensor of a block."""
    return NUMBER_BYTES * (6 * len(chunks) + 2 + sum(-(-n // TILE) for n in chunks))
