"""oneDNN's AVX2 direct convolution (``jit:avx2``): which problems it accepts, its layouts and scratchpad.

Sources: oneDNN v3.12 src/cpu/x64/jit_avx2_conv_kernel_f32.cpp and jit_avx2_convolution.hpp. Channels are blocked by 8 and,
without groups, padded to whole blocks. A first layer of few input channels keeps its source plain ("flat"). Channels-last
data needs neither blocks nor padding. The rules on widths come from the kernels, which compute a few output (backward data:
input) columns at once and meet the left and the right padding in the first and the last group of columns only.
"""

from __future__ import annotations

from math import prod

from memest.libraries.onednn.avx2_common import (
    BLOCK,
    FLOAT_BYTES,
    blocked_data_tag,
    blocked_weights_tag,
    blocks,
    entry_bytes,
    exceeds_int,
    is_too_large,
    reducer_bytes,
)
from memest.libraries.onednn.problem import Convolution, Plan, channels_last_tag, layout, plain_tag
from memest.machines.cpu import Cpu

NAME = "jit:avx2"
REGISTERS = 15
"""Vector registers left to data once the kernels have taken their temporary."""

FORWARD_COLUMNS = 3
WIDEST_CHANNELS_LAST_LINE = 11 * 1024
WIDEST_PADDED_KERNEL = 7
WIDEST_DATA_KERNEL_FEW_CHANNELS = 3
WIDEST_WEIGHTS_KERNEL = 13
WEIGHTS_FLAT_CHANNELS = 3
REDUCER_BUFFER = 1 << 21


def forward(problem: Convolution, cpu: Cpu) -> Plan | None:
    """The forward kernel's plan; None where it refuses."""
    if is_too_large(problem):
        return None
    ic, oc = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    flat = ic < BLOCK
    if flat != (problem.in_channels < BLOCK):
        return None
    if problem.channels_last:
        if problem.spatial_dims == 1 and problem.output_size[0] > WIDEST_CHANNELS_LAST_LINE:
            return None
    elif problem.groups > 1 and (oc % BLOCK or (ic % BLOCK and not flat)):
        return None
    extents = _extents(problem)
    end_padding = _end_padding(problem, extents)
    if _reaches_outside(problem, extents, end_padding) or not _forward_width_fits(problem, extents[-1]):
        return None
    pads_bias = problem.bias and not problem.channels_last and oc % BLOCK
    return _plan(problem, flat=flat, scratchpad=entry_bytes(blocks(oc) * BLOCK) if pads_bias else 0)


def backward_data(problem: Convolution, cpu: Cpu) -> Plan | None:
    """The plan of the input's gradient; None where the kernel refuses."""
    if is_too_large(problem) or _dilates_strided(problem):
        return None
    ic, oc = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    stride_w = problem.stride[-1]
    stride_h = problem.stride[-2] if problem.spatial_dims > 1 else 1
    if stride_w != stride_h or (problem.spatial_dims == 3 and problem.stride[0] != 1):
        return None
    if ic < BLOCK and problem.kernel[-1] > WIDEST_DATA_KERNEL_FEW_CHANNELS and stride_w > 1:
        return None
    if not problem.channels_last and problem.groups > 1 and (ic % BLOCK or oc % BLOCK):
        return None
    extents = _extents(problem)
    end_padding = _end_padding(problem, extents)
    if _reaches_outside(problem, extents, end_padding):
        return None
    if not _backward_data_width_fits(problem, blocks(ic), extents[-1], end_padding[-1]):
        return None
    return _plan(problem, flat=False, scratchpad=0)


def backward_weights(problem: Convolution, cpu: Cpu) -> Plan | None:
    """The plan of the weight's gradient; None where the kernel refuses."""
    if is_too_large(problem):
        return None
    ic, oc = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    flat = ic == WEIGHTS_FLAT_CHANNELS
    if flat != (problem.in_channels == WEIGHTS_FLAT_CHANNELS):
        return None
    if not problem.channels_last:
        if problem.groups > 1 and (oc % BLOCK or ic % BLOCK):
            return None
        if flat and prod(problem.input_size) == 1:  # a single point of plain data is taken for channels last
            return None
    if not _backward_weights_geometry_fits(problem) or _backward_weights_exceeds_int(problem, ic, oc, flat=flat):
        return None
    return _plan(problem, flat=flat, scratchpad=_backward_weights_scratchpad(problem, cpu, ic, oc, flat=flat))


def _extents(problem: Convolution) -> tuple[int, ...]:
    """The kernel's size per dimension, its dilation included."""
    return tuple((k - 1) * d + 1 for k, d in zip(problem.kernel, problem.dilation, strict=True))


def _end_padding(problem: Convolution, extents: tuple[int, ...]) -> tuple[int, ...]:
    """The padding each dimension's last window actually reaches; negative when the end of the input is not used."""
    sizes = zip(problem.output_size, problem.stride, extents, problem.input_size, problem.padding, strict=True)
    return tuple((out - 1) * stride + extent - source - pad for out, stride, extent, source, pad in sizes)


def _reaches_outside(problem: Convolution, extents: tuple[int, ...], end_padding: tuple[int, ...]) -> bool:
    """Whether some window lies entirely in the padding."""
    dims = zip(extents, problem.padding, end_padding, strict=True)
    return any(extent <= begin or extent <= end for extent, begin, end in dims)


def _dilates_strided(problem: Convolution) -> bool:
    return any(d != 1 and s != 1 for d, s in zip(problem.dilation, problem.stride, strict=True))


def _forward_width_fits(problem: Convolution, extent: int) -> bool:
    """Whether a number of output columns per step is found that meets each side's padding within one step."""
    out, source, stride, pad = problem.output_size[-1], problem.input_size[-1], problem.stride[-1], problem.padding[-1]
    columns = min(FORWARD_COLUMNS, out)
    if pad > columns:
        return False
    if problem.kernel[-1] > WIDEST_PADDED_KERNEL and any(problem.padding[-2:]) and prod(problem.stride[-2:]) != 1:
        return False

    def end_padding_before_tail(columns: int) -> int:
        return max(0, (out - out % columns - 1) * stride + extent - source - pad)

    end = end_padding_before_tail(columns)
    if end <= columns * stride or out // columns <= 1:
        return True
    columns = min(end // stride + out % columns, out, REGISTERS // 2)
    return columns >= max(pad, end_padding_before_tail(columns))


def _backward_data_width_fits(problem: Convolution, input_blocks: int, extent: int, end_padding: int) -> bool:
    """Whether a number of input columns per step is found that meets each side's overflow within one step."""
    source, stride = problem.input_size[-1], problem.stride[-1]
    overflow = max(0, (extent - 1 - problem.padding[-1]) // stride)
    columns = _backward_data_columns(source, stride, input_blocks, overflow)
    if columns == 0:
        return False
    tail = source % columns
    end_overflow = max(0, (extent - 1 - end_padding - tail) // stride)
    if end_overflow * stride > columns:
        return False
    return source <= columns or (columns % stride == 0 and end_padding + tail >= 0)


def _backward_data_columns(source: int, stride: int, input_blocks: int, overflow: int) -> int:
    """Input columns per step with the most multiplications in registers, 0 if no number of columns will do."""
    best_columns = 1
    best_products = 0
    for block_step in (1, 2, 3, 4):
        if input_blocks % block_step:
            continue
        for steps in range(1, REGISTERS + 1):
            width = steps * stride
            if width * block_step + steps > REGISTERS or width >= source + stride:
                break
            columns = min(width, source)
            if overflow * stride > columns and columns != source:
                continue
            products = -(-columns // stride) * block_step
            if products > best_products or (products == best_products and columns > best_columns):
                best_columns, best_products = columns, products
    return best_columns if best_products else 0


def _backward_weights_geometry_fits(problem: Convolution) -> bool:
    kernel, source, padding = problem.kernel, problem.input_size, problem.padding
    if kernel[-1] > WIDEST_WEIGHTS_KERNEL or any(d != 1 for d in problem.dilation):
        return False
    end_padding = _end_padding(problem, kernel)
    if _reaches_outside(problem, kernel, end_padding):
        return False
    if any(k > size for k, size in zip(kernel[:-1], source[:-1], strict=True)):
        return False
    return problem.spatial_dims < 3 or (padding[0] == 0 and end_padding[0] <= 0)


def _backward_weights_exceeds_int(problem: Convolution, ic: int, oc: int, *, flat: bool) -> bool:
    """Whether one group's source, or its destination gradient counted with the source's size, is over 2 GiB."""
    if not problem.channels_last:
        ic, oc = ic if flat else blocks(ic) * BLOCK, blocks(oc) * BLOCK
    image_bytes = problem.batch * prod(problem.input_size) * FLOAT_BYTES
    return exceeds_int(ic * image_bytes, oc * image_bytes)


def _backward_weights_scratchpad(problem: Convolution, cpu: Cpu, ic: int, oc: int, *, flat: bool) -> int:
    groups, output_blocks = problem.groups, blocks(oc)
    job_size = prod(problem.kernel) * (ic if flat else BLOCK) * BLOCK
    jobs = groups * (1 if flat else blocks(ic)) * output_blocks
    depth = problem.output_size[0] if problem.spatial_dims == 3 else 1
    scratchpad = reducer_bytes(cpu.threads, job_size, jobs, problem.batch * depth, REDUCER_BUFFER)
    if problem.bias:
        scratchpad += reducer_bytes(cpu.threads, BLOCK, groups * output_blocks, problem.batch, REDUCER_BUFFER)
        if oc % BLOCK:
            scratchpad += entry_bytes(groups * output_blocks * BLOCK)
    return scratchpad


def _plan(problem: Convolution, *, flat: bool, scratchpad: int) -> Plan:
    ndim = problem.spatial_dims + 2
    if problem.channels_last:
        source = destination = channels_last_tag(ndim)
    else:
        destination = blocked_data_tag(problem.spatial_dims)
        source = plain_tag(ndim) if flat else destination
    weights = _flat_weights_tag(problem) if flat else blocked_weights_tag(problem, input_innermost=problem.prop == "backward_data")
    return Plan(
        implementation=NAME,
        source=layout(source, problem.source_dims),
        weights=layout(weights, problem.weights_dims),
        destination=layout(destination, problem.destination_dims),
        scratchpad_bytes=scratchpad,
    )


def _flat_weights_tag(problem: Convolution) -> str:
    """Ohwi8o and its relatives: input channels whole, after the kernel's spatial dims."""
    spatial = problem.spatial_dims
    return f"aB{'def'[:spatial]}c8b" if problem.groups > 1 else f"A{'cde'[:spatial]}b8a"
