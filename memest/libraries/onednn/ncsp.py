"""Placeholder: not modelled yet."""

from __future__ import annotations

from memest.libraries.cpu import Cpu
from memest.libraries.onednn.problem import Convolution, Plan


def backward_data(problem: Convolution, cpu: Cpu) -> Plan | None:
    return None


def backward_weights(problem: Convolution, cpu: Cpu) -> Plan | None:
    return None


def forward(problem: Convolution, cpu: Cpu) -> Plan | None:
    return None


def inner_product_backward_data(problem: Convolution, cpu: Cpu) -> Plan | None:
    return None


def inner_product_backward_weights(problem: Convolution, cpu: Cpu) -> Plan | None:
    return None


def inner_product_forward(problem: Convolution, cpu: Cpu) -> Plan | None:
    return None
