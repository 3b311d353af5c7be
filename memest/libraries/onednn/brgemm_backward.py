"""oneDNN's backward-data convolutions built on brgemm.

Models src/cpu/x64/jit_brgemm_conv_bwd.cpp (oneDNN v3.12): with unit strides the input gradient is a forward convolution of
the output gradient, with the channels of the weights exchanged and the kernel read backwards ("inverted"). Larger strides
have an implementation of their own, modelled in ``brgemm_strided``.
"""

from __future__ import annotations

from dataclasses import replace

from memest.libraries.onednn import brgemm, brgemm_1x1
from memest.libraries.onednn.brgemm_blocking import target_of
from memest.libraries.onednn.brgemm_strided import plan_strided
from memest.libraries.onednn.problem import Convolution, Layout, Plan, Prop
from memest.libraries.onednn.scratchpad import scratchpad_size
from memest.machines.cpu import Cpu, Isa


def data_avx512(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``brg_conv_bwd:avx512_core``."""
    return _unit_stride(problem, cpu, "avx512") if cpu.isa == "avx512" else None


def data_strided_avx512(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``brgconv_strided:avx512_core``."""
    return plan_strided(problem, cpu, "avx512") if cpu.isa == "avx512" else None


def data_bf16(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``brg_conv_bwd:avx512_core_bf16``."""
    return _unit_stride(problem, cpu, "avx512") if cpu.has_bf16 else None


def data_strided_bf16(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``brgconv_strided:avx512_core_bf16``."""
    return plan_strided(problem, cpu, "avx512") if cpu.has_bf16 else None


def data_avx2(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``brg_conv_bwd:avx2``."""
    return _unit_stride(problem, cpu, "avx2")


def data_strided_avx2(problem: Convolution, cpu: Cpu) -> Plan | None:
    """``brgconv_strided:avx2``."""
    return plan_strided(problem, cpu, "avx2")


def plan_inverted(problem: Convolution, cpu: Cpu, isa: Isa) -> Plan | None:
    """The brgemm forward convolution that computes the unit-stride transposed convolution ``problem``.

    ``problem`` reads ``in_channels`` and ``input_size``; its padding is that of the convolution it transposes.
    """
    if any(s != 1 for s in problem.stride):
        return None
    reach = [(k - 1) * d for k, d in zip(problem.kernel, problem.dilation, strict=True)]
    padding = tuple(r - p for r, p in zip(reach, problem.padding, strict=True))
    padding_end = tuple(r - p for r, p in zip(reach, problem.padding_end, strict=True))
    if min(*padding, *padding_end) < 0:
        return None
    forward = replace(problem, prop="forward_training", padding=padding, padding_end=padding_end)
    if all(k == 1 for k in problem.kernel):
        return brgemm_1x1.forward_avx512(forward, cpu) if isa == "avx512" else brgemm_1x1.forward_avx2(forward, cpu)
    general = brgemm.forward_avx512 if isa == "avx512" else brgemm.forward_avx2
    return general(forward, cpu, inverted=True)


def exchange_ends(problem: Convolution, prop: Prop) -> Convolution:
    """The ``prop`` problem that reads what ``problem`` writes and writes what it reads, without bias."""
    return replace(
        problem,
        prop=prop,
        in_channels=problem.out_channels,
        out_channels=problem.in_channels,
        input_size=problem.output_size,
        output_size=problem.input_size,
        bias=False,
    )


def swap_channels(weights: Layout, groups: int) -> Layout:
    """The layout with input and output channels, dims 0 and 1 after any group dim, exchanged."""
    outer, inner = ("b", "c") if groups > 1 else ("a", "b")
    swap = str.maketrans({outer: inner, inner: outer, outer.upper(): inner.upper(), inner.upper(): outer.upper()})
    return Layout(tag=weights.tag.translate(swap), bytes=weights.bytes)


def _unit_stride(problem: Convolution, cpu: Cpu, isa: Isa) -> Plan | None:
    forward = plan_inverted(exchange_ends(problem, "forward_training"), cpu, isa)
    if forward is None:
        return None
    return Plan(
        implementation=f"brg_conv_bwd:{target_of(cpu, isa, problem.itemsize).name}+{forward.implementation}",
        source=forward.destination,
        weights=swap_channels(forward.weights, problem.groups),
        destination=forward.source,
        scratchpad_bytes=scratchpad_size(forward.scratchpad_bytes),
    )
