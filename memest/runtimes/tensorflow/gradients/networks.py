"""Gradients of convolutions, products, biases and pooling."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from memest.runtimes.tensorflow.gradients.arithmetic import Given, inputs, named, upstream
from memest.runtimes.tensorflow.nodes import Net, Node

OF_INPUT = {"Conv2D": "Conv2DBackpropInput", "Conv3D": "Conv3DBackpropInputV2"}
OF_FILTER = {"Conv2D": "Conv2DBackpropFilter", "Conv3D": "Conv3DBackpropFilterV2"}
DEPTHWISE = "DepthwiseConv2dNative"


def _convolved(net: Net, node: Node, given: Given) -> Given:
    value, weight = inputs(net, node)
    gradient = upstream(given)
    window = dict(node.attributes)
    by_input = net.op(OF_INPUT[node.op], named(node, OF_INPUT[node.op]), [weight, gradient], value.shape, **window)
    by_filter = net.op(OF_FILTER[node.op], named(node, OF_FILTER[node.op]), [value, gradient], weight.shape, **window)
    return [by_input, by_filter]


def _depthwise(net: Net, node: Node, given: Given) -> Given:
    value, weight = inputs(net, node)
    gradient = upstream(given)
    window = dict(node.attributes)
    names = f"{DEPTHWISE}BackpropInput", f"{DEPTHWISE}BackpropFilter"
    by_input = net.op(names[0], named(node, names[0]), [weight, gradient], value.shape, **window)
    return [by_input, net.op(names[1], named(node, names[1]), [value, gradient], weight.shape, **window)]


def _transposed(net: Net, node: Node, given: Given) -> Given:
    """A transposed convolution is the gradient of one: its own are that one's, forward and by the filter."""
    weight, value = inputs(net, node)
    gradient = upstream(given)
    forward = {op: name for name, op in OF_INPUT.items()}[node.op]
    window = dict(node.attributes)
    by_filter = net.op(OF_FILTER[forward], named(node, OF_FILTER[forward]), [gradient, value], weight.shape, **window)
    return [by_filter, net.op(forward, named(node, forward), [gradient, weight], value.shape, **window)]


def _biased(net: Net, node: Node, given: Given) -> Given:
    _, bias = inputs(net, node)
    gradient = upstream(given)
    return [gradient, net.op("BiasAddGrad", named(node, "BiasAddGrad"), [gradient], bias.shape)]


def _multiplied(net: Net, node: Node, given: Given) -> Given:
    value, weight = inputs(net, node)
    gradient = upstream(given)
    by_value = net.op("MatMul", named(node, "MatMul"), [gradient, weight], value.shape)
    return [by_value, net.op("MatMul", named(node, "MatMul"), [value, gradient], weight.shape)]


def _pooled(net: Net, node: Node, given: Given) -> Given:
    (value,) = inputs(net, node)
    op = f"{node.op}Grad"
    return [net.op(op, named(node, op), [value, node.outputs[0], upstream(given)], value.shape, **node.attributes)]


def _averaged(net: Net, node: Node, given: Given) -> Given:
    (value,) = inputs(net, node)
    op = f"{node.op}Grad"
    return [net.op(op, named(node, op), [upstream(given)], value.shape, **node.attributes)]


TABLE: Mapping[str, Callable[[Net, Node, Given], Given]] = {
    "Conv2D": _convolved,
    "Conv3D": _convolved,
    DEPTHWISE: _depthwise,
    "Conv2DBackpropInput": _transposed,
    "Conv3DBackpropInputV2": _transposed,
    "BiasAdd": _biased,
    "MatMul": _multiplied,
    "MaxPool": _pooled,
    "MaxPool3D": _pooled,
    "AvgPool": _averaged,
    "AvgPool3D": _averaged,
}
