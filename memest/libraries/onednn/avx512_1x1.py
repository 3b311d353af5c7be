"""oneDNN's AVX-512 1x1 convolution (``jit_1x1:avx512_core``): which problems it accepts, its layouts and scratchpad.

Sources: oneDNN v3.12 src/cpu/x64/jit_avx512_common_1x1_conv_kernel.cpp, jit_avx512_common_1x1_convolution.hpp and
jit_uni_1x1_conv_utils.hpp. The kernel only knows unit strides: a strided problem whose output divides its input exactly goes
through a scratch image per thread ("reduced to unit stride", rtus). How many threads work, and how many blocks of channels such
an image holds, follow from how oneDNN shares out the work, so that is computed here, where it has a scratchpad to size.

The work is a product of two matrices: ``load`` blocks are the channels produced (backward weights: the output channels) and
``broadcast`` blocks are groups of points (backward weights: the input channels).
"""

from __future__ import annotations

from math import prod

from memest.libraries.onednn.avx2_common import PAGE_BYTES, entry_bytes, exceeds_int, reducer_bytes
from memest.libraries.onednn.avx512_common import (
    BLOCK,
    blocked_data_tag,
    blocked_weights_tag,
    blocks,
    round_up,
)
from memest.libraries.onednn.problem import Convolution, Plan, channels_last_tag, layout
from memest.libraries.onednn.single import quotient, single
from memest.machines.cpu import Cpu
from memest.sizes import choices

NAME = "jit_1x1:avx512_core"
FLOAT_BYTES = 4
REDUCER_BUFFER_PER_THREAD = 3 * 5 * 5 * 16 * 16
BARRIER_BYTES = 4096 + PAGE_BYTES
SMALL_BYTES = 8192
"""Sources below this size do not use all the threads when there is less than one tile for choices."""

FEW_THREADS = 28
FEW_POINTS = 49
MANY_CHANNELS = 512
IN_CACHE_POINTS = 64
LARGE_SPATIAL = range(11, 28)
WIDE_ROWS = 14


def forward(problem: Convolution, cpu: Cpu) -> Plan | None:
    """The forward kernel's plan; None where it refuses."""
    if cpu.isa != "avx512" or not is_accepted(problem):
        return None
    scratchpad = 0
    if problem.bias and not problem.channels_last:
        scratchpad = _padded_bias_bytes(problem)
    if is_strided(problem):
        threads, _ = _working_threads(problem, cpu)
        scratchpad += _unit_stride_bytes(problem, threads, blocks(problem.in_channels))
    return _plan(problem, scratchpad)


def backward_data(problem: Convolution, cpu: Cpu) -> Plan | None:
    """The plan of the input's gradient; None where the kernel refuses."""
    if cpu.isa != "avx512" or not is_accepted(problem):
        return None
    scratchpad = 0
    if is_strided(problem):
        threads, load_blocks = _working_threads(problem, cpu)
        scratchpad = _unit_stride_bytes(problem, threads, load_blocks)
    return _plan(problem, scratchpad)


def backward_weights(problem: Convolution, cpu: Cpu) -> Plan | None:
    """The plan of the weight's gradient; None where the kernel refuses."""
    if cpu.isa != "avx512" or not is_accepted(problem):
        return None
    threads, reducing_threads = _weights_threads(problem, cpu.threads)
    input_blocks, output_blocks = blocks(problem.in_channels), blocks(problem.out_channels)
    partial = entry_bytes(input_blocks * output_blocks * BLOCK * BLOCK * (reducing_threads - 1)) + BARRIER_BYTES
    scratchpad = choices.choose(choices.at_most(reducing_threads, 1), 0, partial)
    if problem.bias:
        scratchpad += _padded_bias_bytes(problem)
        scratchpad += reducer_bytes(threads, BLOCK, output_blocks, problem.batch, threads * REDUCER_BUFFER_PER_THREAD)
    if is_strided(problem):
        scratchpad += _unit_stride_bytes(problem, threads, best_divider(input_blocks, 5, input_blocks, largest=False))
    return _plan(problem, scratchpad)


def _plan(problem: Convolution, scratchpad: int) -> Plan:
    dims = problem.spatial_dims
    data = channels_last_tag(dims + 2) if problem.channels_last else blocked_data_tag(dims)
    weights = _data_weights_tag(dims) if problem.prop == "backward_data" else _forward_weights_tag(dims)
    return Plan(
        implementation=NAME,
        source=layout(data, problem.source_dims),
        weights=layout(weights, problem.weights_dims),
        destination=layout(data, problem.destination_dims),
        scratchpad_bytes=scratchpad,
    )


def _forward_weights_tag(spatial_dims: int) -> str:
    """OIhw16i16o and its relatives."""
    return blocked_weights_tag(spatial_dims, grouped=False, input_innermost=False)


def _data_weights_tag(spatial_dims: int) -> str:
    """IOhw16o16i and its relatives."""
    return f"BA{'cde'[:spatial_dims]}16a16b"


def is_strided(problem: Convolution) -> bool:
    """Whether a stride is not 1."""
    return prod(problem.stride) != 1


def is_accepted(problem: Convolution) -> bool:
    """The size limits apply to the problem of unit strides, hence to as many source points as there are outputs."""
    if problem.groups != 1 or prod(problem.kernel) != 1 or any(problem.padding):
        return False
    if is_strided(problem) and problem.spatial_dims == 3:
        return False
    covered = tuple(out * stride for out, stride in zip(problem.output_size, problem.stride, strict=True))
    points, ic, oc = prod(problem.output_size), problem.in_channels, problem.out_channels
    return covered == problem.input_size and not exceeds_int(ic * points, oc * points, ic * oc)


def _padded_bias_bytes(problem: Convolution) -> int:
    """A copy of the bias filled up to whole blocks, when it is not whole already."""
    oc = problem.out_channels
    return entry_bytes(round_up(oc)) if oc % BLOCK else 0


def _unit_stride_bytes(problem: Convolution, threads: int, channel_blocks: int) -> int:
    """Every thread's scratch image, of the output's size: some blocks of input channels, or all of them when channels-last."""
    channels = problem.in_channels if problem.channels_last else channel_blocks * BLOCK
    return entry_bytes(threads * prod(problem.output_size) * channels)


def best_divider(value: int, least: int, most: int, *, largest: bool, step: int = 1) -> int:
    """The chunk size within bounds that fills the last chunk of ``value`` best; the largest or smallest of equally good ones.

    Sizes are tried in steps of ``step`` from the largest down.
    """
    most = choices.greatest(1, choices.least(most, value))
    least = choices.greatest(1, choices.least(least, most))
    sizes = range(most, least - 1, -step)
    return choices.best(sizes if largest else sizes[::-1], key=lambda size: -value % size)


def _working_threads(problem: Convolution, cpu: Cpu) -> tuple[int, int]:
    """(threads that work, blocks of produced channels each handles at once) of a strided forward or backward data problem."""
    points, batch, threads = prod(problem.output_size), problem.batch, cpu.threads
    produced, reduced = problem.out_channels, problem.in_channels
    if problem.prop == "backward_data":
        produced, reduced = reduced, produced
    if not problem.channels_last:
        produced, reduced = round_up(produced), round_up(reduced)
    load_blocks = blocks(produced)
    explicit = 8 * batch >= threads or (problem.channels_last and batch == 1)
    unroll = points_unrolled(problem, produced, explicit)
    point_blocks = -(-points // unroll)
    chunk = load_blocks
    if threads <= FEW_THREADS and batch < threads < load_blocks * point_blocks:
        chunk = -(-load_blocks // load_groups(batch, threads, unroll, load_blocks, point_blocks, produced, reduced, points))
    in_groups_of_four = explicit and points <= IN_CACHE_POINTS and produced * reduced >= cpu.l2_bytes // FLOAT_BYTES
    widens = produced > MANY_CHANNELS and produced // reduced >= 4
    if widens and points <= FEW_POINTS and batch <= threads and not in_groups_of_four:
        chunk = 1
    if FLOAT_BYTES * batch * points * reduced < SMALL_BYTES and batch < threads and load_blocks * point_blocks < threads:
        threads, groups = _fewer_threads(batch, threads, unroll, load_blocks, point_blocks)
        chunk = -(-load_blocks // groups)
    return threads, chunk


def points_unrolled(problem: Convolution, produced: int, explicit: bool) -> int:
    """Points computed at once; ``explicit``: values are broadcast in registers."""
    points, rows = prod(problem.output_size), prod(problem.output_size[:-1])
    if not explicit:
        most, least = 30, 9
    elif 128 < produced < 256 and rows in LARGE_SPATIAL:
        most, least = 6, 5
    else:
        most, least = 9, 6
    divided = rows if rows >= WIDE_ROWS else points
    for unroll in range(most, least - 1, -1):
        if divided % unroll == 0:
            return unroll
    best, tail = min(most, points), points % most
    for unroll in range(most, least - 1, -1):
        left_over = points % unroll
        if left_over > tail or left_over == 0:
            best, tail = unroll, left_over
            if left_over == 0:
                break
    return best


def load_groups(
    batch: int, threads: int, unroll: int, load_blocks: int, point_blocks: int, produced: int, reduced: int, points: int
) -> int:
    """Groups of threads that share out the produced channels, by the least estimated cost of the busiest thread."""
    weights_dominate = quotient(produced * reduced, batch * reduced * points) > 1
    compute_weight, spread_weight = single(0.01), single(1.3)

    def cost(load: int, team: int, memory_weight: float) -> float:
        block_points = batch * -(-point_blocks // team) * unroll
        compute = single(single(single(block_points) * single(load * BLOCK)) * single(reduced))
        memory = single(single(block_points + load * BLOCK) * single(reduced))
        return single(single(compute_weight * compute) + single(memory_weight * memory))

    def busiest(groups: int) -> float:
        small_load, large_load = load_blocks // groups, -(-load_blocks // groups)
        small_team, large_team = threads // groups, -(-threads // groups)
        memory_weight = 1.0 if large_team == 1 else spread_weight
        if threads % groups < load_blocks % groups:
            return cost(large_load, small_team, memory_weight)
        costs = cost(large_load, large_team, memory_weight), cost(small_load, small_team, memory_weight)
        most: float = choices.greatest(*costs)
        return most

    return choices.best(range(threads, 0, -1) if weights_dominate else range(1, threads + 1), key=busiest)


def _fewer_threads(batch: int, most_threads: int, unroll: int, load_blocks: int, point_blocks: int) -> tuple[int, int]:
    """(threads, groups of threads that share out the produced channels) of a problem too small for all threads."""
    best_threads, best_groups, best_efficiency = most_threads, 1, 0.0
    for threads in range(most_threads // 2, 0, -1):
        groups = _small_load_groups(batch, threads, unroll, load_blocks, point_blocks)
        efficiency = _efficiency(groups, batch, threads, unroll, load_blocks, point_blocks)
        if efficiency > best_efficiency:
            best_threads, best_groups, best_efficiency = threads, groups, efficiency
    return best_threads, best_groups


def _small_load_groups(batch: int, threads: int, unroll: int, load_blocks: int, point_blocks: int) -> int:
    """Groups of threads that share out the produced channels, by the best score."""
    chunks = (chunk for chunk in range(1, load_blocks + 1) if -(-load_blocks // chunk) <= threads)
    best = max(chunks, key=lambda chunk: _efficiency(chunk, batch, threads, unroll, load_blocks, point_blocks))
    return -(-load_blocks // best)


def _efficiency(chunk: int, batch: int, threads: int, unroll: int, load_blocks: int, point_blocks: int) -> float:
    """oneDNN's score of giving ``chunk`` load blocks to each group of threads: squareness, busy threads and even groups."""
    groups = -(-load_blocks // chunk)
    team = -(-threads // groups)
    work = batch * point_blocks
    points, channels = -(-work // team) * unroll, chunk * BLOCK
    mean = single(single(points + channels) / 2)
    squareness = quotient(points * channels, single(mean * mean))
    busy = single(quotient(max(1, threads // groups), team) * quotient(work, round_up(work, team)))
    return single(single(squareness + busy) + quotient(load_blocks, round_up(load_blocks, groups)))


def _weights_threads(problem: Convolution, threads: int) -> tuple[int, int]:
    """(threads used, of which sharing the weights by splitting the points), by the least memory traffic."""
    if threads == 1:
        return 1, 1
    points_block = _points_reduced(problem)
    chunks = problem.batch * -(-prod(problem.output_size) // points_block)
    input_blocks, output_blocks = blocks(problem.in_channels), blocks(problem.out_channels)

    def memory_cost(reducing: int, oc_threads: int, ic_threads: int) -> int:
        share = -(-chunks // reducing) * points_block
        oc_share, ic_share = -(-output_blocks // oc_threads), -(-input_blocks // ic_threads)
        return share * (ic_share + oc_share) * BLOCK + 12 * oc_share * ic_share * BLOCK * BLOCK

    splits = [
        (reducing, oc_threads, min(threads // reducing // oc_threads, input_blocks))
        for reducing in range(1, min(threads, chunks) + 1)
        for oc_threads in range(1, min(threads // reducing, output_blocks) + 1)
    ]
    reducing, oc_threads, ic_threads = choices.best(splits[::-1], key=lambda split: memory_cost(*split))
    most = choices.least(problem.batch, threads)
    unused = choices.below(threads // 2, reducing) & choices.below(reducing, threads)
    reducing = choices.choose(unused, most, reducing)
    return reducing * oc_threads * ic_threads, reducing


def _points_reduced(problem: Convolution) -> int:
    """Points summed at once in backward weights."""
    points, columns = prod(problem.output_size), problem.output_size[-1]
    size = best_divider(points, 7, 16, largest=True)
    if points % size:
        size = best_divider(columns, 4, columns, largest=False)
    return size if size <= 256 else 1
