"""How many bytes a convolution can hold at most beyond its operands, whatever kernel is chosen.

A generous count of everything a kernel may copy: operands and results in blocked layouts, a thread's share of scratch, the columns of
the kernels that unfold their input. Arithmetic without comparisons, so it is read with ints, symbols and arrays; it decides which
moments need the exact answer, never the answer itself. ``tests/test_sealed.py`` holds it against the kernels.
"""

from __future__ import annotations

from math import prod
from typing import Any

from memest.dtypes import ITEMSIZE
from memest.libraries.cpu import Cpu
from memest.ops.convolution_geometry import Geometry
from memest.tensor import Spec

BLOCK = 64
REGISTER = 16
MARGIN = 4  # lines a kernel may read beyond an image's padding
PER_THREAD = 1 << 17  # descriptors, page rounding


def forward(cpu: Cpu, input: Spec, weight: Spec, bias: Spec | None, *, g: Geometry) -> Any:
    """Most bytes of the forward call: operands in blocks, and the result in blocks, plain and dense."""
    p = _Parts(cpu, input, weight, Geometry(*g))
    return p.source + 3 * p.result + p.filters + p.scratch


def backward(cpu: Cpu, grad: Spec, input: Spec, weight: Spec, *, g: Geometry, mask: tuple[bool, bool, bool]) -> Any:
    """Most bytes of the backward call: the input's gradient thrice (blocked, plain, dense) or once beside blocked operands, and the
    weight's gradient thrice."""
    p = _Parts(cpu, input, weight, Geometry(*g))
    return 3 * p.source + (2 if Geometry(*g).transposed else 1) * p.result + 3 * p.filters + p.scratch


class _Parts:
    """Bytes of the parts, each in its widest layout: all images, all results, the weight, and what the threads work in."""

    def __init__(self, cpu: Cpu, input: Spec, weight: Spec, g: Geometry) -> None:
        kernel, size = weight.shape[2:], input.shape[2:]
        batch, item = input.shape[0], ITEMSIZE[input.dtype]
        inner = input.shape[1]
        outer = weight.shape[1] * g.groups if g.transposed else weight.shape[0]
        points = prod(g.output_size(size, kernel))
        image, result = _up(inner) * prod(size) * item, _up(outer) * points * item
        columns = prod(kernel) * (inner * points + outer * prod(size)) * item
        self.source = batch * image
        self.result = batch * result
        self.filters = _filters(weight, size, g) * max(item, 4)
        unfolded = columns * (cpu.threads + batch * _unfolds(cpu, batch, input, g))
        reach = [n + 2 * d * m + MARGIN for n, m, d in zip(size, kernel, g.dilation, strict=True)]
        padded = (_up(inner) + _up(outer)) * prod(reach) * item
        spacious = any(2 * p > d * (m - 1) for m, p, d in zip(kernel, g.padding, g.dilation, strict=True))
        usual = g.groups == 1 and not g.is_dilated and not spacious and len(size) == 2
        plain = usual and input.dtype == "float32" and cpu.isa == "avx512"
        copies = 1 if plain else 4  # where blocked kernels refuse, every thread sums weights of its own
        self.scratch = cpu.threads * (2 * padded + copies * self.filters + PER_THREAD) + unfolded


def _unfolds(cpu: Cpu, batch: Any, input: Spec, g: Geometry) -> Any:
    """1 where ATen's own kernels may run, which unfold every image of the batch: single images, and what oneDNN does not take."""
    known = input.dtype == "float32" or (input.dtype == "bfloat16" and cpu.has_bf16)
    return 1 // batch if known and not g.transposed and g.groups == 1 else 1


def _filters(weight: Spec, size: tuple[Any, ...], g: Geometry) -> Any:
    """Elements of the weight in the widest blocks. A depthwise one is blocked by groups, but for images smaller
    than its kernel, and in other dtypes than float32."""
    first, second = weight.shape[0] // g.groups, weight.shape[1]
    kernel = weight.shape[2:]
    if first == second == 1:
        small = 1 if weight.dtype != "float32" else sum(d * m // n for n, m, d in zip(size, kernel, g.dilation, strict=True))
        return (_up(g.groups) + g.groups * REGISTER * REGISTER * small) * prod(kernel)
    return g.groups * _up(first) * _up(second) * prod(kernel)


def _up(channels: int) -> int:
    return -(-channels // BLOCK) * BLOCK
