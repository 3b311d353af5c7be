"""oneDNN's brgemm forward convolution: when it applies, its weights' layout and its scratchpad.

Models src/cpu/x64/jit_brgemm_conv.cpp and, in jit_brgemm_conv_utils.cpp, ``init_conf`` with its search of blocks and
``init_scratchpad`` (oneDNN v3.12), for f32 without attributes. The input reaches the kernels in one of three ways: with the rows
that read padding skipped by the kernel (``virtual``), in place with the padded columns computed apart (``base``), or copied
(``copied``) for tall images of one column and for a single input channel, whose kernel taps then take the place of channels.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

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
    fold_strided_width,
    input_channel_block,
    input_width,
    is_supported,
    offsets_fit,
    register_block,
    shape_of,
    share_of,
    target_of,
    weights_tag_of,
    widest_block,
)
from memest.libraries.onednn.problem import Convolution, Plan

IMPLEMENTATION = {"avx512": "brg_conv_fwd:avx512_core", "avx2": "brg_conv_fwd:avx2"}
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


def plan_general(problem: Convolution, cpu: Cpu, isa: Isa, *, inverted: bool) -> Plan | None:
    """The plan of the ``isa`` flavour of the implementation, or None where oneDNN declares the problem unimplemented."""
    if not is_supported(problem):
        return None
    original, target = shape_of(problem), target_of(cpu, isa)
    if original.is_pointwise or are_groups_slow(original, target):
        return None
    shape = fold_strided_width(original, target)
    way, choice = _choose(shape, target, can_lower=not inverted and shape is original)
    grid, tile = choice
    if not _are_kernels_possible(shape, target, way, tile):
        return None
    plan = channels_last_plan(
        problem,
        IMPLEMENTATION[isa],
        _weights_tag(problem, shape, target, way, tile.oc),
        _scratchpad_bytes(shape, target, way, grid, tile),
    )
    limit = min(SCRATCHPAD_LIMIT, 64 * target.threads * (plan.source.bytes + plan.weights.bytes + plan.destination.bytes))
    return None if way.access == "copied" and plan.scratchpad_bytes > limit else plan


def _choose(shape: Shape, target: Target, *, can_lower: bool) -> tuple[_Way, _Choice]:
    """The way of reading the input and the blocks for it."""
    order = _loop_order(shape, target)
    if target.isa == "avx512":
        lowering = _lowering(shape) if can_lower else "none"
        if lowering != "none" or shape.od == shape.ow == shape.kw == 1:
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
    source = shape.id * shape.ih * shape.iw * shape.ic * FLOAT_BYTES
    weights = shape.oc * shape.kernel_volume * shape.ic * FLOAT_BYTES
    if target.isa == "avx2" and shape.batch > target.threads and min(source, weights) > target.l2:
        return "channels_outermost"
    return "channels_outer" if source < weights else "channels_innermost"


def _lowering(shape: Shape) -> Lowering:
    """Which taps become channels: those of the window of a single dense input channel, else those of its rows."""
    if shape.ic > 1 or shape.dw > 1:
        return "none"
