"""oneDNN's deconvolution (transposed convolution): every implementation wraps a convolution.

Models src/cpu/cpu_deconvolution_list.cpp, src/cpu/x64/jit_brgemm_deconv.cpp and src/cpu/ref_deconvolution.hpp (oneDNN v3.12)
for f32 and bf16 without attributes. A deconvolution is the transpose of a convolution that reads the deconvolution's destination and
writes its source, with the same weights, stride, dilation and padding; its passes are that convolution's passes, exchanged.
"""

from __future__ import annotations

from dataclasses import replace

from memest.libraries.onednn.brgemm_backward import exchange_ends, plan_inverted, swap_channels
from memest.libraries.onednn.brgemm_blocking import FLOAT_BYTES, target_of
from memest.libraries.onednn.brgemm_strided import plan_strided
from memest.libraries.onednn.dispatch import check_bf16, plan_convolution
from memest.libraries.onednn.problem import Convolution, Plan, Prop
from memest.libraries.onednn.scratchpad import scratchpad_size
from memest.machines.cpu import Cpu, Isa
from memest.sizes.remembering import remembered

WRAPPED_PROP: dict[Prop, Prop] = {
    "forward_training": "backward_data",
    "forward_inference": "backward_data",
    "backward_data": "forward_training",
    "backward_weights": "backward_weights",
}


@remembered(4_096)
def plan_deconvolution(problem: Convolution, cpu: Cpu) -> Plan:
    """The plan oneDNN would make for a deconvolution.

    ``problem`` describes the deconvolution itself: ``in_channels`` and ``input_size`` are what it reads, ``out_channels``
    and ``output_size`` what it writes, so that ``weights_dims`` are oneDNN's (groups, out, in, *kernel) and torch's weight
    has its two channel dims the other way round. ``padding_end`` is torch's padding minus its output padding.
    """
    check_bf16(problem, cpu)
    forward = problem.prop in ("forward_training", "forward_inference")
    if forward:
        isas: tuple[Isa, ...] = ("avx512", "avx2") if cpu.isa == "avx512" else ("avx2",)
        if problem.dtype == "bfloat16":
            isas = ("avx512",)
        for isa in isas:
            plan = _brgemm_forward(problem, cpu, isa)
            if plan is not None:
                return plan
    adds_bias = forward and problem.bias
    float_source = adds_bias and problem.itemsize != FLOAT_BYTES
    wrapped = plan_convolution(replace(exchange_ends(problem, WRAPPED_PROP[problem.prop]), float_source=float_source), cpu)
    result_before_bias = wrapped.source.bytes // problem.itemsize * FLOAT_BYTES if adds_bias else 0
    return _transposed(f"conv:any+{wrapped.implementation}", wrapped, problem.groups, result_before_bias)


def _brgemm_forward(problem: Convolution, cpu: Cpu, isa: Isa) -> Plan | None:
    """The brgemm convolution that computes a whole forward deconvolution, bias included."""
    name = f"brg_deconv:{target_of(cpu, isa, problem.itemsize).name}"
    if all(s == 1 for s in problem.stride):
        plan = plan_inverted(problem, cpu, isa)
        if plan is None:
            return None
        scratchpad_bytes = scratchpad_size(plan.scratchpad_bytes)
        return replace(plan, implementation=f"{name}+{plan.implementation}", scratchpad_bytes=scratchpad_bytes)
    wrapped = plan_strided(exchange_ends(problem, "backward_data"), cpu, isa, for_deconvolution=True)
    return None if wrapped is None else _transposed(f"{name}+{wrapped.implementation}", wrapped, problem.groups)


def _transposed(implementation: str, wrapped: Plan, groups: int, extra_buffer: int = 0) -> Plan:
    """The deconvolution's plan from the wrapped convolution's, whose scratchpad it holds next to a buffer of its own."""
    return Plan(
        implementation=implementation,
        source=wrapped.destination,
        weights=swap_channels(wrapped.weights, groups),
        destination=wrapped.source,
        scratchpad_bytes=scratchpad_size(wrapped.scratchpad_bytes, extra_buffer),
    )
