"""What TensorFlow's CPU kernels take besides their outputs, and over which input they write.

Source: tensorflow/core/kernels; the sizes of Eigen's buffers stand in conv_grad_{input,filter}_ops.h and conv_grad_ops_3d.cc.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import NamedTuple

from memest.machines.cpu import Cpu
from memest.network.tensor import Shape
from memest.runtimes.tensorflow.nodes import Node, Value
from memest.runtimes.tensorflow.sharding import blocks

VIEWS = frozenset({"Reshape", "Squeeze", "ExpandDims", "Identity"})
REDUCING = frozenset({"Mean", "Sum", "Max"})
ASSIGNING = frozenset({"AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp"})
UNARY = frozenset({
    "Relu", "Relu6", "Elu", "Selu", "LeakyRelu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Square", "Sqrt", "Rsqrt", "Neg", "Exp",
    "Log1p", "Reciprocal", "Pow", "BiasAdd", "Softmax", "Erfc", "_UnaryOpsComposition",
})  # fmt: skip
BINARY = frozenset({
    "AddV2", "Sub", "Mul", "RealDiv", "DivNoNan", "SquaredDifference", "Maximum", "Minimum", "RsqrtGrad", "SigmoidGrad", "TanhGrad",
    "ReluGrad", "Relu6Grad", "EluGrad", "SeluGrad", "LeakyReluGrad", "SoftplusGrad", "SoftsignGrad",
})  # fmt: skip
TARGET = 30 << 20  # bytes: what Eigen's two-dimensional gradients take for the last level of cache
MINIMUM = 256 << 10  # bytes: and for the second
FALLBACK = 25  # buffer over tensors, above which a gradient in three dims is computed without a buffer
WORTHWHILE = 2000  # elements of a block of a sum (redux_functor.h)
PACKET = 8  # elements of a vector of Eigen's, as the wheel is compiled
PAGE, BATCH = 4096, 24  # bytes of a page, and of one entry of a batch of small products


class Temporary(NamedTuple):
    """Bytes that a kernel takes while it runs; the input ``over`` which they may be written; ``before`` its outputs or behind; how many
    as large come and go (``passing``), a block after another, without being there at once; what of them it never writes; and whether it
    writes the rest only ``once``, from the first to the last over its own time."""

    nbytes: int
    over: int | None = None
    before: bool = False
    passing: int = 0
    unwritten: int = 0
    once: bool = False


def is_view(node: Node, values: Mapping[str, Value]) -> bool:
    """Whether a kernel gives the buffer that it reads: a reduction does where there is nothing to reduce."""
    return node.op in VIEWS or (node.op in REDUCING and values[node.inputs[0]].nbytes == node.outputs[0].nbytes)


def scratchpad(threads: int) -> int:
    """Bytes that oneDNN's convolutions want beside their tensors: a page, and for each thread a page and an entry (it wants more where it
    copies an input of few channels)."""
    return PAGE + threads * (PAGE + BATCH)


def overwrites(node: Node, output: int, values: Mapping[str, Value], onednn: bool) -> tuple[int, ...]:
    """The inputs over which a kernel may write an output, the one it tries first leading."""
    if output or node.op == "SparseSoftmaxCrossEntropyWithLogits":
        return (0,) if output == 1 and node.op == "SparseSoftmaxCrossEntropyWithLogits" else ()
    if node.op in UNARY:
        return (0,)
    if "Add" in node.attributes.get("fused", ()):
        return (3,)
    if node.op in BINARY:
        numbers = [n for n, name in enumerate(node.inputs) if not values[name].shape]
        return (1 - numbers[0],) if len(numbers) == 1 and len(node.inputs) == 2 else (0, 1)
    if node.op == "AddN":
        return tuple(range(len(node.inputs)))
    if node.op == "MaxPoolGrad" and not onednn:
        return (0,)
    return (1, 2) if node.op in ("Select", "SelectV2") else ()


def temporaries(node: Node, values: Mapping[str, Value], cpu: Cpu, onednn: bool) -> tuple[Temporary, ...]:
    """What a kernel takes while it runs."""
    shapes = [values[i].shape for i in node.inputs]
    output = node.outputs[0].shape if node.outputs else ()
    if node.op == "Pad":
        return (Temporary(8 * len(output)),)
    if node.op in REDUCING:
        return _turned_round(shapes[0], node)
    if node.op == "BiasAddGrad":
        return _partial_sums(shapes[0], cpu.threads)
    if node.op == "SparseSoftmaxCrossEntropyWithLogits":
        return (Temporary(4 * shapes[0][0], before=True),)
    if onednn:
        return (Temporary(scratchpad(cpu.threads)),) if node.op in SCRATCHED else ()
    if node.op in ("Conv2DBackpropFilter", "Conv2DBackpropInput"):
        return (_buffer_2d(node, shapes, output, cpu),)
    if node.op in ("Conv3DBackpropFilterV2", "Conv3DBackpropInputV2"):
        return _buffer_3d(node, shapes, output, cpu)
    if node.op == "MaxPoolGrad":
        pooled = prod(shapes[1])
        return Temporary(4 * pooled, over=1, before=True), Temporary(8 * pooled, before=True)
    return _depthwise(node, shapes, output, cpu.threads)


SCRATCHED = frozenset({"Conv2D", "Conv3D", "_FusedConv2D", "_FusedConv3D"})


def _turned_round(shape: Shape, node: Node) -> tuple[Temporary, ...]:
    """A copy with what is reduced last, where it lies in more than one place between what is kept (reduction_ops_common.h)."""
    kept = node.attributes.get("kept", ())
    runs: list[bool] = []
    for n, size in enumerate(shape):
        reduced = n < len(kept) and kept[n] == 1
        if size > 1 and (not runs or runs[-1] != reduced):
            runs.append(reduced)
    return (Temporary(4 * prod(shape), before=True),) if len(runs) > 3 else ()


def _partial_sums(shape: Shape, threads: int) -> tuple[Temporary, ...]:
    """A row for each block of a sum over all but the channels; none where there are channels enough for all threads."""
    rows, channels = prod(shape[:-1]), shape[-1]
    if channels > 32 * threads:
        return ()
    blocks = min(threads, -(-rows // -(-WORTHWHILE // channels)))
    size = -(-rows // blocks)
    return (Temporary(4 * channels * -(-rows // size)),)


def _geometry(node: Node, shapes: list[Shape], output: Shape) -> tuple[Shape, Shape, Shape]:
    """(input, filter, gradient of the output) of the convolution whose gradient it is."""
    if "Filter" in node.op:
        return shapes[0], output, shapes[1]
    return output, shapes[0], shapes[1]


def _buffer_2d(node: Node, shapes: list[Shape], output: Shape, cpu: Cpu) -> Temporary:
    """The images' columns: as many images at once as 30 MiB hold; by the input one alone where each thread has enough of it."""
    _, weight, gradient = _geometry(node, shapes, output)
    positions, channels = prod(gradient[1:-1]), weight[-1]
    columns = prod(weight[:-1])
    unit = positions * columns + positions * channels + columns * channels
    images = -(-(TARGET // 4) // unit)
    if "Input" in node.op and (gradient[0] == 1 or unit // cpu.threads >= MINIMUM // 4):
        images = 1
    return _columns(images, gradient[0], positions * columns)


def _columns(room: int, batch: int, each: int) -> Temporary:
    """Room for so many images, or volumes, of which each has columns of so many elements; only where there is an image they are written."""
    return Temporary(4 * room * each, unwritten=4 * max(room - batch, 0) * each, once=room >= batch)


def _buffer_3d(node: Node, shapes: list[Shape], output: Shape, cpu: Cpu) -> tuple[Temporary, ...]:
    """As many volumes at once as the cache holds that the processor reports; nothing where that is far more than the tensors."""
    value, weight, gradient = _geometry(node, shapes, output)
    positions, channels, columns = prod(gradient[1:-1]), weight[-1], prod(weight[:-1])
    unit = positions * columns + positions * channels + columns * channels
    volumes = -(-(cpu.reported_l3 // 4) // unit)
    if "Input" in node.op and gradient[0] == 1:
        volumes = 1
    if volumes * positions * columns // (prod(value) + prod(weight) + prod(gradient)) > FALLBACK:
        return ()
    return (_columns(volumes, gradient[0], positions * columns),)


def _depthwise(node: Node, shapes: list[Shape], output: Shape, threads: int) -> tuple[Temporary, ...]:
    """Copies of the places that a filter sees, for each block of rows (forward) or of images. Source: depthwise_conv_op.cc and
    depthwise_conv_grad_op.cc, with the cost that each tells Shard."""
    weight = output if "Filter" in node.op else shapes[0] if "Input" in node.op else shapes[1] if len(shapes) > 1 else ()
    channels = prod(weight[2:])
    whole = -(-channels // PACKET) * PACKET  # of a place, in whole vectors
    places = prod(weight[:2])
    padded = [] if channels == whole or "Filter" in node.op else [Temporary(4 * places * whole)]
    if node.op == "DepthwiseConv2dNative":
        batch, rows, *line = output
        made = _in_blocks((4 * places * whole,), blocks(batch * rows, int(2.5 * prod(line)), threads), threads)
        return (*padded, *made)
    if node.op == "DepthwiseConv2dNativeBackpropInput":
        batch, rows, columns, _ = output
        sizes = (4 * places * whole, 4 * whole)
        return (*padded, *_in_blocks(sizes, blocks(batch, rows * columns * channels, threads), threads))
    if node.op == "DepthwiseConv2dNativeBackpropFilter":
        batch, filters = shapes[1][0], 4 * places * whole
        return (Temporary(filters * batch), *_in_blocks((filters,), blocks(batch, prod(shapes[1][1:]), threads), threads))
    return ()


def _in_blocks(sizes: tuple[int, ...], count: int, threads: int) -> tuple[Temporary, ...]:
    """As many of each at once as there are threads, the others before them."""
    together = min(count, threads)
    first = [Temporary(nbytes, passing=count - together) for nbytes in sizes]
    return (*first, *[Temporary(nbytes) for _ in range(together - 1) for nbytes in sizes])
