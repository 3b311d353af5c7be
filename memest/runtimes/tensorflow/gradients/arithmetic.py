"""Gradients of arithmetic with broadcasting, of functions of one tensor, and of reductions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

from memest.errors import UnsupportedError
from memest.network.tensor import Shape
from memest.runtimes.tensorflow.nodes import TAPE, Net, Node, Value

Given = Sequence[Value | None]


def named(node: Node, name: str) -> str:
    """The name of a node of the gradient."""
    return f"{TAPE}{node.scope}/{name}" if node.scope else f"{TAPE}{name}"


def upstream(given: Given) -> Value:
    """The gradient of the first output."""
    assert given[0] is not None
    return given[0]


def inputs(net: Net, node: Node) -> list[Value]:
    """What the node reads."""
    return [net.value(name) for name in node.inputs]


def reduced(net: Net, node: Node, gradient: Value, shape: Shape) -> Value:
    """Summed over what was broadcast."""
    if gradient.shape == shape:
        return gradient
    kept = tuple([1] * (len(gradient.shape) - len(shape))) + shape
    total = net.op("Sum", named(node, "Sum"), [gradient], kept)
    return net.op("Reshape", named(node, "Reshape"), [total], shape)


def _added(net: Net, node: Node, given: Given) -> Given:
    return [reduced(net, node, upstream(given), v.shape) for v in inputs(net, node)]


def _subtracted(net: Net, node: Node, given: Given) -> Given:
    values, gradient = inputs(net, node), upstream(given)
    if len(values) == 1:
        return [net.op("Neg", named(node, "Neg"), [gradient], gradient.shape) if node.attributes.get("from_number") else gradient]
    negative = net.op("Neg", named(node, "Neg"), [gradient], gradient.shape)
    return [reduced(net, node, gradient, values[0].shape), reduced(net, node, negative, values[1].shape)]


def _multiplied(net: Net, node: Node, given: Given) -> Given:
    values, gradient = inputs(net, node), upstream(given)
    if node.attributes.get("silu"):
        return _silu(net, values[0], gradient)
    if len(values) == 1:
        return [net.op("Mul", named(node, "Mul"), [gradient], gradient.shape)]
    a, b = values
    by_a = net.op("Mul", named(node, "Mul"), [gradient, b], gradient.shape)
    by_a = reduced(net, node, by_a, a.shape)
    by_b = net.op("Mul", named(node, "Mul_1"), [a, gradient], gradient.shape)
    return [by_a, reduced(net, node, by_b, b.shape)]


def _silu(net: Net, value: Value, gradient: Value) -> Given:
    """gradient * s * (1 + x * (1 - s)): s is computed again once the gradient is there; named where no scope is."""
    shape = value.shape
    gate = net.op("Sigmoid", "Sigmoid", [value], shape, after=[gradient.name])
    rest = net.op("Sub", "sub", [gate], shape)
    _left_out(net, "mul", "mul")
    product = net.op("Mul", "mul", [value, rest], shape)
    grown = net.op("AddV2", "add", [product], shape)
    slope = net.op("Mul", "mul", [gate, grown], shape)
    _left_out(net, "sub", "mul", "mul", "mul")
    return [net.op("Mul", "mul", [gradient, slope], shape), None]


def _left_out(net: Net, *names: str) -> None:
    """Operations that go, of products with one and of the gradient by the slope; their names are taken."""
    for name in names:
        net.unique(name)


def _negative(net: Net, node: Node, given: Given) -> Given:
    return [net.op("Neg", named(node, "Neg"), [upstream(given)], upstream(given).shape)]


def _divided(net: Net, node: Node, given: Given) -> Given:
    """By a number. UnsupportedError for a quotient of two tensors."""
    if len(node.inputs) > 1:
        raise UnsupportedError("no rule for the gradient of a quotient of two tensors on tensorflow-cpu; multiply by a reciprocal")
    return [net.op("RealDiv", named(node, "RealDiv"), [upstream(given)], upstream(given).shape)]


def _same(net: Net, node: Node, given: Given) -> Given:
    return [*given, *[None] * (len(node.inputs) - 1)]


def _by_output(op: str, gradient_first: bool) -> Callable[[Net, Node, Given], Given]:
    """A kernel of the output and the gradient."""

    def made(net: Net, node: Node, given: Given) -> Given:
        gradient, output = upstream(given), node.outputs[0]
        order = [gradient, output] if gradient_first else [output, gradient]
        return [net.op(op, named(node, op), order, gradient.shape)]

    return made


def _by_input(op: str) -> Callable[[Net, Node, Given], Given]:
    """A kernel of the gradient and the input."""

    def made(net: Net, node: Node, given: Given) -> Given:
        gradient = upstream(given)
        return [net.op(op, named(node, op), [gradient, *inputs(net, node)], gradient.shape)]

    return made


def _squared_difference(net: Net, node: Node, given: Given) -> Given:
    """Of the first alone: the second, a mean, is behind ``stop_gradient``."""
    gradient = upstream(given)
    value, mean = inputs(net, node)
    twice = net.op("Mul", named(node, "Mul"), [gradient], gradient.shape)
    centred = net.op("Sub", named(node, "sub"), [value, mean], value.shape, after=[gradient.name])
    return [net.op("Mul", named(node, "mul_1"), [twice, centred], value.shape), None]


def _spread(net: Net, node: Node, given: Given) -> Value:
    (value,) = inputs(net, node)
    gradient, kept = upstream(given), node.attributes["kept"]
    name = net.unique(named(node, "Reshape"))
    if gradient.shape != kept:
        gradient = net.op("Reshape", name, [gradient], kept, named=True)
    return net.op("Tile", named(node, "Tile"), [gradient], value.shape)


def _sum(net: Net, node: Node, given: Given) -> Given:
    return [_spread(net, node, given)]


def _mean(net: Net, node: Node, given: Given) -> Given:
    tiled = _spread(net, node, given)
    if prod(tiled.shape) == prod(node.outputs[0].shape):
        return [tiled]
    return [net.op("Mul", named(node, "truediv"), [tiled], tiled.shape)]


def _most(net: Net, node: Node, given: Given) -> Given:
    """The gradient goes to all that are the most, in equal shares."""
    (value,) = inputs(net, node)
    gradient, output, kept = upstream(given), node.outputs[0], node.attributes["kept"]
    if not node.attributes.get("keep"):
        output = net.op("Reshape", named(node, "Reshape"), [output], kept)
        gradient = net.op("Reshape", named(node, "Reshape"), [gradient], kept)
    equal = net.op("Equal", named(node, "Equal"), [output, value], value.shape, dtypes=("bool",))
    chosen = net.op("Cast", named(node, "Cast"), [equal], value.shape, dtypes=(value.dtype,))
    count = net.op("Sum", named(node, "Sum"), [chosen], kept)
    count = net.op("Reshape", named(node, "Reshape"), [count], kept)
    share = net.op("RealDiv", named(node, "truediv"), [chosen, count], value.shape)
    return [net.op("Mul", named(node, "mul"), [share, gradient], value.shape)]


def _softmax(net: Net, node: Node, given: Given) -> Given:
    """(gradient - sum(gradient * softmax)) * softmax."""
    gradient, output = upstream(given), node.outputs[0]
    product = net.op("Mul", named(node, "mul"), [gradient, output], output.shape)
    total = net.op("Sum", named(node, "Sum"), [product], (*output.shape[:-1], 1))
    centred = net.op("Sub", named(node, "sub"), [gradient, total], output.shape)
    return [net.op("Mul", named(node, "mul_1"), [centred, output], output.shape)]


TABLE: Mapping[str, Callable[[Net, Node, Given], Given]] = {
    "AddV2": _added,
    "Sub": _subtracted,
    "Mul": _multiplied,
    "RealDiv": _divided,
    "SquaredDifference": _squared_difference,
    "Neg": _negative,
    "Identity": _same,
    "Mean": _mean,
    "Sum": _sum,
    "Max": _most,
    "Softmax": _softmax,
    "Relu": _by_output("ReluGrad", True),
    "Relu6": _by_output("Relu6Grad", True),
    "Elu": _by_output("EluGrad", True),
    "Selu": _by_output("SeluGrad", True),
    "Sigmoid": _by_output("SigmoidGrad", False),
    "Tanh": _by_output("TanhGrad", False),
    "Rsqrt": _by_output("RsqrtGrad", False),
    "LeakyRelu": _by_input("LeakyReluGrad"),
    "Softplus": _by_input("SoftplusGrad"),
    "Softsign": _by_input("SoftsignGrad"),
}
