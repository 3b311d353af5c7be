"""oneDNN's choice of a convolution implementation: the first of its list that accepts the problem.

Source: oneDNN v3.12 src/cpu/cpu_convolution_list.cpp (f32 and bf16 lists) and cpu_deconvolution_list.cpp.
"""

from __future__ import annotations

from collections.abc import Callable

from memest.errors import UnsupportedError
from memest.libraries.onednn import (
    avx2_1x1,
    avx2_direct,
    avx512_1x1,
    avx512_direct,
    bf16_1x1,
    bf16_direct,
    brgemm,
    brgemm_1x1,
    brgemm_backward,
    depthwise,
    gemm,
    ncsp,
)
from memest.libraries.onednn.problem import Convolution, Plan
from memest.machines.cpu import Cpu
from memest.sizes.remembering import remembered

Implementation = Callable[[Convolution, Cpu], Plan | None]

FORWARD: tuple[Implementation, ...] = (
    depthwise.brdgmm_forward,
    ncsp.inner_product_forward,
    brgemm_1x1.forward_avx512,
    brgemm.forward_avx512,
    depthwise.forward_avx512,
    avx512_1x1.forward,
    avx512_direct.forward,
    depthwise.forward_avx2,
    brgemm_1x1.forward_avx2,
    brgemm.forward_avx2,
    avx2_1x1.forward,
    avx2_direct.forward,
    ncsp.forward,
    gemm.forward,
)
BACKWARD_DATA: tuple[Implementation, ...] = (
    ncsp.inner_product_backward_data,
    brgemm_backward.data_avx512,
    brgemm_backward.data_strided_avx512,
    depthwise.backward_data_avx512,
    avx512_1x1.backward_data,
    avx512_direct.backward_data,
    brgemm_backward.data_avx2,
    brgemm_backward.data_strided_avx2,
    depthwise.backward_data_avx2,
    avx2_1x1.backward_data,
    avx2_direct.backward_data,
    ncsp.backward_data,
    gemm.backward_data,
)
BACKWARD_WEIGHTS: tuple[Implementation, ...] = (
    ncsp.inner_product_backward_weights,
    depthwise.backward_weights_avx512,
    avx512_1x1.backward_weights,
    avx512_direct.backward_weights,
    depthwise.backward_weights_avx2,
    avx2_1x1.backward_weights,
    avx2_direct.backward_weights,
    ncsp.backward_weights,
    gemm.backward_weights,
)
BF16_FORWARD: tuple[Implementation, ...] = (
    depthwise.brdgmm_forward,
    ncsp.inner_product_forward,
    brgemm_1x1.forward_bf16,
    brgemm.forward_bf16,
    depthwise.forward_avx512,
    bf16_1x1.forward,
    bf16_direct.forward,
    gemm.forward,
)
BF16_BACKWARD_DATA: tuple[Implementation, ...] = (
    ncsp.inner_product_backward_data,
    brgemm_backward.data_bf16,
    brgemm_backward.data_strided_bf16,
    depthwise.backward_data_avx512,
    bf16_1x1.backward_data,
    bf16_direct.backward_data,
    gemm.backward_data,
)
BF16_BACKWARD_WEIGHTS: tuple[Implementation, ...] = (
    ncsp.inner_product_backward_weights,
    depthwise.backward_weights_avx512,
    bf16_1x1.backward_weights,
    bf16_direct.backward_weights,
    gemm.backward_weights,
)
LISTS: dict[str, dict[str, tuple[Implementation, ...]]] = {
    "float32": {
        "forward_training": FORWARD,
        "forward_inference": FORWARD,
        "backward_data": BACKWARD_DATA,
        "backward_weights": BACKWARD_WEIGHTS,
    },
    "bfloat16": {
        "forward_training": BF16_FORWARD,
        "forward_inference": BF16_FORWARD,
        "backward_data": BF16_BACKWARD_DATA,
        "backward_weights": BF16_BACKWARD_WEIGHTS,
    },
}


@remembered(8_192)
def plan_convolution(problem: Convolution, cpu: Cpu) -> Plan:
    """The plan oneDNN would make for ``problem`` on ``cpu``; UnsupportedError for bfloat16 on processors whose kernels are not modelled."""
    check_bf16(problem, cpu)
    for implementation in LISTS[problem.dtype][problem.prop]:
        plan = implementation(problem, cpu)
        if plan is not None:
            return plan
    return gemm.reference(problem, cpu)


def check_bf16(problem: Convolution, cpu: Cpu) -> None:
    """Refuse bfloat16 where oneDNN would emulate it, or use matrix units."""
    if problem.dtype == "bfloat16" and not cpu.has_bf16:
        raise UnsupportedError(
            "convolutions in bfloat16 are modelled for processors with avx512_bf16 and without AMX alone; use float32 or another processor"
        )
