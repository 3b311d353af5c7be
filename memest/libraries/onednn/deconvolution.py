"""oneDNN's deconvolution (transposed convolution): every implementation wraps a convolution.

Models src/cpu/cpu_deconvolution_list.cpp, src/cpu/x64/jit_brgemm_deconv.cpp and src/cpu/ref_deconvolution.hpp (oneDNN v3.12)
for f32 without attributes. A deconvolution is the transpose of the convolution with the same weights, stride, dilation and
padding whose source is the deconvolution's destination; "the adjoint" below.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from memest.libraries.cpu import Cpu, Isa
from memest.libraries.onednn.brgemm_backward import plan_inverted
from memest.libraries.onednn.brgemm_strided import plan_strided
from memest.libraries.onednn.dispatch import plan_convolution
from memest.libraries.onednn.problem import Convolution, Layout, Plan, Prop
from memest.libraries.onednn.scratchpad import scratchpad_size

ADJOINT_PROP: dict[Prop, Prop] = {
    "forward_training": "backward_data",
    "forward_inference": "backward_data",
    "backward_data": "forward_training",
    "backward_weights": "backward_weights",
}


@lru_cache(maxsize=65536)
def plan_deconvolution(problem: Convolution, cpu: Cpu) -> Plan:
    """The plan oneDNN would make for a deconvolution.

    ``problem`` describes the deconvolution itself: ``in_channels`` and ``input_size`` are what it reads,
    ``out_channels`` and ``output_size`` (for stride 2 the larger one) what it writes, and ``weights_dims`` are oneDNN's
    (groups, out, in, *kernel). ``padding_end`` is torch's padding minus its output padding.
    """
    if problem.prop in ("forward_training", "forward_inference"):
        isas: tuple[Isa, ...] = ("avx512", "avx2") if cpu.isa == "avx512" else ("avx2",)
        for isa in isas:
            plan = _brgemm_forward(problem, cpu, isa)
            if plan is not None:
                return plan
        return _forward(problem, cpu)
    nested = plan_convolution(adjoint(problem), cpu)
    return _transposed(f"conv:any+{nested.implementation}", nested, problem, nested.scratchpad_bytes)


def adjoint(problem: Convolution) -> Convolution:
    """The convolution whose transpose ``problem`` is, with the pass of it that computes the same; bias is handled apart."""
    return replace(
        problem,
        prop=ADJOINT_PROP[problem.prop],
        in_channels=problem.out_channels,
        out_channels=problem.in_channels,
        input_size=problem.output_size,
        output_size=problem.input_size,
        bias=False,
    )


def _brgemm_forward(problem: Convolution, cpu: Cpu, isa: Isa) -> Plan | None:
    """The brgemm convolution that computes the whole deconvolution, bias included."""
    name = "brg_deconv:avx512_core" if isa == "avx512" else "brg_deconv:avx2"
    if all(s == 1 for s in problem.stride):
        nested = plan_inverted(problem, cpu, isa)
        if nested is None:
            return None
        return replace(
            nested, implementation=f"{name}+{nested.implementation}", scratchpad_bytes=scratchpad_size(nested.scratchpad_bytes)
        )
    nested = plan_strided(adjoint(problem), cpu, isa, for_deconvolution=True)
    return None if nested is None else _transposed(f"{name}+{nested.implementation}", nested, problem, nested.scratchpad_bytes)


def _forward(problem: Convolution, cpu: Cpu) -> Plan:
    """Any backward-data convolution; none takes a bias, so it is added from a copy of the whole result."""
    nested = plan_convolution(adjoint(problem), cpu)
    result_copy = nested.source.bytes if problem.bias else 0
    return _transposed(f"conv:any+{nested.implementation}", nested, problem, nested.scratchpad_bytes, result_copy)


def _transposed(implementation: str, nested: Plan, problem: Convolution, *buffers: int) -> Plan:
    """The deconvolution's plan from that of its adjoint."""
    return Plan(
        implementation=implementation,
        source=nested.destination,
        weights=_swap_channels(nested.weights, 1 if problem.groups > 1 else 0),
        destination=nested.source,
        scratchpad_bytes=scratchpad_size(*buffers),
    )


def _swap_channels(weights: Layout, first: int) -> Layout:
    """The layout with its two channel dims, ``first`` and the next, exchanged."""
    a, b = "abc"[first : first + 2]
    return Layout(tag=weights.tag.translate(str.maketrans(a + b + a.upper() + b.upper(), b + a + b.upper() + a.upper())), bytes=weights.bytes)
