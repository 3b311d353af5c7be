"""How many bytes a convolution can hold at most beyond its operands, whatever kernel is chosen.

A generous count of everything a kernel may copy: operands and results in blocked layouts, a thread's share of scratch, the columns of
the kernels that unfold their input. Arithmetic without comparisons, so it is read with ints, symbols and arrays; it decides which
moments need the exact answer, never the answer itself. ``tests/test_sealed.py`` holds it against the kernels.
"""

from __future__ import annotations

from math import prod
from typing import Any

from memest.machines.cpu import Cpu
from memest.network.dtypes import ITEMSIZE
from memest.network.tensor import Spec, contiguous_strides
from memest.ops.families.convolution.geometry import Geometry
from memest.sizes.dims import expression

BLOCK = 64
REGISTER = 16
USUAL_KERNEL = 7  # larger ones may be unfolded, and summed by threads of their own
MARGIN = 4  # lines a kernel may read beyond an image's padding
PER_THREAD = 1 << 17  # descriptors, page rounding


def forward(cpu: Cpu, input: Spec, weight: Spec, bias: Spec | None, *, g: Geometry) -> tuple[Any, ...]:
    """Most bytes of the forward call: operands in blocks beside the result, or the result in blocks, plain and dense."""
    by_rows = _lie_by_rows(input, weight)
    p = _Parts(cpu, input, weight, Geometry(*g), by_rows)
    working = p.source + p.result + p.filters + p.padded
    if p.in_order and by_rows:
        return working, 3 * p.result
    return (working + 2 * p.result + p.partial,)


def backward(cpu: Cpu, grad: Spec, input: Spec, weight: Spec, *, g: Geometry, mask: tuple[bool, bool, bool]) -> tuple[Any, ...]:
    """Most bytes of the backward call: the input's gradient beside operands in blocks, or in blocks, plain and dense; then, beside it,
    operands in blocks and the weight's gradient as the threads sum it, or that gradient in blocks, plain and dense."""
    by_rows = _lie_by_rows(grad, input, weight)
    p = _Parts(cpu, input, weight, Geometry(*g), by_rows)
    operands = p.source + p.result + p.filters
    if p.in_order and by_rows:
        if not mask[0]:
            return operands + p.partial, 3 * p.filters
        return operands + p.padded, 3 * p.source, p.source + operands + p.partial, p.source + 3 * p.filters
    twice = p.result if Geometry(*g).transposed else 0
    return (operands + 2 * p.source + 2 * p.filters + twice + p.padded + p.partial,)


def _lie_by_rows(*operands: Spec) -> bool:
    """Whether strides are those of row-major tensors, whatever the sizes: then no operand is copied before the kernels."""
    return all(expression(a) == expression(b) for o in operands for a, b in zip(o.strides, contiguous_strides(o.shape), strict=True))


class _Parts:
    """Bytes of the parts, each in its widest layout: all images, all results, the weight; images with what kernels read around them, and
    sums of the weight's gradient, each for every thread."""

    def __init__(self, cpu: Cpu, input: Spec, weight: Spec, g: Geometry, by_rows: bool) -> None:
        kernel, size = weight.shape[2:], input.shape[2:]
        batch, item = input.shape[0], ITEMSIZE[input.dtype]
        inner = input.shape[1]
        outer = weight.shape[1] * g.groups if g.transposed else weight.shape[0]
        points = prod(g.output_size(size, kernel))
        spacious = any(2 * p > d * (m - 1) for m, p, d in zip(kernel, g.padding, g.dilation, strict=True))
        alone = by_rows and g.groups > 1 and _is_depthwise(weight, g) and len(size) == 2 and max(kernel) > 1 and not g.is_dilated
        self.in_order = input.dtype == "float32" and (g.groups == 1 or alone) and not (g.transposed or spacious)
        block = REGISTER if self.in_order else BLOCK
        self.source = batch * _up(inner, block) * prod(size) * item
        self.result = batch * _up(outer, block) * points * item
        alone = alone and self.in_order
        self.filters = _filters(weight, size, g, alone) * max(item, 4)
        plain = self.in_order and not alone and not g.is_dilated and len(size) == 2 and cpu.isa == "avx512" and max(kernel) <= USUAL_KERNEL
        if alone:  # a kernel has one channel in hand, and oneDNN takes them all
            columns, times = prod(kernel) * (points + prod(size)) * item, cpu.threads
        else:
            columns = prod(kernel) * (inner * points + outer * prod(size)) * item
            times = (0 if plain else cpu.threads) + batch * _unfolds(cpu, batch, input, g)
        unfolded = columns * times
        if alone:
            padded = 0
        elif self.in_order and all(m == 1 for m in (*kernel, *g.stride)) and not any(g.padding):
            padded = BLOCK * (points + prod(size)) * item
        else:
            reach = [n + 2 * d * m + MARGIN for n, m, d in zip(size, kernel, g.dilation, strict=True)]
            padded = 2 * (_up(inner) + _up(outer)) * prod(reach) * item
        copies = 1 if plain else 4  # where blocked kernels refuse, every thread sums weights of its own
        self.padded = cpu.threads * (padded + PER_THREAD) + unfolded
        gathered = _up(inner) * points * item if all(m == 1 for m in kernel) and g.is_strided else 0
        self.partial = cpu.threads * (copies * self.filters + gathered + PER_THREAD) + unfolded


def _unfolds(cpu: Cpu, batch: Any, input: Spec, g: Geometry) -> Any:
    """1 where ATen's own kernels may run, which unfold every image of the batch: single images, and what oneDNN does not take."""
    known = input.dtype == "float32" or (input.dtype == "bfloat16" and cpu.has_bf16)
    return 1 // batch if known and not g.transposed and g.groups == 1 else 1


def _filters(weight: Spec, size: tuple[Any, ...], g: Geometry, alone: bool) -> Any:
    """Elements of the weight in the widest blocks. A depthwise one is blocked by groups, but where depthwise kernels may refuse and others
    see square blocks in every group: in other dtypes than float32, on images smaller than the kernel and a stride, and, unless it is
    ``alone``, with wide kernels, strides and paddings."""
    first, second = weight.shape[0] // g.groups, weight.shape[1]
    kernel = weight.shape[2:]
    if _is_depthwise(weight, g):
        usual = alone or all(m <= 3 and s <= m and 2 * p <= m for m, s, p in zip(kernel, g.stride, g.padding, strict=True))
        spans = zip(size, kernel, g.dilation, g.stride, strict=True)
        small = sum((d * m + s - 1) // n for n, m, d, s in spans) if usual and weight.dtype == "float32" else 1
        return (_up(g.groups) + g.groups * REGISTER * REGISTER * small) * prod(kernel)
    return g.groups * _up(first) * _up(second) * prod(kernel)


def _is_depthwise(weight: Spec, g: Geometry) -> bool:
    """One channel in and one out a group (of the only group, too)."""
    return weight.shape[0] // g.groups == weight.shape[1] == 1


def _up(channels: int, block: int = BLOCK) -> int:
    return -(-channels // block) * block
