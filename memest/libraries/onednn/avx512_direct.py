"""oneDNN's AVX-512 direct convolution (``jit:avx512_core``): which problems it accepts, its layouts and scratchpad.

Sources: oneDNN v3.12 src/cpu/x64/jit_avx512_common_conv_kernel.cpp and jit_avx512_common_convolution.hpp. Channels are blocked by
16 and, without groups, padded to whole blocks; groups must fill whole blocks of 16, 8 or 4 (backward weights: 16). A first layer
of few input channels keeps its source plain. Channels-last data needs neither blocks nor padding. Most of the remaining rules are
about widths: a kernel computes ``unroll`` columns at once and can meet the padding of one side in one such step only, so how far
it unrolls, which depends on how many blocks of channels it holds in registers, decides which paddings are possible.
"""

from __future__ import annotations

from math import gcd, prod

from memest.libraries.onednn.avx2_common import INT_MAX, PAGE_BYTES, entry_bytes, is_too_large, reducer_bytes
from memest.libraries.onednn.avx512_common import (
    BLOCK,
    blocked_weights_tag,
    blocks,
    round_up,
)
from memest.libraries.onednn.avx512_geometry import Geometry, data_tag, geometry_of, padding_exceeds_kernel, vector_width
from memest.libraries.onednn.problem import Convolution, Plan, layout, plain_tag
from memest.libraries.onednn.single import quotient, single
from memest.machines.cpu import Cpu
from memest.sizes import choices

NAME = "jit:avx512_core"
FLOAT_BYTES = 4
REGISTERS = 32
WIDEST_UNROLL = 28
CODE_BYTES = 256 * 1024
INSTRUCTION_BYTES = 15
MOST_OUTPUT_BLOCKS = 5
NARROW_KERNEL = 13
"""The code of forward kernels up to this width fits its buffer, however far they unroll."""

WIDE_KERNELS = range(14, 20)
"""Kernel widths with which backward weights knows how to work on outputs one column wide."""

WIDEST_WEIGHTS_KERNEL = 14
PLAIN_SOURCE_CHANNELS = 3
LEAST_REDUCED_ROWS = 9
REDUCER_BUFFER_PER_THREAD = 3 * 5 * 5 * 16 * 16
BARRIER_BYTES = 4096 + PAGE_BYTES


def forward(problem: Convolution, cpu: Cpu) -> Plan | None:
    """The forward kernel's plan; None where it refuses."""
    if cpu.isa != "avx512" or is_too_large(problem):
        return None
    g = geometry_of(problem)
    if padding_exceeds_kernel(g):
        return None
    width = vector_width(g)
    if width is None or not _forward_fits(g, width, cpu):
        return None
    scratchpad = 0
    if g.bias and g.groups == 1 and not g.channels_last and g.oc % BLOCK:
        scratchpad = entry_bytes(round_up(g.oc))
    if g.is_first_layer:
        weights = _first_layer_weights_tag(g)
    else:
        weights = blocked_weights_tag(g.spatial_dims, grouped=g.groups > 1, input_innermost=False, block=width)
    source = plain_tag(g.spatial_dims + 2) if g.is_first_layer and not g.channels_last else data_tag(g, width)
    return _plan(problem, source, weights, data_tag(g, width), scratchpad)


def backward_data(problem: Convolution, cpu: Cpu) -> Plan | None:
    """The plan of the input's gradient; None where the kernel refuses."""
    if cpu.isa != "avx512" or is_too_large(problem):
        return None
    g = geometry_of(problem)
    if any(d > 1 and s > 1 for d, s in zip(g.dilation, g.stride, strict=True)) or padding_exceeds_kernel(g):
        return None
    width = vector_width(g)
    if width is None or not _backward_data_fits(g, width, cpu):
        return None
    data = data_tag(g, width)
    weights = blocked_weights_tag(g.spatial_dims, grouped=g.groups > 1, input_innermost=True, block=width)
    return _plan(problem, data, weights, data, 0)


def backward_weights(problem: Convolution, cpu: Cpu) -> Plan | None:
    """The plan of the weight's gradient; None where the kernel refuses."""
    if cpu.isa != "avx512" or is_too_large(problem):
        return None
    g = geometry_of(problem)
    g = g._replace(padding_end=tuple(max(0, end) for end in g.padding_end))
    transposed = _works_transposed(g)
    if not (_backward_weights_channels_fit(g) and _backward_weights_kernel_fits(g, transposed)):
        return None
    data = data_tag(g, BLOCK)
    if g.is_first_layer:
        source = data if g.channels_last else plain_tag(g.spatial_dims + 2)
        weights = _first_layer_weights_tag(g)
    else:
        source = data
        weights = blocked_weights_tag(g.spatial_dims, grouped=g.groups > 1, input_innermost=False)
    return _plan(problem, source, weights, data, _backward_weights_scratchpad(g, transposed, cpu))


def _plan(problem: Convolution, source: str, weights: str, destination: str, scratchpad: int) -> Plan:
    return Plan(
        implementation=NAME,
        source=layout(source, problem.source_dims),
        weights=layout(weights, problem.weights_dims),
        destination=layout(destination, problem.destination_dims),
        scratchpad_bytes=scratchpad,
    )


def _first_layer_weights_tag(g: Geometry) -> str:
    """Ohwi16o and its relatives."""
    return f"A{'cde'[: g.spatial_dims]}b{BLOCK}a"


def _forward_fits(g: Geometry, width: int, cpu: Cpu) -> bool:
    """Whether the paddings of a row fit the unrolled columns, and the code its buffer."""
    columns, left, right, kernel_columns = g.output[2], g.padding[2], g.padding_end[2], g.kernel[2]
    if kernel_columns <= NARROW_KERNEL and max(left, right) <= min(columns, (REGISTERS - 1) // (MOST_OUTPUT_BLOCKS + 1)):
        return True
    held, unroll = _forward_unroll(g, width, cpu)
    if left > unroll or right - columns % unroll * g.stride[2] > unroll:
        return False
    widest = min(columns, WIDEST_UNROLL)
    right_of_widest = right - columns % widest * g.stride[2]
    versions = 1 + (left > 0) + (right_of_widest > 0)
    input_block = g.ic if g.is_first_layer else width
    return versions * kernel_columns * input_block * held * unroll * INSTRUCTION_BYTES <= CODE_BYTES


def _forward_unroll(g: Geometry, width: int, cpu: Cpu) -> tuple[int, int]:
    """(blocks of output channels held in registers, columns unrolled)."""
    columns, output_blocks = g.output[2], blocks(g.oc, width)
    one_column = _is_one_column_image(g)
    if not one_column and _broadcasts_from_memory(g, width, cpu):
        return 1, min(columns, WIDEST_UNROLL)
    candidates = [n for n in range(min(output_blocks, MOST_OUTPUT_BLOCKS), 0, -1) if output_blocks % n == 0]
    held = candidates[0] if one_column else _best_balanced(g, width, output_blocks, candidates, cpu)
    return held, min(columns, (REGISTERS - 1) // (held + 1))


def _is_one_column_image(g: Geometry) -> bool:
    """One tall image that an unpadded kernel of its width reduces to a single column."""
    depth_is_trivial = g.input[0] == g.output[0] == g.kernel[0] == g.stride[0] == g.dilation[0] == 1
    rows_are_plain = g.stride[1] == 1 and g.output[1] >= 60 and g.kernel[1] >= 3
    columns_become_one = g.output[2] == g.stride[2] == g.dilation[2] == 1 and g.input[2] == g.kernel[2]
    return g.groups == g.batch == 1 and depth_is_trivial and rows_are_plain and columns_become_one


def _broadcasts_from_memory(g: Geometry, width: int, cpu: Cpu) -> bool:
    """Whether source values are broadcast as operands, which leaves the registers to the unrolled columns of few blocks."""
    (_, rows, columns), kernel_columns = g.output, g.kernel[2]
    if kernel_columns > 3 or (g.batch == 1 and (columns <= WIDEST_UNROLL or g.is_first_layer or (columns <= 147 and g.oc <= 96))):
        return True
    if kernel_columns < 3 or columns > WIDEST_UNROLL:
        return False
    ic = g.ic if g.channels_last or g.groups > 1 else round_up(g.ic)
    if (columns == 13 and ic >= 192) or (columns == 28 and ic >= 512):
        return False
    if not g.stride[1] == g.stride[2] == 1 and (g.batch > 16 or (g.oc > 192 and rows > 10)):
        return False
    input_block = g.ic if g.is_first_layer else width
    per_row = blocks(g.input[2], g.stride[2]) + 2 * kernel_columns * width
    return FLOAT_BYTES * (g.kernel[0] * g.kernel[1] * input_block * per_row + 2 * columns * width) < cpu.l1_bytes


def _best_balanced(g: Geometry, width: int, output_blocks: int, candidates: list[int], cpu: Cpu) -> int:
    """The number of output blocks whose division of the work keeps the threads busiest; more blocks win near-ties."""
    best, best_efficiency = 1, 0.0
    margin = single(1.05)
    for held in candidates:
        unroll = min(g.output[2], (REGISTERS - 1) // (held + 1))
        efficiency = _row_blocks_efficiency(g, width, held, unroll, blocks(output_blocks, held), cpu)
        if efficiency > single(margin * best_efficiency):
            best, best_efficiency = held, efficiency
    return best


def _row_blocks_efficiency(g: Geometry, width: int, held: int, unroll: int, chunks: int, cpu: Cpu) -> float:
    """Busy share of the threads under the best split of rows into blocks of columns."""
    _, rows, columns = g.output

    def efficiency(block: int) -> float:
        work = g.batch * rows * chunks * blocks(columns, block)
        balance = single(quotient(columns, round_up(columns, block)) * single(work))
        return quotient(balance, round_up(work, cpu.threads))

    if g.is_first_layer or g.spatial_dims == 3:
        return efficiency(columns)
    cache = cpu.l2_bytes * 7 // 8 // FLOAT_BYTES
    weights = width * held * width * g.kernel[2] * g.kernel[1]
    per_unroll = 2 * width * held * unroll + 2 * width * unroll * g.kernel[1]
    chosen = unroll * max(2, (cache - 2 * weights) // per_unroll)
    best = efficiency(chosen)
    for count in range(blocks(columns, chosen), blocks(columns, 2 * unroll) + 1):
        block = min(round_up(blocks(columns, count), unroll), columns)
        if block < held * width and best > single(0.9):
            break
        if blocks(columns, block) != count:
            continue
        candidate = efficiency(block)
        if block >= 2 * unroll and candidate > best:
            chosen, best = block, candidate
        if best > single(0.98):
            break
    return efficiency(min(columns, max(2 * unroll, chosen)))


def _backward_data_fits(g: Geometry, width: int, cpu: Cpu) -> bool:
    """Whether the columns unrolled suit the kernel's overhang on both sides and the stride, and the code its buffer."""
    columns, kernel_columns, stride = g.input[2], g.kernel[2], g.stride[2]
    held, unroll = _backward_data_unroll(g, width, cpu)
    tail = columns % unroll
    overhang = g.extent[2] - 1
    left = max(0, (overhang - g.padding[2]) // stride)
    right = max(0, (overhang - max(0, g.padding_end[2] + tail)) // stride)
    if max(left, right) * stride > unroll or (columns > unroll and (unroll % stride or g.padding_end[2] + tail < 0)):
        return False
    versions = 1 + (left > 0) + (right > 0)
    return versions * kernel_columns * width * held * unroll * INSTRUCTION_BYTES <= CODE_BYTES


def _backward_data_unroll(g: Geometry, width: int, cpu: Cpu) -> tuple[int, int]:
    """(blocks of input channels held in registers, columns unrolled)."""
    (_, kernel_rows, kernel_columns), columns, input_blocks = g.kernel, g.input[2], blocks(g.ic, width)
    touched = columns * width * 2 * kernel_rows + g.output[2] * width + kernel_rows * kernel_columns * width * width * 2
    touched *= FLOAT_BYTES
    strided_rows = g.stride[1] > 1 or g.stride[0] > 1
    odd_width = columns <= 5 or 8 < columns <= 13
    broadcasts_explicitly = (
        kernel_columns == 1 or (kernel_columns == 5 and columns < 8) or (kernel_columns < 5 and (odd_width or touched > cpu.l1_bytes))
    )
    if broadcasts_explicitly and not strided_rows:
        held = next(n for n in range(min(4, input_blocks), 0, -1) if input_blocks % n == 0)
        return held, min(columns, (REGISTERS - 1) // (held + 1))
    wide = kernel_columns > 3 or (kernel_columns == 3 and touched < cpu.l1_bytes and g.output[2] > 8)
    if wide or strided_rows or input_blocks % 2:
        return 1, min(columns, WIDEST_UNROLL)
    return 2, min(columns, (REGISTERS - 1) // 3)


def _works_transposed(g: Geometry) -> bool:
    """Whether backward weights swaps rows and columns, for one wide unpadded kernel per row."""
    return (
        not g.channels_last
        and g.spatial_dims == 2
        and g.kernel[2] in WIDE_KERNELS
        and g.output[2] == 1
        and g.stride == g.dilation == (1, 1, 1)
        and g.padding == g.padding_end == (0, 0, 0)
    )


def _backward_weights_channels_fit(g: Geometry) -> bool:
    """Whether groups fill whole blocks, a plain source has few enough channels, and images are within 32-bit byte counts."""
    if g.channels_last:
        ic, oc = g.ic, g.oc
    elif g.is_first_layer:
        if g.ic > PLAIN_SOURCE_CHANNELS:
            return False
        ic, oc = g.ic, round_up(g.oc)
    else:
        if g.groups > 1 and (g.ic % BLOCK or g.oc % BLOCK):
            return False
        ic, oc = round_up(g.ic), round_up(g.oc)
    return max(ic, oc) * g.batch * prod(g.input) * FLOAT_BYTES <= INT_MAX


def _backward_weights_kernel_fits(g: Geometry, transposed: bool) -> bool:
    """Whether strides, dilations and paddings are among those the kernels handle."""
    (dilation_depth, dilation_rows, _), stride_rows = g.dilation, g.stride[1]
    extent_depth, extent_rows, extent_columns = g.extent
    if dilation_depth > 1 or (dilation_rows > 1 and (stride_rows > 1 or extent_rows > g.input[1])):
        return False
    front, top, left = g.padding
    back, bottom, right = g.padding_end
    if max(left, right) >= extent_columns or max(left, right) > WIDEST_UNROLL:
        return False
    if max(top, bottom) > extent_rows // 2 or max(front, back) >= extent_depth:
        return False
    if front > 0 and g.kernel[0] >= g.input[0] + front:
        return False
    return transposed or g.kernel[2] <= WIDEST_WEIGHTS_KERNEL


def _backward_weights_scratchpad(g: Geometry, transposed: bool, cpu: Cpu) -> int:
    threads, batch_threads = _backward_weights_threads(g, transposed, cpu)
    padded_oc = g.groups * round_up(g.oc)
    padded_ic = g.ic if g.is_first_layer else round_up(g.ic)
    partial = entry_bytes((padded_oc * padded_ic * prod(g.kernel) + padded_oc) * (batch_threads - 1)) + BARRIER_BYTES
    scratchpad = choices.choose(choices.at_most(batch_threads, 1), 0, partial)
    if g.bias:
        if g.oc % BLOCK:
            scratchpad += entry_bytes(padded_oc)
        jobs = padded_oc // BLOCK
        scratchpad += reducer_bytes(threads, BLOCK, jobs, g.batch, threads * REDUCER_BUFFER_PER_THREAD)
    return scratchpad


def _backward_weights_threads(g: Geometry, transposed: bool, cpu: Cpu) -> tuple[int, int]:
    """(threads used, of which sharing the weights by splitting the images)."""
    if cpu.threads == 1:
        return 1, 1
    if g.channels_last and g.spatial_dims == 1 and _walks_channels(g, cpu):
        threads = min(cpu.threads, g.batch * _column_blocks(g, cpu.threads))
        return threads, threads
    if cpu.threads < g.groups:
        return cpu.threads, 1
    return _balance_backward_weights(g, transposed, cpu.threads)


def _walks_channels(g: Geometry, cpu: Cpu) -> bool:
    """Whether channels-last 1D problems use the harness that keeps the weights in cache and splits the columns."""
    kernel = g.ic * g.oc * g.kernel[2] * FLOAT_BYTES
    data = g.batch * (g.ic + g.oc) * g.input[2] * FLOAT_BYTES
    whole = g.ic % BLOCK == 0 and g.oc % BLOCK == 0
    return whole and g.kernel[2] > 1 and kernel < cpu.l2_bytes // 2 and data // cpu.threads + kernel > cpu.l2_bytes // 3


def _column_blocks(g: Geometry, threads: int) -> int:
    """Pieces that harness cuts a row in."""
    columns, kernel_columns = g.output[2], g.kernel[2]
    unrolled_ic, unrolled_kernel = 2, 1
    if g.stride[2] == g.dilation[2]:
        unrolled_kernel = kernel_columns
        unrolled_ic = 1 if kernel_columns > 7 else 2
    unroll = min((REGISTERS - unrolled_kernel * unrolled_ic) // (unrolled_ic + 1), columns)
    steps = blocks(columns, unroll)
    block = blocks(steps, min(threads // gcd(g.batch, threads), steps)) * unroll
    return blocks(columns, block)


def _balance_backward_weights(g: Geometry, transposed: bool, threads: int) -> tuple[int, int]:
    """The same, by oneDNN's two searches: least memory traffic first, then less computation at nearly the same traffic."""
    _, rows, columns = g.input
    _, output_rows, output_columns = g.output
    if transposed:
        rows, columns = columns, rows
        output_rows, output_columns = output_columns, output_rows
    reduces_rows = g.dilation[1] == 1 and g.spatial_dims == 2 and g.output[1] > LEAST_REDUCED_ROWS
    reduces_rows = reduces_rows and not transposed and not g.channels_last
    images, output_images = (g.batch * rows, g.batch * output_rows) if reduces_rows else (g.batch, g.batch)
    source_block = (g.ic if g.is_first_layer else BLOCK) * (1 if reduces_rows else rows) * columns * g.input[0]
    output_block = BLOCK * (1 if reduces_rows else output_rows) * output_columns * g.output[0]
    weights_block = 8 * prod(g.kernel) * (g.ic if g.is_first_layer else BLOCK) * BLOCK
    input_blocks = 1 if g.is_first_layer else blocks(g.ic)
    output_blocks = blocks(g.oc)
    stride_depth, stride_rows, stride_columns = g.stride
    per_group = threads // g.groups

    def memory_cost(batch_threads: int, oc_threads: int, ic_threads: int) -> int:
        oc_share, ic_share = -(-output_blocks // oc_threads), -(-input_blocks // ic_threads)
        source = -(-images // batch_threads) * ic_share * source_block // stride_depth // stride_rows // stride_columns
        return source + -(-output_images // batch_threads) * oc_share * output_block + oc_share * ic_share * weights_block

    most_batch_threads = g.batch * g.output[0] * (max(1, output_rows // LEAST_REDUCED_ROWS) if reduces_rows else 1)
    splits = [
        (batch_threads, oc_threads, min(per_group // batch_threads // oc_threads, input_blocks))
        for batch_threads in range(1, min(per_group, most_batch_threads) + 1)
        for oc_threads in range(1, min(per_group // batch_threads, output_blocks) + 1)
    ]
    chosen = choices.best(splits[::-1], key=lambda split: memory_cost(*split))

    def compute_cost(batch_threads: int, oc_threads: int, ic_threads: int) -> int:
        return -(-output_images // batch_threads) * -(-output_blocks // oc_threads) * -(-input_blocks // ic_threads)

    least_memory, least_compute = memory_cost(*chosen), compute_cost(*chosen)
    for split in splits:
        compute = compute_cost(*split)
        acceptable = transposed or choices.below(memory_cost(*split), 1.1 * least_memory)
        better = (choices.at_most(compute, least_compute) & acceptable) | choices.at_most(4 * compute, 3 * least_compute)
        chosen, least_compute = choices.choose(better, (split, compute), (chosen, least_compute))
    batch_threads, oc_threads, ic_threads = chosen
    unused = choices.below(threads // 2, batch_threads) & choices.below(batch_threads, threads)
    batch_threads = choices.choose(unused, choices.least(most_batch_threads, threads), batch_threads)
    return batch_threads * g.groups * oc_threads * ic_threads, batch_threads
