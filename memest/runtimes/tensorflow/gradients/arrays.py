"""Gradients of operations that arrange what is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from memest.runtimes.tensorflow.gradients.arithmetic import Given, inputs, named, upstream
from memest.runtimes.tensorflow.nodes import Net, Node


def _reshaped(net: Net, node: Node, given: Given) -> Given:
    (value,) = inputs(net, node)
    return [net.op("Reshape", named(node, "Reshape"), [upstream(given)], value.shape)]


def _concatenated(net: Net, node: Node, given: Given) -> Given:
    parts = enumerate(inputs(net, node))
    return [net.op("Slice", named(node, "Slice"), [upstream(given)], v.shape, part=n) for n, v in parts]


def _padded(net: Net, node: Node, given: Given) -> Given:
    (value,) = inputs(net, node)
    net.unique(named(node, "Slice"))  # of the pads, which are constants
    return [net.op("Slice", named(node, "Slice"), [upstream(given)], value.shape)]


def _sliced(net: Net, node: Node, given: Given) -> Given:
    (value,) = inputs(net, node)
    return [net.op("StridedSliceGrad", named(node, "StridedSliceGrad"), [upstream(given)], value.shape)]


def _tiled(net: Net, node: Node, given: Given) -> Given:
    (value,) = inputs(net, node)
    split = net.op("Reshape", named(node, "Reshape"), [upstream(given)], node.outputs[0].shape)
    return [net.op("Sum", named(node, "Sum"), [split], value.shape)]


def _transposed(net: Net, node: Node, given: Given) -> Given:
    (value,) = inputs(net, node)
    return [net.op("Transpose", named(node, "transpose"), [upstream(given)], value.shape)]


def _selected(net: Net, node: Node, given: Given) -> Given:
    """Dropout's: what was dropped has no gradient."""
    kept, value = inputs(net, node)
    return [None, net.op("SelectV2", named(node, "SelectV2"), [kept, upstream(given)], value.shape, dtypes=(value.dtype,))]


def _resized(net: Net, node: Node, given: Given) -> Given:
    (value,) = inputs(net, node)
    return [net.op(f"{node.op}Grad", named(node, f"{node.op}Grad"), [upstream(given)], value.shape)]


def _batched(op: str) -> Callable[[Net, Node, Given], Given]:
    """The other way round."""

    def made(net: Net, node: Node, given: Given) -> Given:
        (value,) = inputs(net, node)
        return [net.op(op, named(node, op), [upstream(given)], value.shape)]

    return made


TABLE: Mapping[str, Callable[[Net, Node, Given], Given]] = {
    "Reshape": _reshaped,
    "Squeeze": _reshaped,
    "ConcatV2": _concatenated,
    "Pad": _padded,
    "StridedSlice": _sliced,
    "Tile": _tiled,
    "Transpose": _transposed,
    "SelectV2": _selected,
    "SpaceToBatchND": _batched("BatchToSpaceND"),
    "BatchToSpaceND": _batched("SpaceToBatchND"),
    "ResizeBilinear": _resized,
    "ResizeBicubic": _resized,
}
