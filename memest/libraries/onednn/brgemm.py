"""oneDNN's brgemm forward convolution: when it applies, its weights' layout and its scratchpad.

Models src/cpu/x64/jit_brgemm_conv.cpp and, in jit_brgemm_conv_utils.cpp, ``init_conf`` with its search of blocks and
``init_scratchpad`` (oneDNN v3.12), for f32 without attributes. The input reaches the kernels in one of three ways: with the rows
that read padding skipped by the kernel (``virtual``), in place with the padded columns computed apart (``base``), or copied
(``copied``) for tall images of one column and for a single input channel, whose kernel taps then take the place of channels.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

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
    fold_strided_width,
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
from memest.machines.cpu import Cpu, Isa

MAX_VIRTUAL_PADDING = 100
MAX_COPIED_ROW = 10800
ROW_GRANULE = 16
WEIGHTS_GRANULE = 1024
SCRATCHPAD_LIMIT = 32 << 30

Access = Literal["virtual", "base", "copied"]
Lowering = Literal["none", "row", "window"]
LoopOrder = Literal["channels_innermost", "channels_outer", "channels_outermost"]


class _Way(NamedTuple):
    """How the input is read; with ``lowering`` the taps of a kernel row or of the whole window take the place of channels."""

    access: Access
    channels_innermost: bool
    lowering: Lowering = "none"
    flat: bool = False


class _Choice(NamedTuple):
    """A tile and the grid it was chosen for."""

    grid: Grid
    tile: Tile


def forward_avx512(problem: Convolution, cpu: Cpu, *, inverted: bool = False) -> Plan | None:
    """``brg_conv_fwd:avx512_core``; ``inverted`` when it stands for a transposed convolution and reads the kernel backwards."""
    return plan_general(problem, cpu, "avx512", inverted=inverted) if cpu.isa == "avx512" else None


def forward_avx2(problem: Convolution, cpu: Cpu, *, inverted: bool = False) -> Plan | None:
    """``brg_conv_fwd:avx2``; ``inverted`` when it stands for a transposed convolution and reads the kernel backwards."""
    return plan_general(problem, cpu, "avx2", inverted=inverted)


def forward_bf16(problem: Convolution, cpu: Cpu, *, inverted: bool = False) -> Plan | None:
    """``brg_conv_fwd:avx512_core_bf16``; ``inverted`` when it stands for a transposed convolution and reads the kernel backwards."""
    return plan_general(problem, cpu, "avx512", inverted=inverted) if cpu.has_bf16 else None


def plan_general(problem: Convolution, cpu: Cpu, isa: Isa, *, inverted: bool) -> Plan | None:
    """The plan of the ``isa`` flavour of the implementation, or None where oneDNN declares the problem unimplemented."""
    if not is_supported(problem):
        return None
    original, target = shape_of(problem), target_of(cpu, isa, problem.itemsize, problem.source_itemsize)
    if original.is_pointwise or are_groups_slow(original, target):
        return None
    shape = fold_strided_width(original, target)
    can_lower = isa == "avx512" and not inverted and shape is original
    lowering = _lowering(shape, problem.spatial_dims, target) if can_lower else "none"
    way, choice = _choose(shape, target, lowering)
    grid, tile = choice
    if not _are_kernels_possible(shape, target, way, tile):
        return None
    plan = channels_last_plan(
        problem,
        f"brg_conv_fwd:{target.name}",
        _weights_tag(problem, shape, target, way, tile.oc),
        _scratchpad_bytes(shape, target, way, grid, tile),
    )
    limit = min(SCRATCHPAD_LIMIT, 64 * target.threads * (plan.source.bytes + plan.weights.bytes + plan.destination.bytes))
    return None if way.access == "copied" and plan.scratchpad_bytes > limit else plan


def _choose(shape: Shape, target: Target, lowering: Lowering) -> tuple[_Way, _Choice]:
    """The way of reading the input and the blocks for it."""
    order = _loop_order(shape, target)
    if lowering != "none" or (target.isa == "avx512" and shape.od == shape.ow == shape.kw == 1):
        way = _Way("copied", True, lowering, _is_copy_flat(shape))
        choice = _best(shape, target, way, order)
        assert choice is not None
        return way, choice
    innermost = order == "channels_innermost"
    if -(-max(0, shape.left) // shape.sw) < shape.kw and -(-max(0, shape.right) // shape.sw) < shape.kw:
        way = _Way("virtual", innermost)
        choice = _best(shape, target, way, order)
        if choice is not None and (choice.tile.positions - 1) * shape.sw + 1 <= shape.iw:
            return way, choice
    way = _Way("base", innermost)
    choice = _best(shape, target, way, order)
    assert choice is not None
    return way, choice


def _loop_order(shape: Shape, target: Target) -> LoopOrder:
    source = shape.id * shape.ih * shape.iw * shape.ic * target.itemsize
    weights = shape.oc * shape.kernel_volume * shape.ic * target.itemsize
    if target.isa == "avx2" and shape.batch > target.threads and min(source, weights) > target.l2:
        return "channels_outermost"
    return "channels_outer" if source < weights else "channels_innermost"


def _lowering(shape: Shape, spatial_dims: int, target: Target) -> Lowering:
    """Which taps become channels, if any, when there is a single input channel."""
    if shape.ic > 1 or shape.dw > 1:
        return "none"
    if spatial_dims < 3 and shape.dh == 1 and shape.kh > 1 and shape.ow > 4:
        return "window"
    rearranges = target.sums_apart and shape.id > 1
    return "row" if shape.kw > 1 and not rearranges else "none"


def _is_copy_flat(shape: Shape) -> bool:
    """Whether a kernel may run over several rows of the copied input at once (``is_os_blocking``)."""
    depth, height, width = max(shape.front, shape.back), max(shape.top, shape.bottom), max(shape.left, shape.right)
    if depth >= shape.kd or height >= shape.kh or width >= shape.kw or _padded_width(shape) >= MAX_COPIED_ROW:
        return False
    return shape.sh == 1 and (shape.ow == 1 or _reach(shape.kw, shape.dw) <= shape.sw)


def _best(shape: Shape, target: Target, way: _Way, order: LoopOrder) -> _Choice | None:
    """The blocks of best estimated efficiency, the first found among equals; None when no kernel can skip the padding."""
    best, best_efficiency = None, 0.0
    most_vectors = 4
    if target.isa == "avx2" and (order == "channels_outermost" or shape.oh * shape.ow >= 150 * 150):
        most_vectors = 2
    for vectors in range(min(-(-shape.oc // target.simd), most_vectors), 0, -1):
        oc_block = vectors * target.simd
        if _is_worth_trying(shape, target, oc_block):
            choice, gain = _best_for_channels(shape, target, way, oc_block, best_efficiency)
            if choice is not None and _can_skip_padding(shape, target, way, choice.tile):
                best, best_efficiency = choice, gain
    return best


def _is_worth_trying(shape: Shape, target: Target, oc_block: int) -> bool:
    channels = round_up(shape.oc, target.simd)
    weight = channels * target.itemsize // FLOAT_BYTES
    if oc_block == 64:
        return channels % oc_block == 0 and weight < 192
    if oc_block == 48:
        big_image = shape.id * shape.ih * shape.iw > 81 * shape.sd * shape.sh * shape.sw
        return channels % oc_block == 0 and weight <= 384 and big_image
    return True


def _best_for_channels(shape: Shape, target: Target, way: _Way, oc_block: int, to_beat: float) -> tuple[_Choice | None, float]:
    """The best blocks for blocks of ``oc_block`` output channels, and their efficiency, if any exceeds ``to_beat``."""
    best, best_efficiency = None, to_beat
    widest = shape.ow if way.flat else widest_block(shape, target, oc_block)
    widths = (shape.ow,) if way.flat else even_blocks(shape.ow, widest)
    rows = 0
    for kd_block in (shape.kd, 1) if shape.kd > 1 else (1,):
        for kh_block in (shape.kh, 1) if shape.kh > 1 else (1,):
            taps = (kd_block, kh_block, _kernel_width_block(shape, target, way, oc_block))
            grid = _grid(shape, target, way, oc_block, taps, rows)
            for width in widths:
                tile = _tile(shape, target, way, oc_block, taps, width * grid.oh_block if way.flat else width, rows)
                if tile is None:
                    continue
                rows = tile.rows
                if not _can_tail_skip_padding(shape, target, way, tile):
                    continue
                share = share_of(shape, target, way.channels_innermost, grid, tile)
                spans = _spans(shape, target, tile, share.row)
                gain = efficiency(shape, target, way.channels_innermost, grid, tile, share, spans, best_efficiency)
                if gain > best_efficiency:
                    best, best_efficiency = _Choice(grid, tile), gain
    return best, best_efficiency


def _kernel_width_block(shape: Shape, target: Target, way: _Way, oc_block: int) -> int:
    if way.access == "base" and shape.ic * oc_block * target.itemsize * shape.kw >= target.l2:
        return 1
    return shape.kw


def _grid(shape: Shape, target: Target, way: _Way, oc_block: int, taps: tuple[int, int, int], rows: int) -> Grid:
    od_block, oh_block = 1, 1
    if way.access == "copied" and way.lowering != "window":
        od_block, oh_block = _copied_image_blocks(shape, target, way, oc_block, taps, rows)
    extent = shape.od * shape.oh * shape.ow if way.flat else shape.ow
    return Grid(shape.od, shape.oh, extent, od_block, oh_block, way.flat)


def _copied_image_blocks(shape: Shape, target: Target, way: _Way, oc_block: int, taps: tuple[int, int, int], rows: int) -> tuple[int, int]:
    """Depth and height of the blocks of output whose input is copied at once: what L2 holds, less to occupy all threads."""
    expected = estimated_rows(target, oc_block)
    width = expected if way.flat else input_width(shape, expected, shape.kw)
    channels = _channel_block(shape, target, way, oc_block, taps, width, rows)
    row_bytes = target.itemsize * 2 * channels * _padded_width(shape) + target.result_itemsize * shape.ow * oc_block
    other_bytes = oc_block * (target.itemsize * shape.kernel_volume * channels + FLOAT_BYTES * 2 * ROW_GRANULE)
    available = min(-(-target.l2 // 2), max(0, target.l2 - other_bytes))
    padded_depth = shape.id + shape.front + shape.back
    padded_height = shape.ih + shape.top + shape.bottom
    od_block, oh_block = 1, shape.oh
    if padded_depth * padded_height * row_bytes > available:
        od_block = max(1, min(shape.od, available // (padded_height * row_bytes)))
        if od_block == 1:
            oh_block = max(1, min(shape.oh, available // row_bytes))
    groups = shape.groups if shape.oc > 32 else 1
    splits = -(-target.threads // (shape.batch * -(-groups * shape.oc // oc_block)))
    depth_share = -(-shape.od // splits)
    height_share = -(-shape.oh // (splits * -(-shape.od // depth_share)))
    return min(od_block, depth_share), min(oh_block, height_share)


def _tile(
    shape: Shape, target: Target, way: _Way, oc_block: int, taps: tuple[int, int, int], positions: int, previous_rows: int
) -> Tile | None:
    expected = min(positions, estimated_rows(target, oc_block))
    kd, kh, kw = taps
    width = expected if way.flat else input_width(shape, expected, kw)
    ic_block = _channel_block(shape, target, way, oc_block, taps, width, previous_rows)
    padded_rows = _virtual_rows(shape, way)
    if not 0 <= padded_rows <= MAX_VIRTUAL_PADDING:
        return None
    depth = _kernel_depth(ic_block, shape, target, way)
    block = register_block(target, positions, min(shape.oc, oc_block), depth, padded_rows)
    if block is None:
        return None
    pairs = kd * kh * kw
    if way.access == "base":
        pairs = max(pairs, (shape.kd if kh >= shape.kd else 1) * (shape.kh if kw >= shape.kh else 1) * shape.kw)
    buffered = target.buffers_sums and _is_split(shape, way, ic_block, taps)
    return Tile(oc_block, ic_block, positions, kd, kh, kw, pairs, *block, buffered)


def _is_split(shape: Shape, way: _Way, ic_block: int, taps: tuple[int, int, int]) -> bool:
    """Whether a result is summed by more than one call."""
    _, kh, kw = taps
    if ic_block < shape.ic or taps != (shape.kd, shape.kh, shape.kw):
        return True
    if way.access != "base":
        return False
    ends = (kh >= shape.kd or shape.kd == 1, kw >= shape.kh or shape.kh == 1)
    return not all(ends) or _padded_width(shape) != shape.iw


def _channel_block(shape: Shape, target: Target, way: _Way, oc_block: int, taps: tuple[int, int, int], width: int, rows: int) -> int:
    """Input channels of one kernel call; where they are copied, in whole blocks of pairs."""
    granule = _granule(shape, target, way) if way.access == "copied" else 1
    block = input_channel_block(shape, target, oc_block, taps, width, rows, granule)
    return max(block, shape.ic) if way.lowering != "none" else block


def _granule(shape: Shape, target: Target, way: _Way) -> int:
    """Input channels (or taps in their place) that copies are rounded up to."""
    if not target.sums_apart:
        return 1
    return target.packed if shape.ic * _taps_as_channels(shape, way) > target.packed else 2


def _kernel_depth(ic_block: int, shape: Shape, target: Target, way: _Way) -> int:
    """Products a kernel sums for each matrix pair."""
    if way.lowering == "none" or not target.sums_apart:
        return ic_block * _taps_as_channels(shape, way)
    depth = round_up(_taps_as_channels(shape, way) * shape.ic, 2)
    return round_up(depth, target.packed) if depth > target.packed else depth


def _taps_as_channels(shape: Shape, way: _Way) -> int:
    return {"none": 1, "row": shape.kw, "window": shape.kh * shape.kw}[way.lowering]


def _virtual_rows(shape: Shape, way: _Way) -> int:
    """The most rows at either end of a kernel's positions that read padding."""
    return max(shape.left, shape.right) if way.access == "virtual" else 0


def _spans(shape: Shape, target: Target, tile: Tile, row: int) -> Spans:
    """Input elements the loops touch."""
    plane = shape.kd * shape.kh
    in_kernel_row = _row_span(shape, target, tile.rows, tile.kw, tile.ic)
    in_block = plane * _row_span(shape, target, tile.positions, shape.kw, shape.ic)
    in_thread = plane * _row_span(shape, target, row, shape.kw, shape.ic)
    return Spans(
        in_vector=input_width(shape, tile.rows, tile.kw) * target.packed,
        in_kernel_row=in_kernel_row,
        in_rows=tile.kd * tile.kh * in_kernel_row,
        in_kernel_part=tile.kd * tile.kh * _row_span(shape, target, tile.positions, tile.kw, tile.ic),
        in_channel_chunk=plane * _row_span(shape, target, tile.positions, shape.kw, tile.ic),
        in_oc_blocks=in_block,
        in_block=in_block,
        in_thread=in_thread,
        in_thread_row=in_thread,
        per_position=shape.kernel_volume * shape.ic,
    )


def _row_span(shape: Shape, target: Target, positions: int, kernel_width: int, channels: int) -> int:
    """Input elements of ``channels`` channels that outputs in a row read, in whole vectors."""
    width = input_width(shape, positions, kernel_width)
    if shape.sw == 1 and channels >= shape.ic:
        return round_up(width * channels, target.packed)
    return width * round_up(channels, target.packed)


def _kernels(shape: Shape, way: _Way, tile: Tile) -> list[tuple[int, int, int]]:
    """(rows, columns, depth) of the kernels for whole tiles and for the last ones along each dimension."""
    extent = shape.oh * shape.ow if way.flat else shape.ow
    rows = (tile.positions, extent % tile.positions)
    columns = (tile.oc if shape.oc >= tile.oc else 0, shape.oc % tile.oc)
    depths = (tile.ic, shape.ic % tile.ic)
    return [(m, n, k) for m in rows if m for n in columns if n for k in depths if k]


def _can_tail_skip_padding(shape: Shape, target: Target, way: _Way, tile: Tile) -> bool:
    padded_rows, tail = _virtual_rows(shape, way), shape.ow % tile.positions
    return not padded_rows or not tail or register_block(target, tail, min(shape.oc, tile.oc), tile.ic, padded_rows) is not None


def _can_skip_padding(shape: Shape, target: Target, way: _Way, tile: Tile) -> bool:
    padded_rows = _virtual_rows(shape, way)
    if not padded_rows:
        return True
    return all(register_block(target, *kernel, padded_rows) is not None for kernel in _kernels(shape, way, tile))


def _are_kernels_possible(shape: Shape, target: Target, way: _Way, tile: Tile) -> bool:
    """Whether every kernel's offsets fit and its last register block spans the padding it skips."""
    depth = _kernel_depth(tile.ic, shape, target, way)
    row_stride = _row_stride(shape, way, tile)
    if not offsets_fit(shape, rows=tile.positions, row_stride=row_stride, oc_block=tile.oc, depth=depth):
        return False
    padded_rows = _virtual_rows(shape, way)
    if padded_rows <= 1:
        return True
    for rows, columns, kernel_depth in _kernels(shape, way, tile):
        block = register_block(target, rows, columns, kernel_depth, padded_rows)
        if block is None or (rows % block[0] or block[0]) < padded_rows:
            return False
    return True


def _row_stride(shape: Shape, way: _Way, tile: Tile) -> int:
    """Elements from the input of one output position to that of the next, as the kernel reads it (``LDA``)."""
    channels = shape.groups * shape.ic
    if way.access == "copied":
        channels = tile.ic if way.lowering == "none" else shape.ic
    stride = shape.sw * channels * (shape.kh if way.lowering == "window" else 1)
    return stride * _reach(shape.kw, shape.dw) if shape.ow == 1 else stride


def _weights_tag(problem: Convolution, shape: Shape, target: Target, way: _Way, oc_block: int) -> str:
    """Blocked by output channels; a lowered window whose taps do not fill vectors is kept for oneDNN to rearrange as it runs."""
    if target.sums_apart:
        if way.lowering != "none":
            return weights_tag_of(problem, 16, width_first=way.lowering == "window")
        in_blocks = way.access == "copied" and shape.ic > target.packed
        return weights_tag_of(problem, oc_block, pairs="blocks" if in_blocks else "pairs")
    window = shape.kh * shape.kw * shape.ic
    if way.lowering == "window" and not (1 in (shape.kh, shape.kw) and (window <= target.simd or window % target.simd == 0)):
        return weights_tag_of(problem, 16, width_first=True)
    return weights_tag_of(problem, oc_block)


def _scratchpad_bytes(shape: Shape, target: Target, way: _Way, grid: Grid, tile: Tile) -> int:
    """The lists of matrices to multiply and, where it is copied, the threads' copies of the input and the lowered weights."""
    size = batch_bytes_of(target, tile.pairs) + sums_bytes_of(target, tile)
    if way.access != "copied":
        return size
    nb_od, nb_oh = -(-shape.od // grid.od_block), -(-shape.oh // grid.oh_block)
    nb_ow = 1 if way.flat else -(-shape.ow // tile.positions)
    blocks = nb_od * nb_oh * nb_ow * shape.groups * -(-shape.ic // tile.ic)
    size += target.threads * _copy_elements(shape, way, grid, tile) * target.itemsize + PAGE
    size += target.threads * round_up(blocks, PAGE) + PAGE
    if way.lowering != "none":
        depth = round_up(_taps_as_channels(shape, way) * shape.ic, _granule(shape, target, way))
        weights = shape.groups * round_up(shape.oc, tile.oc) * depth * (shape.kh if way.lowering == "row" else 1)
        size += round_up(weights, WEIGHTS_GRANULE) * target.itemsize + PAGE
    return size


def _copy_elements(shape: Shape, way: _Way, grid: Grid, tile: Tile) -> int:
    """Elements of one thread's copy of the input, as oneDNN roughly bounds it."""
    padded_depth = shape.id + shape.front + shape.back
    padded_height = shape.ih + shape.top + shape.bottom
    padded_width = _padded_width(shape)
    depth = min(padded_depth, (grid.od_block - 1) * min(shape.kd, shape.sd) + _reach(shape.kd, shape.dd))
    depth += max(0, shape.front) + max(0, shape.back)
    height = min(padded_height, (grid.oh_block - 1) * min(shape.kh, shape.sh) + _reach(shape.kh, shape.dh))
    height += max(0, shape.top) + max(0, shape.bottom)
    if way.flat:
        height = -(-round_up(height * padded_width, round_up(tile.positions, ROW_GRANULE)) // padded_width) + shape.kh * shape.dh
    row_stride = _row_stride(shape, way, tile)
    elements = depth * height * padded_width * shape.groups * -(-shape.ic // tile.ic) * row_stride
    if way.lowering == "window":
        elements = shape.kh * elements + ((shape.oh - 1) * grid.oh_block * shape.sh + 1) * row_stride
    return round_up(elements, PAGE)


def _reach(kernel: int, dilation: int) -> int:
    return (kernel - 1) * dilation + 1


def _padded_width(shape: Shape) -> int:
    return shape.iw + shape.left + shape.right
