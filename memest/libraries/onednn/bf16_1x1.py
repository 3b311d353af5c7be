"""oneDNN's bfloat16 1x1 convolution (``jit_bf16_1x1:avx512_core_bf16``): which problems it accepts, its layouts and scratchpad.

Sources: oneDNN v3.12 src/cpu/x64/jit_avx512_core_bf16_1x1_conv_kernel.cpp, jit_avx512_core_bf16_1x1_convolution.hpp and
jit_uni_1x1_conv_utils.hpp. It accepts what the float32 one does (``avx512_1x1``) and shares out the work in much the same way. Results
are accumulated in float32, in a buffer that every thread has for all the points; backward weights also transposes its data so that
pairs of points lie together, unless it can form them as it reads.

The work is a product of two matrices: ``load`` blocks are the channels produced (backward weights: the output channels) and
``broadcast`` blocks are groups of points (backward weights: the input channels).
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from memest.libraries.onednn.avx512_1x1 import best_divider, is_accepted, is_strided, load_groups, points_unrolled
from memest.libraries.onednn.avx512_common import BLOCK, blocked_data_tag, blocked_weights_tag, blocks, round_up
from memest.libraries.onednn.problem import Convolution, Plan, channels_last_tag, layout
from memest.libraries.onednn.scratchpad import barriers_bytes, scratchpad_size
from memest.machines.cpu import Cpu

NAME = "jit_bf16_1x1:avx512_core_bf16"
BF16_BYTES = 2
FLOAT_BYTES = 4
SCRATCHPAD_LIMIT = 20 * 2**30
SMALL_BYTES = 8192
"""Sources below this size do not use all the threads when there is less than one tile for each."""

FEW_THREADS = 28
FEW_POINTS = 49
MANY_CHANNELS = 512
IN_CACHE_POINTS = 64
PERMUTED_SIZE = 14
PERMUTED_CHANNELS = 64
LONGEST_BLOCK = 256


def forward(problem: Convolution, cpu: Cpu) -> Plan | None:
    """The plan forward, or None where oneDNN declares the problem unimplemented."""
    return _plan_data(problem, cpu)


def backward_data(problem: Convolution, cpu: Cpu) -> Plan | None:
    """The plan backward by data, or None."""
    return _plan_data(problem, cpu)


def backward_weights(problem: Convolution, cpu: Cpu) -> Plan | None:
    """The plan backward by weights, or None."""
    if not cpu.has_bf16 or not is_accepted(problem):
        return None
    points, ic, oc = prod(problem.output_size), problem.in_channels, problem.out_channels
    permutes = _permutes(problem)
    points_block = _points_reduced(problem, permutes)
    threads, batch_threads = _weights_threads(problem, points_block, cpu.threads)
    sums = round_up(oc) * (round_up(ic) + problem.bias)
    buffers = [_padded_bias_bytes(problem), sums * batch_threads * FLOAT_BYTES]
    if not permutes:
        load = best_divider(blocks(oc), 16, blocks(oc), largest=False)
        broadcast = best_divider(blocks(ic), 5, blocks(ic), largest=False)
        buffers += [threads * round_up(points, 2) * BLOCK * n * BF16_BYTES for n in (load, broadcast)]
    scratchpad = scratchpad_size(*buffers) + (barriers_bytes(1) if batch_threads > 1 else 0)
    if is_strided(problem):
        broadcast = best_divider(blocks(ic), 5, blocks(ic), largest=False)
        scratchpad += _unit_stride_bytes(problem, threads, broadcast)
    return _plan(problem, blocked_weights_tag(problem.spatial_dims, grouped=False, input_innermost=False), scratchpad)


def _plan_data(problem: Convolution, cpu: Cpu) -> Plan | None:
    if not cpu.has_bf16 or not is_accepted(problem):
        return None
    forward = problem.prop != "backward_data"
    work = _share_work(problem, cpu)
    groups = -(-work.threads // -(-work.threads // work.load_groups))
    produced = problem.out_channels if forward else problem.in_channels
    per_thread = round_up(produced) if problem.channels_last else round_up(-(-round_up(produced) // groups))
    accumulators = work.threads * round_up(prod(problem.output_size), work.unroll) * per_thread * FLOAT_BYTES
    padded_bias = _padded_bias_bytes(problem) if forward and not problem.channels_last else 0
    scratchpad = scratchpad_size(padded_bias, accumulators)
    if scratchpad > SCRATCHPAD_LIMIT:
        return None
    if is_strided(problem):
        channel_blocks = blocks(problem.in_channels) if forward else work.load_blocks
        scratchpad += _unit_stride_bytes(problem, work.threads, channel_blocks)
    spatial = "cde"[: problem.spatial_dims]
    return _plan(problem, f"AB{spatial}8b16a2b" if forward else f"BA{spatial}8a16b2a", scratchpad)


def _plan(problem: Convolution, weights: str, scratchpad: int) -> Plan:
    dims = problem.spatial_dims
    data = channels_last_tag(dims + 2) if problem.channels_last else blocked_data_tag(dims)
    return Plan(
        implementation=NAME,
        source=layout(data, problem.source_dims, BF16_BYTES),
        weights=layout(weights, problem.weights_dims, BF16_BYTES),
        destination=layout(data, problem.destination_dims, BF16_BYTES),
        scratchpad_bytes=scratchpad,
    )


def _padded_bias_bytes(problem: Convolution) -> int:
    """A copy of the bias, when it does not fill whole blocks; channels-last data needs it no longer than it is."""
    oc = problem.out_channels
    if not problem.bias or oc % BLOCK == 0:
        return 0
    return (oc if problem.channels_last else round_up(oc)) * BF16_BYTES


def _unit_stride_bytes(problem: Convolution, threads: int, channel_blocks: int) -> int:
    """Every thread's scratch image, of the output's size: some blocks of input channels, or all of them when channels-last."""
    channels = problem.in_channels if problem.channels_last else channel_blocks * BLOCK
    return scratchpad_size(threads * prod(problem.output_size) * channels * problem.source_itemsize)


class _Work(NamedTuple):
    """Threads that work, groups of them that share out the produced channels, blocks of these done at once, points unrolled."""

    threads: int
    load_groups: int
    load_blocks: int
    unroll: int


def _share_work(problem: Convolution, cpu: Cpu) -> _Work:
    points, batch, threads = prod(problem.output_size), problem.batch, cpu.threads
    produced, reduced = problem.out_channels, problem.in_channels
    if problem.prop == "backward_data":
        produced, reduced = reduced, produced
    if not problem.channels_last:
        produced, reduced = round_up(produced), round_up(reduced)
    explicit = reduced % BLOCK % 2 == 0 and 8 * batch >= threads
    unroll = points_unrolled(problem, produced, explicit)
    load_blocks, point_blocks = blocks(produced), -(-points // unroll)
    chunk = load_blocks
    if threads <= FEW_THREADS and batch < threads < load_blocks * point_blocks:
        groups = load_groups(batch, threads, unroll, load_blocks, point_blocks, produced, reduced, points)
        chunk = -(-load_blocks // groups)
    else:
        least = -(-threads // (batch * point_blocks))
        groups = best_divider(threads, least, 2 * least, largest=False)
    if explicit and points <= IN_CACHE_POINTS and produced * reduced >= cpu.l2_bytes // BF16_BYTES:
        groups = max(groups, 4)
    elif points <= FEW_POINTS and batch <= threads and produced > MANY_CHANNELS and produced // reduced >= 4:
        groups = max(groups, 2)
        chunk = 1
    if BF16_BYTES * batch * points * reduced < SMALL_BYTES and threads > 1 and point_blocks * load_blocks < threads:
        threads = min(threads, max(point_blocks, load_blocks))
    return _Work(threads, groups, chunk, unroll)


def _permutes(problem: Convolution) -> bool:
    """Whether backward weights forms pairs as it reads, without transposed copies."""
    if problem.channels_last or problem.spatial_dims == 1:
        return False
    few = problem.spatial_dims == 2 or round_up(problem.out_channels) <= PERMUTED_CHANNELS
    return few and min(problem.output_size[-2:]) > PERMUTED_SIZE


def _points_reduced(problem: Convolution, permutes: bool) -> int:
    """Points summed at once in backward weights."""
    points, columns = prod(problem.output_size), problem.output_size[-1]
    if permutes:
        size = best_divider(points, 7, min(LONGEST_BLOCK, points), largest=True, step=2)
    else:
        size = best_divider(points, 8, 16, largest=True, step=2)
    if points % size:
        size = best_divider(columns, 4, columns, largest=permutes, step=2)
    if size > LONGEST_BLOCK:
        size = 1
    return size if permutes else round_up(size, 2)


def _weights_threads(problem: Convolution, points_block: int, threads: int) -> tuple[int, int]:
    """(threads used, of which sharing the weights by splitting the points), by the least memory traffic."""
    chunks = problem.batch * -(-prod(problem.output_size) // points_block)
    ic, oc = problem.in_channels, problem.out_channels
    if not problem.channels_last:
        ic, oc = round_up(ic), round_up(oc)
    input_blocks, output_blocks = blocks(ic), blocks(oc)
    output_weight = 4 * max(1, oc // ic)

    def memory_cost(batch_threads: int, oc_threads: int, ic_threads: int) -> int:
        share = -(-chunks // batch_threads) * points_block
        oc_share, ic_share = -(-output_blocks // oc_threads), -(-input_blocks // ic_threads)
        return share * (ic_share + oc_share) * BLOCK + output_weight * oc_share * ic_share * BLOCK * BLOCK

    splits = [
        (batch_threads, oc_threads, min(threads // batch_threads // oc_threads, input_blocks))
        for batch_threads in range(1, min(threads, chunks) + 1)
        for oc_threads in range(1, min(threads // batch_threads, output_blocks) + 1)
    ]
    batch_threads, oc_threads, ic_threads = min(reversed(splits), key=lambda split: memory_cost(*split))
    if threads // 2 < batch_threads < threads:
        batch_threads = min(problem.batch, threads)
    return batch_threads * oc_threads * ic_threads, batch_threads
