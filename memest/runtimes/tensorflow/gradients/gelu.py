"""The gradient of GELU, ``0.5 x erfc(-x / sqrt 2)``, as TensorFlow's optimizers leave it: numbers are drawn together, so that a product
less is made than the gradient functions write down. ``mul`` is 0.5 x, ``mul_1`` what erfc reads, ``mul_2`` the whole."""

from __future__ import annotations

from memest.runtimes.tensorflow.gradients.arithmetic import Given, inputs, named, upstream
from memest.runtimes.tensorflow.nodes import Net, Node


def of_whole(net: Net, node: Node, given: Given) -> Given:
    """By 0.5 x; erfc takes the gradient as it comes."""
    half, complement = inputs(net, node)
    return [net.op("Mul", named(node, "Mul"), [upstream(given), complement], half.shape), upstream(given)]


def of_complement(net: Net, node: Node, given: Given) -> Given:
    """Two products that the next gradient multiplies: the gradient with 0.5 x, and the slope of erfc."""
    (value,) = inputs(net, node)
    gradient, shape = upstream(given), value.shape
    square = net.op("Square", named(node, "Square"), [value], shape, after=[gradient.name])
    negative = net.op("Neg", named(node, "Neg"), [square], shape)
    exponential = net.op("Exp", named(node, "Exp"), [negative], shape)
    slope = net.op("Mul", named(node, "mul"), [exponential], shape)
    half = net.value(node.attributes["half"])
    return [net.op("Mul", named(node, "mul"), [half, gradient], shape, slope=slope.name)]


def of_argument(net: Net, node: Node, given: Given) -> Given:
    """By -x: the product of both."""
    product = upstream(given)
    slope = net.value(net.nodes[product.name].attributes["slope"])
    return [net.op("Mul", named(node, "Mul"), [product, slope], product.shape)]
