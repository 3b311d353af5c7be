"""Depthwise convolutions: the brgemm-based ``brdgmm_dw`` (forward) and the direct ``jit_dw`` (all directions).

``brdgmm_dw`` works on channels-last data only, 2D or 3D: it takes pinned channels-last always, and free formats where it may choose
(3D, or forward inference). ``jit_dw`` is 2D only and pads the groups to whole vectors when it works on blocked data.
Only one input and one output channel per group count as depthwise: a channel multiplier is refused by all of them.
In bfloat16 (AVX-512 alone) gradients of weights and biases are summed in float32 first, and a bias is converted.

Sources: oneDNN v3.12 src/cpu/x64/jit_brdgmm_dw_conv.cpp, jit_uni_dw_conv_kernel_utils.cpp, jit_uni_dw_convolution.hpp.
"""

from __future__ import annotations

from math import prod

from memest.libraries.onednn.problem import Convolution, Plan, channels_last_tag, layout
from memest.libraries.onednn.scratchpad import scratchpad_size
from memest.machines.cpu import Cpu, Isa

INT_MAX = 2**31 - 1
VECTOR_FLOATS: dict[Isa, int] = {"avx512": 16, "avx2": 8}
WIDTH_UNROLL: dict[Isa, int] = {"avx512": 6, "avx2": 4}
CHANNEL_BLOCKING: dict[Isa, int] = {"avx512": 4, "avx2": 3}
ISA_NAMES: dict[Isa, str] = {"avx512": "avx512_core", "avx2": "avx2"}
FLOAT_BYTES = 4


def brdgmm_forward(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``brdgmm_dw``, on either instruction set."""
    dims = problem.spatial_dims
    may_choose = dims == 3 or problem.prop == "forward_inference"
    if dims not in (2, 3) or not _is_depthwise(problem) or _has_large_size(problem):
        return None
    if max(problem.dilation) > 1 or not (problem.channels_last or may_choose):
        return None
    if not _runs_dtype(problem, cpu) or problem.groups * problem.itemsize * problem.output_size[-1] > INT_MAX:
        return None
    block = cpu.vector_floats
    weights_tag = f"{'debc' if dims == 2 else 'defbc'}A{block}a"
    return _plan(problem, f"brdgmm_dw:{_isa_name(problem, cpu.isa)}", channels_last_tag(dims + 2), weights_tag, 0)


def forward_avx512(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``jit_dw:avx512_core`` forward."""
    return _forward(problem, cpu, "avx512")


def forward_avx2(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``jit_dw:avx2`` forward."""
    return _forward(problem, cpu, "avx2")


def backward_data_avx512(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``jit_dw:avx512_core`` backward by data."""
    return _backward_data(problem, cpu, "avx512")


def backward_data_avx2(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``jit_dw:avx2`` backward by data."""
    return _backward_data(problem, cpu, "avx2")


def backward_weights_avx512(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``jit_dw:avx512_core`` backward by weights."""
    return _backward_weights(problem, cpu, "avx512")


def backward_weights_avx2(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``jit_dw:avx2`` backward by weights."""
    return _backward_weights(problem, cpu, "avx2")


def _forward(problem: Convolution, cpu: Cpu, isa: Isa) -> Plan | None:
    if not _jit_applies(problem, cpu, isa):
        return None
    extents = _extents(problem)
    padding_end = _end_paddings(problem, extents)
    if any(extent <= max(begin, end) for extent, begin, end in zip(extents, problem.padding, padding_end, strict=True)):
        return None
    channels_last = problem.channels_last or (problem.prop == "forward_inference" and cpu.isa == "avx512")
    unroll = _channels_last_unroll(problem, isa) if channels_last else min(WIDTH_UNROLL[isa], problem.output_size[1])
    if not channels_last and not _forward_offsets_fit(problem, isa, unroll, extents[1]):
        return None
    output_width = problem.output_size[1]
    overhang = (output_width - output_width % unroll - 1) * problem.stride[1] + extents[1] - problem.input_size[1] - problem.padding[1]
    if problem.padding[1] > unroll or overhang > unroll:
        return None
    padded_groups = _padded_groups(problem, isa)
    copied_bias = problem.bias and (problem.dtype == "bfloat16" or (not channels_last and padded_groups != problem.groups))
    bias_groups = problem.groups if channels_last else padded_groups
    return _jit_plan(problem, isa, channels_last, scratchpad_size(bias_groups * FLOAT_BYTES if copied_bias else 0))


def _backward_data(problem: Convolution, cpu: Cpu, isa: Isa) -> Plan | None:
    if not _jit_applies(problem, cpu, isa) or max(problem.dilation) > 1:
        return None
    if not _backward_data_offsets_fit(problem, isa):
        return None
    return _jit_plan(problem, isa, problem.channels_last, 0)


def _backward_weights(problem: Convolution, cpu: Cpu, isa: Isa) -> Plan | None:
    if not _jit_applies(problem, cpu, isa) or max(problem.dilation) > 1:
        return None
    if problem.kernel[1] > 3 or problem.stride[1] > problem.kernel[1] or not _borders_supported(problem):
        return None
    padded_groups = _padded_groups(problem, isa)
    if problem.channels_last:
        sharers = _channels_last_threads(problem, cpu.threads, isa)
        bias_groups = problem.groups
    else:
        threads_over_groups = min(padded_groups // VECTOR_FLOATS[isa], cpu.threads)
        sharers = min(max(1, cpu.threads // threads_over_groups), problem.batch)
        bias_groups = padded_groups
    is_bf16 = problem.dtype == "bfloat16"
    weights_copies = sharers if is_bf16 else sharers - 1
    bias_copies = weights_copies if problem.channels_last else sharers - 1
    buffers = [padded_groups * prod(problem.kernel) * weights_copies * FLOAT_BYTES]
    if problem.bias:
        buffers += [bias_groups * bias_copies * FLOAT_BYTES, bias_groups * FLOAT_BYTES if is_bf16 else 0]
    return _jit_plan(problem, isa, problem.channels_last, scratchpad_size(*buffers))


def _is_depthwise(problem: Convolution) -> bool:
    return problem.groups > 1 and problem.groups == problem.in_channels == problem.out_channels


def _jit_applies(problem: Convolution, cpu: Cpu, isa: Isa) -> bool:
    runs = (cpu.isa == isa or cpu.isa == "avx512") and _runs_dtype(problem, cpu)
    return runs and problem.spatial_dims == 2 and _is_depthwise(problem) and not _has_large_size(problem)


def _runs_dtype(problem: Convolution, cpu: Cpu) -> bool:
    return problem.dtype == "float32" or (problem.dtype == "bfloat16" and cpu.has_bf16)


def _isa_name(problem: Convolution, isa: Isa) -> str:
    return "avx512_core_bf16" if problem.dtype == "bfloat16" else ISA_NAMES[isa]


def _has_large_size(problem: Convolution) -> bool:
    images = (problem.in_channels * prod(problem.input_size), problem.out_channels * prod(problem.output_size))
    return max(*images, prod(problem.weights_dims)) > INT_MAX


def _padded_groups(problem: Convolution, isa: Isa) -> int:
    block = VECTOR_FLOATS[isa]
    return -(-problem.groups // block) * block


def _extents(problem: Convolution) -> tuple[int, ...]:
    """Kernel sizes with their dilation."""
    return tuple((kernel - 1) * dilation + 1 for kernel, dilation in zip(problem.kernel, problem.dilation, strict=True))


def _end_paddings(problem: Convolution, extents: tuple[int, ...]) -> tuple[int, ...]:
    """How far the last window reaches beyond the input; negative where it stops short."""
    sizes = zip(problem.output_size, problem.stride, extents, problem.input_size, problem.padding, strict=True)
    return tuple((out - 1) * stride + extent - (size + begin) for out, stride, extent, size, begin in sizes)


def _channel_blocking(problem: Convolution, isa: Isa) -> int:
    return min(CHANNEL_BLOCKING[isa], _padded_groups(problem, isa) // VECTOR_FLOATS[isa])


def _channels_last_unroll(problem: Convolution, isa: Isa) -> int:
    kernel, stride, output_width = problem.kernel[1], problem.stride[1], problem.output_size[1]
    unroll = min(WIDTH_UNROLL[isa], output_width)
    reusing_source = (31 - kernel + stride) // (_channel_blocking(problem, isa) + stride)
    if isa == "avx512" and problem.dtype == "float32" and stride < kernel <= 5 and problem.dilation[1] == 1 and reusing_source >= 2:
        unroll = min(output_width, reusing_source)
    if problem.groups * problem.input_size[1] * problem.itemsize % 1024 == 0:
        unroll = min(unroll, 7 if output_width > 7 else 4)
    return unroll


def _forward_offsets_fit(problem: Convolution, isa: Isa, unroll: int, extent: int) -> bool:
    block = VECTOR_FLOATS[isa]
    channels = (_channel_blocking(problem, isa) - 1) * block
    source = channels * prod(problem.input_size) + ((unroll - 1) * problem.stride[1] + extent - 1) * block
    destination = channels * prod(problem.output_size) + (unroll - 1) * block
    return max(source, destination) * problem.itemsize <= INT_MAX


def _backward_data_offsets_fit(problem: Convolution, isa: Isa) -> bool:
    block = VECTOR_FLOATS[isa]
    channels = (_channel_blocking(problem, isa) - 1) * block
    step = problem.groups if problem.channels_last else block
    output_plane = 1 if problem.channels_last else prod(problem.output_size)
    input_plane = 1 if problem.channels_last else prod(problem.input_size)
    span = (WIDTH_UNROLL[isa] - 1) * step
    destination = channels * output_plane + span
    source = channels * input_plane + span * problem.stride[1]
    return max(source, destination) * problem.itemsize <= INT_MAX


def _borders_supported(problem: Convolution) -> bool:
    """Whether the kernel for backward by weights copes with the padding."""
    ends = tuple(max(0, end) for end in _end_paddings(problem, problem.kernel))
    sizes = zip(problem.output_size, problem.input_size, problem.padding, ends, problem.kernel, problem.stride, strict=True)
    if any(out != (size + begin + end - kernel) // stride + 1 for out, size, begin, end, kernel, stride in sizes):
        return False
    if any(max(begin, end) > kernel // 2 for begin, end, kernel in zip(problem.padding, ends, problem.kernel, strict=True)):
        return False
    stride = problem.stride[0]
    if problem.input_size[0] < problem.kernel[0] + -problem.padding[0] % stride:
        return False
    return all(pad <= 1 or pad % stride == 0 for pad in (problem.padding[0], ends[0]))


def _channels_last_threads(problem: Convolution, threads: int, isa: Isa) -> int:
    """Threads used by the channels-last partition of backward by weights: the most any split of groups, batch and rows can occupy."""
    blocks = _padded_groups(problem, isa) // VECTOR_FLOATS[isa]
    max_register = 31 if isa == "avx512" else 15
    most = 4 if problem.dtype == "float32" else 1
    blocking = min(blocks, most, max_register // (2 * problem.kernel[1]))
    best = 1
    for over_groups in range(min(-(-blocks // blocking), threads), 0, -1):
        left = threads // over_groups
        for over_batch in range(min(problem.batch, left), 0, -1):
            best = max(best, over_groups * over_batch * min(problem.output_size[0], left // over_batch))
    return best


def _jit_plan(problem: Convolution, isa: Isa, channels_last: bool, scratchpad: int) -> Plan:
    block = VECTOR_FLOATS[isa]
    data_tag = "acdb" if channels_last else f"aBcd{block}b"
    return _plan(problem, f"jit_dw:{_isa_name(problem, isa)}", data_tag, f"Abcde{block}a", scratchpad)


def _plan(problem: Convolution, implementation: str, data_tag: str, weights_tag: str, scratchpad: int) -> Plan:
    return Plan(
        implementation=implementation,
        source=layout(data_tag, problem.source_dims, problem.itemsize),
        weights=layout(weights_tag, problem.weights_dims, problem.itemsize),
        destination=layout(data_tag, problem.destination_dims, problem.itemsize),
        scratchpad_bytes=scratchpad,
    )
