"""Placeholder: not modelled yet."""

from __future__ import annotations

from memest.libraries.cpu import Cpu
from memest.libraries.onednn.problem import Convolution, Plan


def forward_avx2(problem: Convolution, cpu: Cpu) -> Plan | None:
    return None


def forward_avx512(problem: Convolution, cpu: Cpu) -> Plan | None:
    return None
