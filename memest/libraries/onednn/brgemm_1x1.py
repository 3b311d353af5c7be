"""oneDNN's brgemm forward convolution for unpadded kernels of one point: when it applies, its weights' layout and its scratchpad.

Models src/cpu/x64/jit_brgemm_1x1_conv.cpp and, in jit_brgemm_conv_utils.cpp, ``init_1x1_conf`` with its search of blocks
(oneDNN v3.12), for f32 without attributes.
"""

from __future__ import annotations

from memest.libraries.cpu import Cpu, Isa
from memest.libraries.onednn.brgemm_blocking import (
    FLOAT_BYTES,
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
    target_of,
    weights_tag_of,
    widest_block,
)
from memest.libraries.onednn.problem import Convolution, Plan

IMPLEMENTATION = {"avx512": "brgconv_1x1:avx512_core", "avx2": "brgconv_1x1:avx2"}
MAX_POSITIONS = 251


def forward_avx512(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``brgconv_1x1:avx512_core``."""
    return plan_pointwise(problem, cpu, "avx512") if cpu.isa == "avx512" else None


def forward_avx2(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``brgconv_1x1:avx2``."""
    return plan_pointwise(problem, cpu, "avx2")


def plan_pointwise(problem: Convolution, cpu: Cpu, isa: Isa) -> Plan | None:
    """The plan of the ``isa`` flavour of the implementation, or None where oneDNN declares the problem unimplemented."""
    if any(k != 1 for k in problem.kernel) or not is_supported(problem):
        return None
    shape, target = shape_of(problem), target_of(cpu, isa)
    if not shape.is_pointwise or are_groups_slow(shape, target):
        return None
    tile = _choose_tile(shape, target)
    row_stride = shape.sw * shape.groups * shape.ic
    if not offsets_fit(shape, rows=tile.positions, row_stride=row_stride, oc_block=tile.oc, depth=tile.ic):
        return None
    return channels_last_plan(problem, IMPLEMENTATION[isa], weights_tag_of(problem, tile.oc), batch_bytes_of(target, 1))


def _choose_tile(shape: Shape, target: Target) -> Tile:
    """The tile of best estimated efficiency, the first found among equals."""
    channels_innermost = shape.id * shape.ih * shape.iw >= shape.oc
    whole_image = shape.sd == shape.sh == 1 and shape.iw % shape.sw == 0
    if whole_image:
        grid = Grid(1, 1, shape.od * shape.oh * shape.ow, 1, 1, True)
    else:
        grid = Grid(shape.od, shape.oh, shape.ow, 1, 1, False)
    best, best_efficiency = None, 0.0
    for vectors in range(min(-(-shape.oc // target.simd), 4), 0, -1):
        oc_block = vectors * target.simd
        if best is not None and not _worth_trying(shape, target, oc_block):
            continue
        widest = _most_positions(shape, target, oc_block) if whole_image else widest_block(shape, target, oc_block)
        rows = 0
        for positions in even_blocks(grid.extent, widest):
            tile = _tile(shape, target, whole_image, oc_block, positions, rows)
            rows = tile.rows
            gain = efficiency(shape, target, channels_innermost, grid, tile, _spans(shape, target, grid, tile, channels_innermost))
            if best is None or gain > best_efficiency:
                best, best_efficiency = tile, gain
    assert best is not None
    return best
