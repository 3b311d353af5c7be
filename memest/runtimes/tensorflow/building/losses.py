"""A loss as Keras computes it, with its gradient by what the network gives.

Source: keras/src/losses, tensorflow/python/ops/nn_impl.py (sigmoid_cross_entropy_with_logits); what is written down is the graph that
TensorFlow's optimizers leave of them, where constants are no nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod

from memest.errors import UnsupportedError
from memest.network.tensor import Shape
from memest.runtimes.tensorflow.nodes import TAPE, Net, Value

LOSS = "compile_loss"
FOLDED = 100 << 10  # bytes: up to which grappler makes a constant of what can be computed ahead


def loss_of(net: Net, name: str, output: Value) -> dict[str, Value]:
    """The nodes of a loss of ``output``; gradients by value, where the tape goes on. UnsupportedError for a loss without a rule."""
    found = TABLE.get(name)
    if found is None:
        raise UnsupportedError(f"no rule for loss {name!r} on tensorflow-cpu; there are {', '.join(TABLE)}")
    net.layer = "loss"
    return found(net, output)


def _cross_entropy(net: Net, output: Value) -> dict[str, Value]:
    """SparseCategoricalCrossentropy: what a softmax reads is taken instead of what it gives."""
    maker = net.nodes.get(output.name)
    if maker is not None and maker.op == "Softmax":
        output = net.value(maker.inputs[0])
    scope = f"{LOSS}/sparse_categorical_crossentropy"
    rows, classes = prod(output.shape[:-1]), output.shape[-1]
    labels = net.input("data_1", output.shape[:-1], "int64")
    as_float = net.op("Cast", f"{scope}/Cast", [labels], labels.shape, dtypes=("float32",))
    as_index = net.op("Cast", f"{scope}/Cast_1", [as_float], labels.shape, dtypes=("int64",))
    inner = f"{scope}/SparseSoftmaxCrossEntropyWithLogits"
    flat = output
    if len(output.shape) > 2:
        flat = net.op("Reshape", f"{inner}/Reshape", [output], (rows, classes))
        as_index = net.op("Reshape", f"{inner}/Reshape", [as_index], (rows,))
    each = net.op("SparseSoftmaxCrossEntropyWithLogits", f"{inner}/{inner.rpartition('/')[2]}", [flat, as_index], (rows,), flat.shape)
    gradient = net.op("Mul", f"{TAPE}{inner}/mul", [net.output(each, 1)], flat.shape)
    total = net.op("Sum", f"{scope}/Sum", [each], ())
    _tracked(net, net.op("DivNoNan", f"{scope}/div_no_nan", [total], ()))
    return {flat.name: gradient}


def _binary_cross_entropy(from_logits: bool, net: Net, output: Value) -> dict[str, Value]:
    """BinaryCrossentropy: what a sigmoid reads is taken instead of what it gives."""
    maker = net.nodes.get(output.name)
    if from_logits or (maker is not None and maker.op == "Sigmoid"):
        logits = output if from_logits else net.value(net.nodes[output.name].inputs[0])
    else:
        raise UnsupportedError("no rule for binary_cross_entropy of what no sigmoid gives, on tensorflow-cpu; end the network in a sigmoid")
    scope = f"{LOSS}/binary_crossentropy"
    inner, shape = f"{scope}/logistic_loss", logits.shape
    labels = net.input("data_1", shape, "float32")

    def op(op: str, name: str, inputs: Sequence[Value], *, back: bool = False, dtypes: tuple[str, ...] = (), zeros: int = 0) -> Value:
        return net.op(op, f"{TAPE if back else ''}{inner}/{name}", inputs, shape, dtypes=dtypes, zeros=zeros)

    positive = op("GreaterEqual", "GreaterEqual", [logits], dtypes=("bool",))
    negative = op("Neg", "Neg", [logits])
    relu = op("Select", "Select", [positive, logits], dtypes=("float32",))
    absolute = op("Select", "Select_1", [positive, negative, logits], dtypes=("float32",))
    exponential = op("Exp", "Exp", [absolute])
    product = op("Mul", "mul", [labels, logits])
    difference = op("Sub", "sub", [relu, product])
    logarithm = op("Log1p", "Log1p", [exponential])
    each = net.op("AddV2", inner, [logarithm, difference], shape)
    mean = net.op("Mean", f"{scope}/Mean", [each], shape[:-1], kept=(*shape[:-1], 1))
    total = net.op("Sum", f"{scope}/Sum", [mean], ())
    _tracked(net, net.op("DivNoNan", f"{scope}/div_no_nan", [total], ()))
    after = _given(net, scope, logits)
    of_relu = op("Select", "Select", [positive], back=True, dtypes=("float32",))
    plus_one = net.op("AddV2", f"{TAPE}{inner}/add", [exponential], shape, after=after)
    inverse = op("Reciprocal", "Reciprocal", [plus_one], back=True)
    by_exponential = op("Mul", "mul", [inverse], back=True)
    by_absolute = op("Mul", "mul_1", [exponential, by_exponential], back=True)
    of_negative = op("Select", "Select_2", [positive, by_absolute], back=True, dtypes=("float32",), zeros=2)
    of_logits = op("Select", "Select_3", [positive, by_absolute], back=True, dtypes=("float32",), zeros=1)
    turned = op("Neg", "Neg", [of_negative], back=True)
    by_labels = op("Mul", "mul/Mul", [labels], back=True)
    return {logits.name: net.op("AddN", "AddN", [turned, of_relu, of_logits, by_labels], shape)}


def _given(net: Net, scope: str, logits: Value) -> list[str]:
    """The gradient of the mean, the same number everywhere: where it is too large for a constant it is made anew, though all that reads it
    has been computed ahead."""
    if logits.nbytes <= FOLDED:
        return []
    tiled = net.op("Tile", f"{TAPE}{scope}/Tile", [], logits.shape[:-1], dtypes=(logits.dtype,))
    return [net.op("Reshape", f"{TAPE}{scope}/Reshape_1", [tiled], logits.shape).name]


def _mean_squared(net: Net, output: Value) -> dict[str, Value]:
    """MeanSquaredError."""
    scope, shape = f"{LOSS}/mse", output.shape
    labels = net.input("data_1", shape, "float32")
    difference = net.op("Sub", f"{scope}/sub", [labels, output], shape)
    squared = net.op("Square", f"{scope}/Square", [difference], shape)
    mean = net.op("Mean", f"{scope}/Mean", [squared], shape[:-1], kept=(*shape[:-1], 1))
    total = net.op("Sum", f"{scope}/Sum", [mean], ())
    _tracked(net, net.op("DivNoNan", f"{scope}/div_no_nan", [total], ()))
    net.unique(f"{TAPE}{scope}/Mul")  # of constants
    product = net.op("Mul", f"{TAPE}{scope}/Mul", [difference], shape)
    return {output.name: net.op("Neg", f"{TAPE}{scope}/sub/Neg", [product], shape)}


def _tracked(net: Net, loss: Value) -> None:
    """Keras's mean of the loss over batches: a sum and a count, read again for what the step returns."""
    scalar: Shape = ()
    for name in ("loss_total", "loss_count"):
        net.variable(name, scalar, category="buffer", reset=True)
    weighted = net.op("Mul", "mul", [loss], scalar)
    total = net.op("AddV2", "Add", [net.op("ReadVariableOp", "Add/ReadVariableOp", [], scalar, variable="loss_total"), weighted], scalar)
    done = net.op("AssignVariableOp", "AssignVariableOp", [total], variable="loss_total")
    count = net.op("AddV2", "Add", [net.op("ReadVariableOp", "Add_1/ReadVariableOp", [], scalar, variable="loss_count")], scalar)
    counted = net.op("AssignVariableOp", "AssignVariableOp", [count], variable="loss_count")
    again = [
        net.op("ReadVariableOp", f"{name}/ReadVariableOp", [], scalar, variable=variable, after=[after.name])
        for name, variable, after in (("div_no_nan", "loss_total", done), ("Cast_2", "loss_count", counted))
    ]
    net.fetched += [done.name, counted.name, net.op("DivNoNan", "div_no_nan", again, scalar).name]


TABLE: dict[str, Callable[[Net, Value], dict[str, Value]]] = {
    "cross_entropy": _cross_entropy,
    "binary_cross_entropy": partial(_binary_cross_entropy, False),
    "binary_cross_entropy_with_logits": partial(_binary_cross_entropy, True),
    "mse_loss": _mean_squared,
}
