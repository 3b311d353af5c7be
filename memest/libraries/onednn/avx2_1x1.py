"""oneDNN's AVX2 1x1 convolution (``jit_1x1:avx2``): which problems it accepts, its layouts and scratchpad.

Sources: oneDNN v3.12 src/cpu/x64/jit_avx2_1x1_conv_kernel_f32.cpp, jit_avx2_1x1_convolution.hpp and
jit_uni_1x1_conv_utils.hpp. The kernel itself only knows unit strides: a strided problem whose output divides its input exactly
is first gathered ("reduced to unit stride", rtus) into a per-thread scratch image.
"""

from __future__ import annotations

from math import prod

from memest.libraries.onednn.avx2_common import (
    BLOCK,
    INT_MAX,
    blocked_data_tag,
    blocked_weights_tag,
    blocks,
    entry_bytes,
    exceeds_int,
    reducer_2d_bytes,
    reducer_bytes,
)
from memest.libraries.onednn.problem import Convolution, Plan, channels_last_tag, layout
from memest.machines.cpu import Cpu

NAME = "jit_1x1:avx2"
DATA_LOAD_CHANNELS = 144
"""Input channels a thread computes at once in backward data, hence those its scratch image holds (blocked layout)."""

LOAD_BLOCKS = 32
BROADCAST_BLOCKS = 9
BROADCAST_BLOCKS_CHANNELS_LAST = 17
BROADCAST_POINTS_CHANNELS_LAST = 1024
"""Limits of backward weights' tiles, in blocks of channels; channels-last images of more points keep all input channels."""

JOBS_BUFFERED = 8


def forward(problem: Convolution, cpu: Cpu) -> Plan | None:
    """The forward kernel's plan; None where it refuses."""
    if not _is_accepted(problem):
        return None
    scratchpad = 0
    if problem.bias and not problem.channels_last:
        scratchpad += _padded_bias_bytes(problem)
    if _is_strided(problem):
        channels = problem.in_channels if problem.channels_last else blocks(problem.in_channels) * BLOCK
        scratchpad += _unit_stride_bytes(problem, cpu, channels)
    return _plan(problem, scratchpad)


def backward_data(problem: Convolution, cpu: Cpu) -> Plan | None:
    """The plan of the input's gradient; None where the kernel refuses."""
    if not _is_accepted(problem):
        return None
    scratchpad = 0
    if _is_strided(problem):
        channels = problem.in_channels if problem.channels_last else DATA_LOAD_CHANNELS
        scratchpad = _unit_stride_bytes(problem, cpu, channels)
    return _plan(problem, scratchpad)


def backward_weights(problem: Convolution, cpu: Cpu) -> Plan | None:
    """The plan of the weight's gradient; None where the kernel refuses."""
    if not _is_accepted(problem):
        return None
    reduction = problem.batch * prod(problem.output_size)
    if reduction > INT_MAX:
        return None
    input_blocks, output_blocks = blocks(problem.in_channels), blocks(problem.out_channels)
    broadcast, load = _broadcast_blocks(problem), _load_blocks(problem)
    job_size = load * broadcast * BLOCK * BLOCK
    jobs = -(-input_blocks // broadcast) * -(-output_blocks // load)
    buffer_size = cpu.threads * job_size * JOBS_BUFFERED
    scratchpad = reducer_2d_bytes(cpu.threads, job_size, jobs, reduction, buffer_size)
    if problem.bias:
        scratchpad += _padded_bias_bytes(problem)
        scratchpad += reducer_bytes(cpu.threads, BLOCK, output_blocks, problem.batch, buffer_size)
    if _is_strided(problem):
        channels = problem.in_channels if problem.channels_last else broadcast * BLOCK
        scratchpad += _unit_stride_bytes(problem, cpu, channels)
    return _plan(problem, scratchpad)


def _is_accepted(problem: Convolution) -> bool:
    if problem.groups != 1 or prod(problem.kernel) != 1 or any(problem.padding):
        return False
    if _is_strided(problem):
        if problem.spatial_dims == 3:
            return False
        reached = tuple(out * stride for out, stride in zip(problem.output_size, problem.stride, strict=True))
    else:
        reached = problem.output_size
    if reached != problem.input_size:
        return False
    points, ic, oc = prod(problem.output_size), problem.in_channels, problem.out_channels
    return not exceeds_int(ic * points, oc * points, ic * oc)


def _is_strided(problem: Convolution) -> bool:
    return prod(problem.stride) != 1


def _unit_stride_bytes(problem: Convolution, cpu: Cpu, channels: int) -> int:
    """Every thread's scratch image, of the output's size."""
    return entry_bytes(cpu.threads * prod(problem.output_size) * channels)


def _padded_bias_bytes(problem: Convolution) -> int:
    """A copy of the bias filled up to whole blocks, when it is not whole already."""
    oc = problem.out_channels
    return entry_bytes(blocks(oc) * BLOCK) if oc % BLOCK else 0


def _broadcast_blocks(problem: Convolution) -> int:
    """Blocks of input channels in a tile of backward weights."""
    ic = problem.in_channels
    count = blocks(ic)
    if not problem.channels_last:
        return _tile_blocks(count, BROADCAST_BLOCKS)
    if ic % BLOCK or prod(problem.output_size) > BROADCAST_POINTS_CHANNELS_LAST:
        return count
    return _tile_blocks(count, BROADCAST_BLOCKS_CHANNELS_LAST)


def _load_blocks(problem: Convolution) -> int:
    """Blocks of output channels in a tile of backward weights."""
    oc = problem.out_channels
    count = blocks(oc)
    return count if problem.channels_last and oc % BLOCK else _tile_blocks(count, LOAD_BLOCKS)


def _tile_blocks(count: int, limit: int) -> int:
    """``count`` halved, else cut in three, until it is within ``limit`` or neither divides it."""
    while count > limit:
        if count % 2 == 0:
            count //= 2
        elif count % 3 == 0:
            count //= 3
        else:
            break
    return count


def _plan(problem: Convolution, scratchpad: int) -> Plan:
    data = channels_last_tag(problem.spatial_dims + 2) if problem.channels_last else blocked_data_tag(problem.spatial_dims)
    weights = blocked_weights_tag(problem, input_innermost=problem.prop == "backward_data")
    return Plan(
        implementation=NAME,
        source=layout(data, problem.source_dims),
        weights=layout(weights, problem.weights_dims),
        destination=layout(data, problem.destination_dims),
        scratchpad_bytes=scratchpad,
    )
