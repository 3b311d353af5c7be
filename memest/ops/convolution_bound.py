"""How many bytes a convolution can hold at most beyond its operands, whatever kernel is chosen.

A generous count of everything a kernel may copy: operands and results in blocked layouts, a thread's share of scratch, the columns of
the kernels that unfold their input. Arithmetic only, so it is read with ints and with arrays; it decides which moments need the exact
answer, never the answer itself. ``tests/test_sealed.py`` holds it against the kernels.
"""

from __future__ import annotations

from math import prod
from typing import Any

from memest.dtypes import ITEMSIZE
from memest.libraries.cpu import Cpu
from memest.ops.convolution_geometry import Geometry
from memest.tensor import Spec

BLOCK = 64
PER_CALL = 1 << 16


def forward(cpu: Cpu, input: Spec, weight: Spec, bias: Spec | None, *, g: Geometry) -> Any:
    """Most bytes of the forward call."""
    return _most(cpu, input, weight, Geometry(*g), copies=2)


def backward(cpu: Cpu, grad: Spec, input: Spec, weight: Spec, *, g: Geometry, mask: tuple[bool, bool, bool]) -> Any:
    """Most bytes of the backward call: both gradients, each with its copies."""
    return _most(cpu, input, weight, Geometry(*g), copies=3)


def _most(cpu: Cpu, input: Spec, weight: Spec, g: Geometry, copies: int) -> Any:
    kernel = weight.shape[2:]
    size = input.shape[2:]
    batch, item = input.shape[0], ITEMSIZE[input.dtype]
    inner, outer = input.shape[1], weight.shape[1] * g.groups if g.transposed else weight.shape[0]
    image = _up(inner) * prod(size) * item
    result = _up(outer) * prod(g.output_size(size, kernel)) * item
    filters = _filters(weight, g) * max(item, 4)
    columns = prod(kernel) * (inner * prod(g.output_size(size, kernel)) + outer * prod(size)) * item
    share = cpu.threads * (2 * (image + result) + 2 * filters)
    unfolded = columns * (cpu.threads + batch * _unfolds(batch, input, g))
    return copies * batch * (image + result) + (copies + 1) * filters + share + unfolded + PER_CALL


def _unfolds(batch: Any, input: Spec, g: Geometry) -> Any:
    """1 where ATen's own kernels may run, which unfold every image of the batch: single images, and what oneDNN does not take."""
    if input.dtype not in ("float32", "bfloat16") or g.transposed or g.groups > 1:
        return 1
    return (batch == 1) * 1


def _filters(weight: Spec, g: Geometry) -> int:
    """Elements of the weight in the widest blocks."""
    first, second = weight.shape[0] // g.groups, weight.shape[1]
    if first == second == 1:
        return _up(g.groups) * prod(weight.shape[2:])
    return g.groups * _up(first) * _up(second) * prod(weight.shape[2:])


def _up(channels: int) -> int:
    return -(-channels // BLOCK) * BLOCK
