"""oneDNN's brgemm forward convolution for unpadded kernels of one point: when it applies, its weights' layout and its scratchpad.

Models src/cpu/x64/jit_brgemm_1x1_conv.cpp and, in jit_brgemm_conv_utils.cpp, ``init_1x1_conf`` with its search of blocks
(oneDNN v3.12), for f32 without attributes.
"""

from __future__ import annotations

from memest.libraries.onednn.brgemm_blocking import (
    PAGE,
    Grid,
    Shape,
    Spans,
    Target,
    Tile,
    are_groups_slow,
    batch_bytes_of,
    channels_last_plan,
    efficiency,
    estimated_rows,
    even_blocks,
    input_channel_block,
    input_width,
    is_supported,
    offsets_fit,
    register_block,
    shape_of,
    share_of,
    sums_bytes_of,
    target_of,
    weights_tag_of,
    widest_block,
)
from memest.libraries.onednn.problem import Convolution, Plan
from memest.libraries.onednn.rounding import round_up
from memest.libraries.onednn.single import quotient, single
from memest.machines.cpu import Cpu, Isa

MOST_ROW_BYTES = 1001
MIN_CHANNEL_SHARE = single(0.95)


def forward_avx512(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``brgconv_1x1:avx512_core``."""
    return plan_pointwise(problem, cpu, "avx512") if cpu.isa == "avx512" else None


def forward_avx2(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``brgconv_1x1:avx2``."""
    return plan_pointwise(problem, cpu, "avx2")


def forward_bf16(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``brgconv_1x1:avx512_core_bf16``."""
    return plan_pointwise(problem, cpu, "avx512") if cpu.has_bf16 else None


def plan_pointwise(problem: Convolution, cpu: Cpu, isa: Isa) -> Plan | None:
    """The plan of the ``isa`` flavour of the implementation, or None where oneDNN declares the problem unimplemented."""
    if any(k != 1 for k in problem.kernel) or not is_supported(problem):
        return None
    shape, target = shape_of(problem), target_of(cpu, isa, problem.itemsize, problem.source_itemsize)
    if not shape.is_pointwise or are_groups_slow(shape, target):
        return None
    tile = _choose_tile(shape, target)
    if tile is None:
        return None
    row_stride = shape.sw * shape.groups * shape.ic
    if not offsets_fit(shape, rows=tile.positions, row_stride=row_stride, oc_block=tile.oc, depth=tile.ic):
        return None
    return channels_last_plan(
        problem,
        f"brgconv_1x1:{target.name}",
        weights_tag_of(problem, tile.oc, pairs="pairs" if target.sums_apart else ""),
        batch_bytes_of(target, 1) + sums_bytes_of(target, tile),
    )


def _choose_tile(shape: Shape, target: Target) -> Tile | None:
    """The tile of best estimated efficiency, the first found among equals."""
    channels_innermost = shape.id * shape.ih * shape.iw >= shape.oc
    whole_image = shape.sd == shape.sh == 1 and shape.iw % shape.sw == 0
    grid = Grid(shape.od, shape.oh, shape.ow, 1, 1, False)
    if whole_image:
        grid = Grid(1, 1, shape.od * shape.oh * shape.ow, 1, 1, True)
    best, best_efficiency = None, 0.0
    for vectors in range(min(-(-shape.oc // target.simd), 4), 0, -1):
        oc_block = vectors * target.simd
        if not _is_worth_trying(shape, target, oc_block):
            continue
        widest = _most_positions(shape, target, oc_block) if whole_image else widest_block(shape, target, oc_block)
        tile = None
        for positions in even_blocks(grid.extent, widest):
            tile = _tile(shape, target, whole_image, oc_block, positions, tile)
            share = share_of(shape, target, channels_innermost, grid, tile)
            spans = _spans(shape, target, tile, share.row)
            gain = efficiency(shape, target, channels_innermost, grid, tile, share, spans, best_efficiency)
            if gain > best_efficiency:
                best, best_efficiency = tile, gain
    return best


def _is_worth_trying(shape: Shape, target: Target, oc_block: int) -> bool:
    channels = round_up(shape.oc, target.simd)
    if oc_block == 64:
        return channels % oc_block == 0 and shape.od * shape.oh * shape.ow >= 64 * shape.sd * shape.sh * shape.sw
    if oc_block == 48:
        return quotient(shape.oc, round_up(shape.oc, oc_block)) >= MIN_CHANNEL_SHARE
    return True


def _most_positions(shape: Shape, target: Target, oc_block: int) -> int:
    """The most positions of a tile that leave work for every thread and keep results from colliding in the cache."""
    positions = shape.od * shape.oh * shape.ow
    if 1024 <= shape.ic * target.itemsize < 4096:
        channel_blocks = shape.batch * -(-shape.oc // oc_block)
        most = max(min(16, positions), -(-positions // -(-target.threads // channel_blocks)))
    else:
        most = max(-(-2048 // oc_block), -(-shape.batch * shape.groups * positions // target.threads))
    distinct = 1000000 // target.threads
    channels = shape.groups * shape.oc
    itemsize = target.result_itemsize
    if channels * positions * itemsize % PAGE == 0:
        while distinct * itemsize > 400 and channels % 2 == 0 and channels * positions * itemsize >= PAGE:
            channels //= 2
            distinct //= 2
        distinct += 1 - distinct % 2
    return max(1, min(positions, most, distinct, -(-MOST_ROW_BYTES // itemsize)))


def _tile(shape: Shape, target: Target, whole_image: bool, oc_block: int, positions: int, previous: Tile | None) -> Tile:
    rows = min(positions, estimated_rows(target, oc_block))
    width = rows if whole_image else input_width(shape, rows, 1)
    ic_block = input_channel_block(shape, target, oc_block, (1, 1, 1), width, previous.rows if previous else 0)
    columns = min(shape.oc, oc_block)
    block = register_block(target, positions, columns, ic_block)
    assert block is not None
    buffered = target.buffers_sums and ic_block < shape.ic
    return Tile(oc_block, ic_block, positions, 1, 1, 1, 1, *block, buffered)


def _spans(shape: Shape, target: Target, tile: Tile, row: int) -> Spans:
    """Input elements the loops touch: oneDNN's estimate counts as many positions as outputs, whatever the stride."""
    block = tile.positions * tile.ic
    channels = round_up(tile.ic, target.packed)
    return Spans(
        in_vector=tile.rows * target.packed,
        in_kernel_row=0,
        in_rows=tile.rows * channels,
        in_kernel_part=0,
        in_channel_chunk=block,
        in_oc_blocks=tile.positions * round_up(shape.ic, target.packed),
        in_block=block,
        in_thread=row * channels,
        in_thread_row=round_up(row * tile.ic, target.packed),
        per_position=tile.ic,
    )
