"""LSTM and GRU: a node a layer, whose weights of both directions lie in one tensor each; directions stand between steps and batch there.

The exporter puts them beside one another again (a transpose and a reshape), as torch has them. What was read from a file is torch's form of
ONNX's, so both ways follow one another there, and go.
"""

from __future__ import annotations

from collections.abc import Sequence

from memest.network.tensor import Shape
from memest.runtimes.onnxruntime.lowering.exporting import Call, Handler
from memest.runtimes.onnxruntime.lowering.nodes import Net, Node, Value

OPS = frozenset({"LSTM", "GRU"})
BESIDE = (0, 2, 1, 3)  # of steps, directions, batch, hidden: directions behind the batch, or back


def _recurrent(op: str, states: Sequence[str]) -> Handler:
    def handler(c: Call) -> list[Value]:
        directions = 2 if c["bidirectional"] else 1
        params, count = c["params"], 4 if c["has_biases"] else 2
        if len(params) != count * directions * c["num_layers"]:
            raise c.refuse(f"{op} with projections")
        given = [c[s] for s in states]
        if c["num_layers"] > 1 and not all(v.is_weight for v in given):
            raise c.refuse(f"{op} of several layers with initial states that are computed")
        x = c.transposed(c.input, (1, 0, 2)) if c["batch_first"] else c.input
        finals: list[list[Value]] = [[] for _ in states]
        for n in range(c["num_layers"]):
            weights = params[n * count * directions : (n + 1) * count * directions]
            y, *last = _layer(c, op, x, weights, directions, given)
            for kept, value in zip(finals, last, strict=True):
                kept.append(value)
            steps, _, batch, hidden = y.shape
            x = c.sizes(c.transposed(y, BESIDE), (steps, batch, directions * hidden))
        if c["batch_first"]:
            x = c.transposed(x, (1, 0, 2))
        return [x, *(_all_layers(c, kept) for kept in finals)]

    return handler


def _layer(c: Call, op: str, x: Value, weights: Sequence[Value], directions: int, states: Sequence[Value]) -> list[Value]:
    """All steps, and the last state, or states."""
    steps, batch, _ = x.shape
    hidden = weights[1].shape[1]
    rows = weights[0].shape[0]
    shapes: list[Shape] = [(rows, x.shape[2]), (rows, hidden)]
    biases = len(weights) > 2 * directions
    held: list[Value | None] = [Value(v.name, (directions, *s), v.dtype, v.category) for v, s in zip(weights, shapes, strict=False)]
    held.append(Value(weights[2].name, (directions, 2 * rows), weights[2].dtype, weights[2].category) if biases else None)
    state: Shape = (directions, batch, hidden)
    begins = [Value(v.name, state, v.dtype, v.category) if v.is_weight else v for v in states]
    made: list[Shape] = [(steps, directions, batch, hidden), *(state for _ in states)]
    return c.several(op, [x, *held, None, *begins], made, x.dtype)


def _all_layers(c: Call, states: Sequence[Value]) -> Value:
    one = states[0]
    whole = (len(states) * one.shape[0], *one.shape[1:])
    return one if len(states) == 1 else c.put("Concat", states, whole, one.dtype, axis=0)


def straightened(net: Net) -> None:
    """There and back is nothing; outputs that nobody reads are not asked for."""
    for node in list(net.nodes.values()):
        if node.op in OPS:
            for turned in [n for n in node.result.readers if n.op == "Transpose"]:
                _bypass(net, node.result, turned)
            node.outputs = [node.result, *(v for v in node.outputs[1:] if v.uses)]


def _bypass(net: Net, origin: Value, node: Node) -> None:
    """Whoever reads what has come back to the ``origin``'s dims behind ``node`` reads the origin; who nobody reads then goes."""
    for reader in list(dict.fromkeys(node.result.readers)):
        if reader.op not in ("Reshape", "Unsqueeze", "Transpose"):
            continue
        back = reader.op == "Unsqueeze" if origin.shape[1] == 1 else reader.op == "Transpose" and reader.attributes["perm"] == BESIDE
        if reader.result.shape == origin.shape and back and not reader.result.given_back:
            for later in list(dict.fromkeys(reader.result.readers)):
                for slot, value in enumerate(later.inputs):
                    if value is reader.result:
                        net.read(later, slot, origin)
        else:
            _bypass(net, origin, reader)
        if reader.number in net.nodes and not reader.result.uses:
            net.remove(reader)
    if not node.result.uses:
        net.remove(node)


HANDLERS: dict[str, Handler] = {"lstm": _recurrent("LSTM", ("hx", "cx")), "gru": _recurrent("GRU", ("hx",))}
