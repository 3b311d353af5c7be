"""What oneDNN's two AVX2 convolution families share: layouts by 8 channels, size limits, and the reducers' scratchpads.

Sources: oneDNN v3.12 src/cpu/x64/cpu_reducer.cpp and .hpp, jit_primitive_conf.hpp (``has_large_size``) and
src/common/memory_tracking.hpp (what one scratchpad entry takes).
"""

from __future__ import annotations

from math import prod

from memest.libraries.onednn.problem import Convolution
from memest.libraries.onednn.scratchpad import ALIGNMENT
from memest.sizes.choices import at_most, choose

BLOCK = 8
"""Floats in an AVX2 register, and channels in a block of every layout here."""

FLOAT_BYTES = 4
INT_MAX = 2**31 - 1
PAGE_BYTES = 4096
BARRIER_BYTES = 4096


def blocks(channels: int) -> int:
    """Blocks needed to hold ``channels``."""
    return -(-channels // BLOCK)


def blocked_data_tag(spatial_dims: int) -> str:
    """nCw8c, nChw8c or nCdhw8c."""
    return f"aB{'cde'[:spatial_dims]}8b"


def blocked_weights_tag(problem: Convolution, *, input_innermost: bool = False) -> str:
    """OIhw8i8o and its relatives, or OIhw8o8i when the input channels are innermost."""
    spatial = problem.spatial_dims
    if problem.groups > 1:
        return f"aBC{'def'[:spatial]}{'8b8c' if input_innermost else '8c8b'}"
    return f"AB{'cde'[:spatial]}{'8a8b' if input_innermost else '8b8a'}"


def exceeds_int(*counts: int) -> bool:
    """Whether one of the element counts does not fit the kernels' 32-bit ints."""
    return any(count > INT_MAX for count in counts)


def is_too_large(problem: Convolution) -> bool:
    """Whether an image or the weights have more elements than the kernels' 32-bit ints can count."""
    return exceeds_int(
        problem.in_channels * prod(problem.input_size),
        problem.out_channels * prod(problem.output_size),
        prod(problem.weights_dims),
    )


def entry_bytes(floats: int, alignment: int = ALIGNMENT) -> int:
    """Bytes one entry adds to a scratchpad: its own, and room to align it; an empty entry adds nothing."""
    return choose(at_most(1, floats), floats * FLOAT_BYTES + alignment, 0)


def balance_reduction(threads: int, job_size: int, jobs: int, reduction: int, buffer_size: int) -> tuple[int, int, int]:
    """(thread groups, threads in a group, jobs of a group at most), as ``reduce_balancer_t::balance`` shares them out.

    oneDNN tries every number of jobs per group; only the first one of each resulting number of groups can change the answer,
    so the others are skipped.
    """
    most_jobs = max(1, buffer_size // (threads * job_size))
    least_jobs = max(1, jobs // threads)
    groups = min(jobs // least_jobs, threads)
    best = (groups, min(threads // groups, reduction), -(-jobs // groups))
    least_cost = jobs * job_size * reduction
    while least_jobs < jobs:
        groups = min(jobs // least_jobs, threads)
        group_threads = min(threads // groups, reduction)
        group_jobs = -(-jobs // groups)
        if group_threads == 1 or group_jobs <= most_jobs:
            cost = job_size * group_jobs * (-(-reduction // group_threads) + (group_threads != 1))
            if cost < least_cost:
                best = (groups, group_threads, group_jobs)
                least_cost = cost
        least_jobs = jobs // groups + 1
    return best


def reducer_bytes(threads: int, job_size: int, jobs: int, reduction: int, buffer_size: int) -> int:
    """Scratchpad of ``cpu_reducer_t``: every thread of a group but the first, which works in the destination, has a buffer."""
    groups, group_threads, group_jobs = balance_reduction(threads, job_size, jobs, reduction, buffer_size)
    if group_threads == 1:
        return 0
    return entry_bytes(groups * (group_threads - 1) * group_jobs * job_size, PAGE_BYTES) + _barriers_bytes(groups)


def reducer_2d_bytes(threads: int, job_size: int, jobs: int, reduction: int, buffer_size: int) -> int:
    """Scratchpad of ``cpu_reducer_2d_t``: every thread of a group has a buffer."""
    groups, group_threads, group_jobs = balance_reduction(threads, job_size, jobs, reduction, buffer_size)
    if group_threads == 1:
        return 0
    return entry_bytes(groups * group_threads * group_jobs * job_size) + _barriers_bytes(groups)


def _barriers_bytes(groups: int) -> int:
    """The entry that holds one page-aligned barrier per thread group."""
    return groups * BARRIER_BYTES + PAGE_BYTES
