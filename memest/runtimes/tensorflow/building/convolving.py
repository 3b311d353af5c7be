"""Convolutions, transposed, depthwise and plain, and dense layers.

Source: keras/src/layers/convolutional, keras/src/backend/tensorflow/nn.py; a bias is reshaped, squeezed and added by BiasAdd.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from memest.errors import UnsupportedError
from memest.network.tensor import Shape
from memest.ops.operator import expand
from memest.runtimes.tensorflow.building.place import Here
from memest.runtimes.tensorflow.nodes import Value

SEPARABLE = {"depthwise": "separable_conv2d/depthwise", "pointwise": "separable_conv2d"}
"""What the two kernels of a separable convolution are called, which the importer writes as layers of these names."""


def _transposed_weight(shape: Shape) -> Shape:
    """torch's (outputs, inputs, …) or (inputs, outputs, …) as Keras has it, those two last and turned."""
    return (*shape[2:], shape[1], shape[0])


def convolution(here: Here) -> None:
    """Conv1D, Conv2D, Conv3D, or DepthwiseConv2D. One dim is the second of two; holes in the filter are strided batches without holes."""
    weight_name = here.roles["weight"]
    assert isinstance(weight_name, str)
    weight = here.shape(weight_name)
    dims, groups = len(weight) - 2, here.given.get("groups", 1)
    value, output = here.value(), _output(here)
    stride, dilation = (expand(here.given.get(name, 1), dims) for name in ("stride", "dilation"))
    if groups == 1:
        op, name, shape = f"Conv{max(dims, 2)}D", "convolution", _transposed_weight(weight)
    elif dims == 2 and groups == value.shape[-1] and not here.layer.name.endswith(".grouped"):
        op, name, shape = "DepthwiseConv2dNative", "depthwise", (*weight[2:], groups, weight[0] // groups)
    else:
        raise UnsupportedError("no rule for a grouped convolution on tensorflow-cpu: Keras compiles it with XLA; use groups of one or all")
    part = SEPARABLE.get(here.layer.name.rpartition(".")[2])
    name = name if part is None else part
    holes = any(d > 1 for d in dilation)
    if dims == 1 and holes:
        raise UnsupportedError("no rule for a dilated convolution in one dim on tensorflow-cpu; give the network a second dim of one")
    kernel = here.read("weight", shape, "convolution/ExpandDims_1" if dims == 1 else name)
    assert kernel is not None
    value, same = _padded(here, value, output, weight[2:])
    if holes:
        value, output = _without_holes(here, name, value, output, weight[2:], dilation, same)
    if dims == 1:
        value = here.op("Reshape", "convolution/ExpandDims", [value], _flat(value.shape))
        kernel = here.op("Reshape", "convolution/ExpandDims_1", [kernel], (1, *kernel.shape))
        weight, output, stride = (*weight[:2], 1, *weight[2:]), _flat(output), (1, *stride)
    window = {"kernel": tuple(weight[2:]), "stride": stride, "padding": "SAME" if same and not holes else "VALID"}
    make = here.part if part == SEPARABLE["depthwise"] else here.op
    made = make(op, name, [value, kernel], output, **window)
    if holes:
        made = here.part("BatchToSpaceND", f"{name}/BatchToSpaceND", [made], _output(here))
    if dims == 1:
        made = here.op("Squeeze", "convolution/Squeeze", [made], _output(here))
    here.done(_biased(here, made, weight[0]), True)


def _flat(shape: Shape) -> Shape:
    return (shape[0], 1, *shape[1:])


def _without_holes(
    here: Here, name: str, value: Value, output: Shape, kernel: Shape, dilation: Sequence[int], same: bool
) -> tuple[Value, Shape]:
    """Every so many places along each dim become an image of their own (padded first, so that they come out even): the value, and what a
    filter without holes makes of it. Source: tensorflow/python/ops/nn_ops.py (_WithSpaceToBatch)."""
    extents = []
    for extent, k, rate in zip(value.shape[1:-1], kernel, dilation, strict=True):
        wide = extent + (rate * (k - 1) if same else 0)
        extents.append(-(-wide // rate))
    batch = value.shape[0] * prod(dilation)
    made = here.part("SpaceToBatchND", f"{name}/SpaceToBatchND", [value], (batch, *extents, value.shape[-1]))
    return made, (batch, *(n - k + 1 for n, k in zip(extents, kernel, strict=True)), output[-1])


def _padded(here: Here, value: Value, output: Shape, kernel: Shape) -> tuple[Value, bool]:
    """What is convolved, padded first where Keras's ``same`` would pad otherwise; and whether the kernel pads so by itself."""
    dims = len(kernel)
    stride = expand(here.given.get("stride", 1), dims)
    dilation = expand(here.given.get("dilation", 1), dims)
    pads = expand(here.given.get("padding", 0), dims)
    source = here.roles["input"]
    assert isinstance(source, str)
    if source in here.place.padded:
        return here.of(here.place.padded[source]), True
    if not any(pads):
        return value, False
    if all(_is_same(*along) for along in zip(value.shape[1:-1], kernel, stride, dilation, pads, strict=True)):
        return value, True
    larger = (value.shape[0], *[n + 2 * p for n, p in zip(value.shape[1:-1], pads, strict=True)], value.shape[-1])
    return here.part("Pad", "zero_padding/Pad", [value], larger), False


def _is_same(extent: int, kernel: int, stride: int, dilation: int, pad: int) -> bool:
    reach = (kernel - 1) * dilation + 1
    total = max((-(-extent // stride) - 1) * stride + reach - extent, 0)
    return total == 2 * pad


def _output(here: Here) -> Shape:
    shape = here.shape(here.layer.outputs[0])
    return (shape[0], *shape[2:], shape[1])


def transposed(here: Here) -> None:
    """Conv2DTranspose and Conv3DTranspose: the gradient of a convolution by its input."""
    weight_name = here.roles["weight"]
    assert isinstance(weight_name, str)
    weight = here.shape(weight_name)
    dims = len(weight) - 2
    if dims not in (2, 3) or here.given.get("groups", 1) != 1:
        raise UnsupportedError("no rule for a transposed convolution in one dim, or in groups, on tensorflow-cpu")
    op = "Conv2DBackpropInput" if dims == 2 else "Conv3DBackpropInputV2"
    kernel = here.read("weight", _transposed_weight(weight), "conv_transpose")
    assert kernel is not None
    window = {"kernel": tuple(weight[2:]), "stride": expand(here.given.get("stride", 1), dims), "padding": "SAME"}
    made = here.op(op, "conv_transpose", [kernel, here.value()], _output(here), **window)
    here.done(_biased(here, made, weight[1]), True)


def _biased(here: Here, value: Value, channels: int) -> Value:
    bias = here.read("bias", (channels,), "Reshape")
    if bias is None:
        return value
    wide = here.part("Reshape", "Reshape", [bias], (*(1,) * (len(value.shape) - 1), channels))
    if channels == 1:
        return here.op("AddV2", "Add", [value, wide], value.shape)
    flat = here.part("Squeeze", "Squeeze", [wide], (channels,))
    return here.op("BiasAdd", "BiasAdd", [value, flat], value.shape)


def dense(here: Here) -> None:
    """Dense: a product of two dims; of more they are joined and parted again."""
    weight_name = here.roles["weight"]
    assert isinstance(weight_name, str)
    units, width = here.shape(weight_name)
    value = here.value()
    kernel, bias = here.read("weight", (width, units), "Cast"), None
    assert kernel is not None
    rows, output = prod(value.shape[:-1]), (*value.shape[:-1], units)
    if len(value.shape) > 2:
        value = here.part("Reshape", "Tensordot/Reshape", [value], (rows, width))
    made = here.op("MatMul", "MatMul" if len(output) == 2 else "Tensordot/MatMul", [value, kernel], (rows, units))
    if made.shape != output:
        made = here.part("Reshape", "Tensordot", [made], output)
    bias = here.read("bias", (units,), "BiasAdd")
    if bias is not None:
        made = here.op("BiasAdd", "BiasAdd", [made, bias], output)
    here.done(made, False if not here.is_turned() else None)


TABLE = {
    **dict.fromkeys(("convolution", "conv2d", "conv3d", "conv1d"), convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), transposed),
    "linear": dense,
}
