"""LSTM and GRU: ONNX has the weights of all gates and of both directions in three tensors, torch four tensors a direction."""

from __future__ import annotations

from typing import Any

from memest.errors import GraphError
from memest.network.tensor import Shape
from memest.sources.builder import Node
from memest.sources.importers.onnx.call import Call, Handler, Result
from memest.sources.importers.onnx.writing import shape_of

PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
SIDES = ("_l0", "_l0_reverse")


def _weights(c: Call, rows: int, features: int, hidden: int, directions: int) -> list[Node]:
    """The parameters as torch.nn has them: as many numbers, in parts."""
    wanted: list[Shape] = [(directions, rows, features), (directions, rows, hidden), (directions, 2 * rows)]
    biases = c.given(3)
    for i, shape in zip((1, 2, 3), wanted, strict=True):
        if (i < 3 or biases) and shape_of(c.input(i)) != shape:
            raise GraphError(f"has weights of the shape {list(shape_of(c.input(i)))}, where {list(shape)} is wanted")
    shapes: tuple[Shape, ...] = ((rows, features), (rows, hidden), (rows,), (rows,))
    home = c.writer.home or c.op.lower()
    names = [(f"{home}.{part}{side}", shape) for side in SIDES[:directions] for part, shape in zip(PARTS, shapes, strict=True)]
    dtype = c.tensor(0).value.spec.dtype
    return [c.writer.owned(name, shape, dtype) for name, shape in names if biases or "bias" not in name]


def _has_own_activations(c: Call) -> bool:
    """Whether they are others than ONNX's usual ones, which torch has."""
    usual = ("Sigmoid", "Tanh", "Tanh") if c.op == "LSTM" else ("Sigmoid", "Tanh")
    given = c.attribute("activations")
    return given is not None and tuple(name.decode() for name in given) not in (usual, usual * 2)


def _recurrent(op: str, gates: int) -> Handler:
    def handler(c: Call) -> Result:
        x = c.tensor(0)
        if len(x.shape) != 3:
            raise GraphError(f"reads steps, batch and features, got {len(x.shape)} dims")
        hidden, direction = c.attribute("hidden_size", 0), c.attribute("direction", "forward")
        if direction == "reverse" or c.attribute("layout", 0) or c.given(4) or c.given(7) or _has_own_activations(c):
            raise c.refuse(f"{c.op} backwards alone, with the batch first, of lengths, with peepholes, or with activations of its own")
        directions = 2 if direction == "bidirectional" else 1
        batch, features = x.shape[1], int(x.shape[2])
        params = _weights(c, gates * hidden, features, hidden, directions)
        states = [
            c.tensor(i) if c.given(i) else c.layer("zeros", shape=(directions, batch, hidden), dtype=x.value.spec.dtype)
            for i in ((5, 6) if op == "lstm" else (5,))
        ]
        how: dict[str, Any] = {"has_biases": c.given(3), "num_layers": 1, "bidirectional": directions == 2}
        made = c.layer(op, x, *states, params, **how)
        return (_by_direction(c, made[0], directions, hidden) if c.wanted and c.node.output[0] else None, *made[1:])

    return handler


def _by_direction(c: Call, output: Node, directions: int, hidden: int) -> Node:
    """ONNX has a dim of directions behind the steps, torch has them beside one another."""
    if directions == 1:
        made: Node = c.layer("unsqueeze", output, dim=1)
        return made
    steps, batch, _ = output.shape
    made = c.layer("permute", c.layer("view", output, shape=(steps, batch, directions, hidden)), dims=(0, 2, 1, 3))
    return made


HANDLERS: dict[str, Handler] = {"LSTM": _recurrent("lstm", 4), "GRU": _recurrent("gru", 3)}
