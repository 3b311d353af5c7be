"""Convolutions by oneDNN: the copies ideep makes around a primitive, and the primitive's scratchpad.

Of a plan, every layout that differs from the user's costs a reordered copy. Results in a free layout are made dense afterwards
(``mkldnn_to_dense``), once more when that layout was plain but not row-major. Channels-last data is written in place, but the
gradient of the weight still takes the way over a row-major tensor.

Sources: aten/src/ATen/native/mkldnn/Conv.cpp, MKLDNNConversions.cpp (``mkldnn_to_dense``); ideep include/ideep/operators/conv.hpp
and deconv.hpp (order of the copies, scratchpad), tensor.hpp (``reorder_if_differ_in``, ``make_grouped_weights``, ``to_public``).
"""

from __future__ import annotations

from memest.libraries.onednn import Convolution, Layout, Plan, plan_convolution
from memest.libraries.onednn.deconvolution import plan_deconvolution
from memest.libraries.onednn.problem import Prop, parse_tag
from memest.libraries.onednn.releases import release_in
from memest.libraries.onednn.symbolic import plan_of
from memest.network.tensor import Shape, channels_last_strides, is_contiguous
from memest.ops.aten.copies import contiguous
from memest.ops.families.convolution.geometry import Geometry
from memest.ops.tape import Tape, Tensor


def forward(k: Tape, input: Tensor, weight: Tensor, bias: Tensor | None, g: Geometry, last: bool) -> Tensor:
    """The result; operands lie in the format that ``last`` says."""
    shape = g.output_shape(input, weight)
    plan = _plan(k, "forward_training", input.shape, shape, weight, g, bias is not None, last)
    out = k.empty(shape, input.dtype, channels_last_strides(shape)) if last else None
    scratchpad = k.scratch(plan.scratchpad_bytes)
    source = _reordered(k, plan.source, input.shape, input.strides)
    weights = _reordered(k, plan.weights, *_grouped(weight, g))
    if out is not None:
        k.free(weights, source, scratchpad)
        return out
    destination = k.scratch(plan.destination.bytes)
    k.free(weights, source, scratchpad)
    dense = _to_dense(k, shape, input.dtype, _plain_strides(plan.destination, shape))
    k.free(destination)
    return dense


def backward(
    k: Tape, grad: Tensor, input: Tensor, weight: Tensor, g: Geometry, last: bool, mask: tuple[bool, bool, bool]
) -> list[Tensor | None]:
    """Gradients of input, weight and bias, as ``mask`` wants them."""
    lying = contiguous(k, grad, last)
    grad_input = _backward_data(k, lying, input, weight, g, last) if mask[0] else None
    grad_weight, grad_bias = _backward_weights(k, lying, input, weight, g, last, mask[2]) if mask[1] or mask[2] else (None, None)
    if lying is not grad:
        k.free(lying)
    return [grad_input, grad_weight, grad_bias]


def _backward_data(k: Tape, grad: Tensor, input: Tensor, weight: Tensor, g: Geometry, last: bool) -> Tensor:
    plan = _plan(k, "backward_data", input.shape, grad.shape, weight, g, False, last)
    grad_input = k.empty(input.shape, input.dtype, channels_last_strides(input.shape)) if last else None
    destination = _reordered(k, plan.destination, grad.shape, grad.strides)
    weights = _reordered(k, plan.weights, *_grouped(weight, g))
    source = None if last else k.scratch(plan.source.bytes)
    scratchpad = k.scratch(plan.scratchpad_bytes)
    k.free(scratchpad, weights, destination)
    if grad_input is not None:
        return grad_input
    dense = _to_dense(k, input.shape, input.dtype, _plain_strides(plan.source, input.shape))
    k.free(source)
    return dense


def _backward_weights(
    k: Tape, grad: Tensor, input: Tensor, weight: Tensor, g: Geometry, last: bool, with_bias: bool
) -> tuple[Tensor, Tensor | None]:
    plan = _plan(k, "backward_weights", input.shape, grad.shape, weight, g, with_bias, last)
    destination = _reordered(k, plan.destination, grad.shape, grad.strides)
    source = _reordered(k, plan.source, input.shape, input.strides)
    weights = k.scratch(plan.weights.bytes)
    scratchpad = k.scratch(plan.scratchpad_bytes, unwritten=plan.unwritten_bytes)
    bias = k.scratch(grad.shape[1] * grad.itemsize) if with_bias else None
    k.free(scratchpad, source, destination)
    grad_bias = k.empty((grad.shape[1],), grad.dtype) if with_bias else None
    grad_weight = _to_dense(k, weight.shape, weight.dtype, _ungrouped(plan.weights, weight, g))
    if last:
        row_major = grad_weight
        grad_weight = k.empty(weight.shape, weight.dtype, channels_last_strides(weight.shape))
        k.free(row_major)
    k.free(weights, bias)
    return grad_weight, grad_bias


def _plan(k: Tape, prop: Prop, source: Shape, destination: Shape, weight: Tensor, g: Geometry, bias: bool, last: bool) -> Plan:
    problem = Convolution(
        prop=prop,
        batch=source[0],
        in_channels=source[1],
        out_channels=destination[1],
        groups=g.groups,
        input_size=source[2:],
        output_size=destination[2:],
        kernel=weight.shape[2:],
        stride=g.stride,
        dilation=g.dilation,
        padding=g.padding,
        padding_end=tuple(p - extra for p, extra in zip(g.padding, g.output_padding, strict=True)),
        bias=bias,
        channels_last=last,
        dtype=weight.dtype,
        release=release_in(k.target.version),
    )
    return plan_of(plan_deconvolution if g.transposed else plan_convolution, problem, k.target.cpu)


def _reordered(k: Tape, wanted: Layout, dims: Shape, strides: Shape) -> Tensor | None:
    """A copy in the layout ``wanted``, unless the tensor lies so (strides of dims of size 1 do not matter)."""
    plain = _plain_strides(wanted, dims)
    if plain is not None and all(n == 1 or a == b for n, a, b in zip(dims, plain, strides, strict=True)):
        return None
    return k.scratch(wanted.bytes)


def _plain_strides(given: Layout, dims: Shape) -> Shape | None:
    """Strides of ``dims`` in a layout without blocks; None for a blocked one."""
    order, blocks = parse_tag(given.tag)
    if blocks:
        return None
    strides = [0] * len(dims)
    step = 1
    for d in reversed(order):
        strides[d] = step
        step = step * dims[d]
    return tuple(strides)


def _to_dense(k: Tape, shape: Shape, dtype: str, plain: Shape | None) -> Tensor:
    """A row-major tensor. The first copy keeps a plain layout; one that is not row-major is copied again."""
    dense = k.empty(shape, dtype)
    if plain is None or is_contiguous(shape, plain):
        return dense
    again = k.empty(shape, dtype)
    k.free(dense)
    return again


def _grouped(weight: Tensor, g: Geometry) -> tuple[Shape, Shape]:
    """oneDNN's view of a weight, (groups, out, in, *kernel) or (out, in, *kernel): dims and strides."""
    (first, second, *kernel), (s0, s1, *rest) = weight.shape, weight.strides
    per_group = first // g.groups
    dims, strides = (second, per_group) if g.transposed else (per_group, second), (s1, s0) if g.transposed else (s0, s1)
    if g.groups > 1:
        return (g.groups, *dims, *kernel), (per_group * s0, *strides, *rest)
    return (*dims, *kernel), (*strides, *rest)


def _ungrouped(given: Layout, weight: Tensor, g: Geometry) -> Shape | None:
    """Strides that a gradient in the layout ``given`` has as a weight of torch's dims; None for a blocked layout."""
    plain = _plain_strides(given, _grouped(weight, g)[0])
    if plain is None:
        return None
    lead, (out, into, *rest) = (plain[:1], plain[1:]) if g.groups > 1 else ((), plain)
    first, second = (into, out) if g.transposed else (out, into)
    return (min(*lead, first) if lead else first, second, *rest)
