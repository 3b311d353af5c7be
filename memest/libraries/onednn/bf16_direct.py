"""oneDNN's bfloat16 direct convolution (``jit_bf16:avx512_core_bf16``): which problems it accepts, its layouts and scratchpad.

Sources: oneDNN v3.12 src/cpu/x64/jit_avx512_core_bf16_conv_kernel.cpp and jit_avx512_core_bf16_convolution.hpp. Channels lie as in
the float32 convolution (``avx512_direct``); weights hold pairs of reduced channels together, as the instructions want them.
Backward weights sums in float32, one copy a share of the images, and first transposes its data so that pairs of columns lie
together; both need room in the scratchpad.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from memest.libraries.onednn.avx2_common import INT_MAX, is_too_large
from memest.libraries.onednn.avx512_common import BLOCK, blocked_weights_tag, blocks, round_up
from memest.libraries.onednn.avx512_geometry import Geometry, data_tag, geometry_of, padding_exceeds_kernel, vector_width
from memest.libraries.onednn.problem import Convolution, Plan, layout, plain_tag
from memest.libraries.onednn.scratchpad import barriers_bytes, scratchpad_size
from memest.libraries.onednn.single import product, quotient, total
from memest.machines.cpu import Cpu
from memest.sizes.choices import at_most, below, choose, greatest

NAME = "jit_bf16:avx512_core_bf16"
BF16_BYTES = 2
FLOAT_BYTES = 4
REGISTERS = 31
MOST_BLOCKS_HELD = 4
WIDEST_UNROLL = 28
WIDEST_KERNEL, WIDEST_FIRST_LAYER_KERNEL = 14, 24
FULL_IMAGE_BYTES = 48 * 1024
FULL_IMAGE_CHANNELS = 128
LEAST_BLOCKED_WIDTH = 124
LEAST_BLOCKED_PLANE = 64 * 124


def forward(problem: Convolution, cpu: Cpu) -> Plan | None:
    """The plan forward, or None where oneDNN declares the problem unimplemented."""
    if not cpu.has_bf16 or is_too_large(problem):
        return None
    g = geometry_of(problem)
    width = vector_width(g)
    if padding_exceeds_kernel(g) or width is None or not _forward_fits(g, width):
        return None
    source = data_tag(g, width)
    if _is_first_layer_forward(g):
        weights = f"A{'cde'[: g.spatial_dims]}B{BLOCK}a2b"
        source = source if g.channels_last else plain_tag(g.spatial_dims + 2)
    else:
        weights = _paired_weights_tag(g, width, input_innermost=False)
    padded_bias = round_up(g.oc) * BF16_BYTES if g.bias and g.groups == 1 and not g.channels_last and g.oc % BLOCK else 0
    return _plan(problem, source, weights, data_tag(g, width), scratchpad_size(padded_bias))


def backward_data(problem: Convolution, cpu: Cpu) -> Plan | None:
    """The plan backward by data, or None."""
    if not cpu.has_bf16 or is_too_large(problem):
        return None
    g = geometry_of(problem)
    if any(d > 1 and s > 1 for d, s in zip(g.dilation, g.stride, strict=True)) or padding_exceeds_kernel(g):
        return None
    width = vector_width(g)
    if width is None or not _backward_data_fits(g, width):
        return None
    data = data_tag(g, width)
    return _plan(problem, data, _paired_weights_tag(g, width, input_innermost=True), data, 0)


def backward_weights(problem: Convolution, cpu: Cpu) -> Plan | None:
    """The plan backward by weights, or None."""
    if not cpu.has_bf16 or is_too_large(problem):
        return None
    g = geometry_of(problem)
    g = g._replace(padding_end=tuple(max(0, end) for end in g.padding_end))
    if not (_backward_weights_channels_fit(g) and _backward_weights_kernel_fits(g)):
        return None
    way = _way(g, cpu)
    if not way.transposes_source and not _is_padding_within_columns(g):
        return None
    source = destination = data_tag(g, BLOCK)
    weights = blocked_weights_tag(g.spatial_dims, grouped=g.groups > 1, input_innermost=False)
    if g.is_first_layer:
        weights = f"A{'cde'[: g.spatial_dims]}b{BLOCK}a"
        source = destination if g.channels_last else plain_tag(g.spatial_dims + 2)
    return _plan(problem, source, weights, destination, _backward_weights_scratchpad(g, way, cpu))


def _plan(problem: Convolution, source: str, weights: str, destination: str, scratchpad: int) -> Plan:
    return Plan(
        implementation=NAME,
        source=layout(source, problem.source_dims, BF16_BYTES),
        weights=layout(weights, problem.weights_dims, BF16_BYTES),
        destination=layout(destination, problem.destination_dims, BF16_BYTES),
        scratchpad_bytes=scratchpad,
    )


def _paired_weights_tag(g: Geometry, width: int, *, input_innermost: bool) -> str:
    """OIhw8i16o2i and its relatives, or OIhw8o16i2o: channels to be summed come in pairs."""
    outer, output, input = (f"aBC{'def'[: g.spatial_dims]}", "b", "c") if g.groups > 1 else (f"AB{'cde'[: g.spatial_dims]}", "a", "b")
    summed, other = (output, input) if input_innermost else (input, output)
    return f"{outer}{width // 2}{summed}{width}{other}2{summed}"


def _is_first_layer_forward(g: Geometry) -> bool:
    return g.is_first_layer and max(g.ic, g.oc) * BF16_BYTES * prod(g.input) < INT_MAX


def _forward_fits(g: Geometry, width: int) -> bool:
    """Whether the paddings of a row fit the columns computed at once."""
    columns, left, right = g.output[2], g.padding[2], g.padding_end[2]
    output_blocks = blocks(g.oc, width)
    held = min(MOST_BLOCKS_HELD, output_blocks)
    while held > 1:
        unroll = REGISTERS // (held + 1)
        if output_blocks % held == 0 and left <= unroll and (columns == 1 or columns % unroll != 1):
            break
        held -= 1
    unroll = min(columns, REGISTERS // (held + 1))
    return left <= unroll and right - columns % unroll * g.stride[2] <= unroll


def _backward_data_fits(g: Geometry, width: int) -> bool:
    """Whether the columns computed at once suit the kernel's overhang on both sides and the stride."""
    columns, stride, reach = g.input[2], g.stride[2], g.extent[2] - 1
    left = max(0, (reach - g.padding[2]) // stride)
    unroll = _backward_data_unroll(g, left, blocks(g.ic, width))
    if unroll is None or left * stride > unroll:
        return False
    tail = columns % unroll
    right = max(0, (reach - max(0, g.padding_end[2] + tail)) // stride)
    if right * stride > unroll:
        return False
    return columns <= unroll or (unroll % stride == 0 and g.padding_end[2] + tail >= 0)


def _backward_data_unroll(g: Geometry, left: int, input_blocks: int) -> int | None:
    """Columns computed at once: those that keep most accumulators busy."""
    columns, stride = g.input[2], g.stride[2]
    best, longest = stride, 0
    for held in range(1, MOST_BLOCKS_HELD + 1):
        if input_blocks % held:
            continue
        steps = 1
        while steps * stride * held + steps <= REGISTERS and (steps - 1) * stride < columns:
            unroll = min(steps * stride, columns)
            steps += 1
            if left * stride > unroll and unroll != columns:
                continue
            length = blocks(unroll, stride) * held
            if length > longest or (length == longest and best < unroll):
                best, longest = unroll, length
    return best if longest else None


def _backward_weights_channels_fit(g: Geometry) -> bool:
    """Whether blocked channels fill whole blocks; they may be padded without groups, the outputs of a first layer not."""
    if g.channels_last:
        return True
    if g.groups > 1:
        return g.ic % BLOCK == 0 and g.oc % BLOCK == 0
    return not g.is_first_layer or g.oc % BLOCK == 0


def _backward_weights_kernel_fits(g: Geometry) -> bool:
    """Whether strides, dilations and paddings are among those the kernels handle."""
    if any(d > 1 and s > 1 for d, s in zip(g.dilation, g.stride, strict=True)):
        return False
    extent_depth, extent_rows, extent_columns = g.extent
    (front, top, left), (back, bottom, right) = g.padding, g.padding_end
    if g.dilation[1] > 1 and extent_rows > g.input[1]:
        return False
    if g.dilation[0] > 1 and (front or back):
        return False
    if max(left, right) >= extent_columns or max(top, bottom) > extent_rows // 2 or max(front, back) >= extent_depth:
        return False
    if g.is_first_layer and g.output[2] > WIDEST_UNROLL and (left >= WIDEST_UNROLL or extent_columns > g.output[2]):
        return False
    return g.kernel[2] <= (WIDEST_FIRST_LAYER_KERNEL if g.is_first_layer else WIDEST_KERNEL)


def _is_padding_within_columns(g: Geometry) -> bool:
    return max(g.padding[2], g.padding_end[2]) < WIDEST_UNROLL and g.extent[2] <= g.input[2] + 1


class _Way(NamedTuple):
    """How backward weights reads its data: whether transposed, for all threads together or each for itself; and its padded sizes."""

    transposes_source: bool
    permutes: bool
    """Pairs are formed in registers, without any transposed copy."""

    shares_copies: bool
    full_image: bool
    ic: int
    oc: int
    ic_block: int
    guard: int
    source_width: int
    destination_width: int


def _way(g: Geometry, cpu: Cpu) -> _Way:
    padded = g.groups == 1 and not g.is_first_layer and not g.channels_last
    ic, oc = (round_up(g.ic), round_up(g.oc)) if padded else (g.ic, g.oc)
    permutes = _permutes(g, ic, oc)
    source = not permutes and not (g.is_first_layer and (not g.channels_last or ic == 1))
    width, stride = g.output[2], g.stride[2]
    guard = round_up(max(g.padding[2], g.padding_end[2] + 1), 2)
    source_width = round_up(blocks(g.input[2], stride) + guard, 2) * stride if source else g.input[2]
    destination_width = width if permutes else round_up(width, 2)
    ic_block = g.ic if g.is_first_layer else BLOCK
    row_bytes = (ic_block * source_width + BLOCK * destination_width) * BF16_BYTES
    return _Way(
        transposes_source=source,
        permutes=permutes,
        shares_copies=not _transposes_in_pieces(g, oc, cpu),
        full_image=not permutes and ic >= FULL_IMAGE_CHANNELS and _keeps_size(g) and _is_small(g, row_bytes),
        ic=ic,
        oc=oc,
        ic_block=ic_block,
        guard=guard,
        source_width=source_width,
        destination_width=destination_width,
    )


def _permutes(g: Geometry, ic: int, oc: int) -> bool:
    if g.is_first_layer or g.stride[2] != 1 or g.dilation[2] != 1:
        return False
    if g.channels_last:
        return g.spatial_dims == 1 and max(ic, oc) <= 32
    return g.spatial_dims == 3 and g.kernel[2] == 1


def _transposes_in_pieces(g: Geometry, oc: int, cpu: Cpu) -> bool:
    """Whether a large output of a first layer is transposed piece by piece, by each thread for itself."""
    depth, rows, columns = g.output
    cached = cpu.l2_bytes // FLOAT_BYTES
    size = oc * depth * rows * columns
    if not g.is_first_layer or size < cached:
        return False
    if g.channels_last and size >= 2 * cached and min(g.kernel) >= 6:
        return False
    if g.spatial_dims == 2:
        return columns >= LEAST_BLOCKED_WIDTH and rows > 1
    return g.spatial_dims == 3 and rows * columns >= LEAST_BLOCKED_PLANE and depth > 1


def _keeps_size(g: Geometry) -> bool:
    return (
        g.spatial_dims < 3
        and not g.is_first_layer
        and g.input == g.output
        and 1 not in g.kernel[1:]
        and max(*g.stride[1:], *g.dilation[1:]) == 1
        and all(p == k // 2 for p, k in zip(g.padding[1:], g.kernel[1:], strict=True))
    )


def _is_small(g: Geometry, row_bytes: int) -> bool:
    return row_bytes * max(1, g.padding[1], g.padding_end[1]) <= FULL_IMAGE_BYTES


def _backward_weights_scratchpad(g: Geometry, way: _Way, cpu: Cpu) -> int:
    input_blocks, output_blocks = blocks(way.ic, way.ic_block), blocks(way.oc)
    batch_threads, oc_threads, ic_threads = _balance(g, way, input_blocks, output_blocks, cpu.threads)
    threads = cpu.threads if cpu.threads < g.groups else batch_threads * g.groups * oc_threads * ic_threads
    scratchpad = 0
    if not way.permutes:
        copies = batch_threads * g.groups
        source = way.source_width * way.ic_block * prod(g.input[:2]) if way.transposes_source else 0
        source_copies = copies * input_blocks if way.shares_copies else threads
        destination = way.destination_width * BLOCK * prod(g.output[:2])
        destination_copies = copies * output_blocks if way.shares_copies else threads
        scratchpad += scratchpad_size(
            (source * source_copies + way.guard) * BF16_BYTES,
            destination * destination_copies * BF16_BYTES,
        )
        if way.shares_copies and oc_threads > 1:
            scratchpad += barriers_bytes(threads // oc_threads)
        if way.shares_copies and ic_threads > 1:
            scratchpad += barriers_bytes(threads // ic_threads)
    weights = g.groups * output_blocks * BLOCK * input_blocks * way.ic_block * prod(g.kernel)
    bias = g.groups * output_blocks * BLOCK if g.bias else 0
    scratchpad += scratchpad_size((weights + bias) * batch_threads * FLOAT_BYTES)
    return scratchpad + (barriers_bytes(1) if way.shares_copies else 0)


def _balance(g: Geometry, way: _Way, input_blocks: int, output_blocks: int, threads: int) -> tuple[int, int, int]:
    """Threads that share the images, the output channels and the input channels, by the least estimated traffic."""
    if threads < g.groups:
        return 1, 1, 1
    per_group = threads // g.groups
    work = g.batch * (g.output[0] if g.spatial_dims == 3 else g.output[1] if g.spatial_dims == 2 and not way.full_image else 1)
    (input_depth, input_rows, _), (output_depth, output_rows, _) = g.input, g.output
    source_bytes = g.batch * way.ic * input_depth * input_rows * way.source_width * BF16_BYTES
    destination_bytes = g.batch * way.oc * output_depth * output_rows * way.destination_width * BF16_BYTES
    weights_bytes = way.oc * way.ic * prod(g.kernel) * FLOAT_BYTES
    compensation = quotient(product(0.5, destination_bytes + source_bytes), weights_bytes)
    ratio = quotient(output_blocks, input_blocks)
    source_weight = max(quotient(1, ratio), 1.0) * choose(below(compensation, 1), 4, 1)

    def cost(batch_threads: int, oc_threads: int, ic_threads: int) -> float:
        images, outputs, inputs = blocks(work, batch_threads), blocks(output_blocks, oc_threads), blocks(input_blocks, ic_threads)
        source = product(source_weight, images, inputs, g.batch, way.ic_block, input_depth, input_rows, way.source_width)
        for divisor in (work, *g.stride):
            source = quotient(source, divisor)
        weights = product(greatest(compensation, 1.0), outputs, inputs, g.kernel[1], g.kernel[2], g.kernel[0], way.ic_block, BLOCK)
        destination = product(max(ratio, 1.0), images, outputs, g.batch, BLOCK, output_depth, output_rows, way.destination_width)
        return total(source, quotient(destination, work), weights)

    best, least = (1, 1, 1), cost(1, 1, 1)
    for batch_threads in range(1, min(per_group, work) + 1):
        share = per_group // batch_threads
        for oc_threads in range(1, min(share, output_blocks) + 1):
            split = (batch_threads, oc_threads, min(share // oc_threads, input_blocks))
            candidate = cost(*split)
            better = at_most(candidate, least)
            best, least = choose(better, split, best), choose(better, candidate, least)
    batch_threads, oc_threads, ic_threads = best
    if per_group // 2 < batch_threads < per_group:
        batch_threads = min(work, per_group)
    return batch_threads, oc_threads, ic_threads
