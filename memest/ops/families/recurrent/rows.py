"""The rows of recurrent networks: LSTM, GRU and plain RNN, and their cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from memest.network.tensor import Shape
from memest.ops.aten.views import stacked
from memest.ops.composite import Caller, Composite, refuse_on_cuda
from memest.ops.facts import EVERYWHERE_CALLS, EVERYWHERE_FACTS, LOWER
from memest.ops.families.recurrent import by_onednn, layers, packed
from memest.ops.families.recurrent.cells import STEPS, Weights
from memest.ops.operator import REQUIRED, Attribute, Example, Operator, flag, integer, integers, number, optional
from memest.ops.tape import Tape, Tensor

NATIVE = "aten/src/ATen/native/RNN.cpp"
STEPS_, BATCH, FEATURES, HIDDEN = 4, 3, 10, 6
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def _flops(inputs: Sequence[Shape], made: Sequence[Shape], given: Mapping[str, Any]) -> int:
    """Each step multiplies the input and the state by their weights."""
    (steps, batch, _), ih, hh, *_ = inputs
    return 2 * steps * batch * (prod(ih) + prod(hh))


def _weights(cell: str, has_biases: bool, num_layers: int, bidirectional: bool, hidden: int, projected: int = 0) -> list[Shape]:
    """Shapes of the parameters of torch.nn's module, in its order."""
    shapes: list[Shape] = []
    rows, seen, directions = GATES[cell] * hidden, projected or hidden, 2 if bidirectional else 1
    for layer in range(num_layers):
        for _ in range(directions):
            shapes += [(rows, FEATURES if layer == 0 else seen * directions), (rows, seen)]
            shapes += [(rows,), (rows,)] * has_biases
            shapes += [(projected, hidden)] * bool(projected)
    return shapes


def _example(
    cell: str, *, hidden: int = HIDDEN, projected: int = 0, dtype: str = "float32", frozen: tuple[int, ...] = (), **given: Any
) -> Example:
    attributes = {"has_biases": True, "num_layers": 1, "bidirectional": False, **given}
    params = _weights(cell, attributes["has_biases"], attributes["num_layers"], attributes["bidirectional"], hidden, projected)
    count = attributes["num_layers"] * (2 if attributes["bidirectional"] else 1)
    first = (BATCH, STEPS_) if attributes.get("batch_first") else (STEPS_, BATCH)
    states = [(count, BATCH, projected or hidden), (count, BATCH, hidden)][: 2 if cell == "lstm" else 1]
    return Example(
        shapes=((*first, FEATURES), *states, params),
        attributes=attributes,
        dtypes=(dtype,) * (1 + len(states) + len(params)),
        frozen=frozen,
    )


def _examples(cell: str) -> tuple[Example, ...]:
    both: dict[str, Any] = {"num_layers": 2, "bidirectional": True}
    return (
        _example(cell),
        _example(cell, has_biases=False),
        _example(cell, **both, batch_first=True),
        _example(cell, num_layers=3, dropout=0.5, training=True),
        _example(cell, **both, dropout=0.5, training=True, has_biases=False),
        _example(cell, **both, dtype="float64", frozen=(1,)),
        *((_example(cell, **both, projected=5), _example(cell, projected=5, has_biases=False)) if cell == "lstm" else ()),
    )


SETTINGS = (
    Attribute(name="has_biases", default=REQUIRED, check=flag),
    Attribute(name="num_layers", default=REQUIRED, check=integer),
    Attribute(name="dropout", default=0.0, check=number),
    Attribute(name="training", default=None, check=optional(flag)),
    Attribute(name="bidirectional", default=REQUIRED, check=flag),
    Attribute(name="batch_first", default=False, check=flag),
)


def _evenly(e: Example) -> Example:
    """Over sequences that are all as long."""
    shapes = ((BATCH * STEPS_, FEATURES), *e.shapes[1:])
    return Example(shapes=shapes, attributes={**e.attributes, "batch_sizes": (BATCH,) * STEPS_}, dtypes=e.dtypes)


BATCH_SIZES = Attribute(name="batch_sizes", default=REQUIRED, check=integers)


def _network(cell: str, compose: Any, source: str) -> Composite:
    return Composite(
        name=cell,
        torch=f"torch.{cell}",
        oracle=cell if cell == "lstm" else "one_hidden_" + cell,
        roles=("input", "hx", "cx", "params*") if cell == "lstm" else ("input", "hx", "params*"),
        attributes=SETTINGS,
        compose=compose,
        examples=_examples(cell),
        facts=EVERYWHERE_CALLS,
        source=source,
    )


def _packed(cell: str) -> Composite:
    """Over packed steps: sequences of 4, 2 and 1 steps."""
    sizes = (3, 2, 1, 1)
    base = [e for e in _examples(cell) if "batch_first" not in e.attributes]
    return Composite(
        name=f"packed_{cell}",
        torch=f"torch.{cell}",
        oracle="packed_lstm" if cell == "lstm" else f"packed_{cell}",
        roles=("input", "hx", "cx", "params*") if cell == "lstm" else ("input", "hx", "params*"),
        attributes=(*(s for s in SETTINGS if s.name != "batch_first"), BATCH_SIZES),
        compose=packed.network(cell),
        examples=tuple(
            Example(
                shapes=((sum(sizes), FEATURES), *e.shapes[1:]),
                attributes={**e.attributes, "batch_sizes": sizes},
                dtypes=e.dtypes,
                frozen=e.frozen,
            )
            for e in base
        )
        + ((_evenly(base[0]), _evenly(base[-1])) if cell == "lstm" else ()),
        facts=EVERYWHERE_CALLS,
        source=f"{NATIVE} (PackedLayer)",
    )


def _lstm_cell(c: Caller, input: Any, hx: Any, cx: Any, *weights: Any) -> Any:
    refuse_on_cuda(c, "a recurrent cell")
    return STEPS["lstm"](c, input, (hx, cx), Weights(*weights), False)


def _one_cell(cell: str) -> Any:
    def compose(c: Caller, input: Any, hx: Any, *weights: Any) -> Any:
        refuse_on_cuda(c, "a recurrent cell")
        return STEPS[cell](c, input, (hx,), Weights(*weights), False)

    return compose


def _cell(cell: str, compose: Any) -> Composite:
    states = ("hx", "cx") if cell == "lstm" else ("hx",)
    rows = GATES[cell] * HIDDEN
    shapes = ((BATCH, FEATURES), *[(BATCH, HIDDEN)] * len(states), (rows, FEATURES), (rows, HIDDEN))
    return Composite(
        name=f"{cell}_cell",
        torch=f"torch.{cell}_cell",
        oracle="lstm_cell" if cell == "lstm" else "",
        roles=("input", *states, "w_ih", "w_hh", "b_ih?", "b_hh?"),
        attributes=(),
        compose=compose,
        examples=(
            Example(shapes=(*shapes, (rows,), (rows,)), attributes={}),
            Example(shapes=(*shapes, None, None), attributes={}),
            Example(shapes=(*shapes, (rows,), (rows,)), attributes={}, dtypes=("float64",) * (len(shapes) + 2)),
        ),
        facts=EVERYWHERE_CALLS,
        source=NATIVE,
    )


def _stack_steps(k: Tape, tensors: list[Tensor], *, steps: int) -> Tensor:
    """``stack`` of as many tensors as there are ``steps``, which may be a symbol."""
    joined = stacked(k, tensors, 0)
    return k.view(joined, (steps, *joined.shape[1:]), joined.strides)


def _stack_steps_backward(k: Tape, saved: dict[str, Any], grads: list[Tensor | None], *, steps: int) -> list[Tensor | None]:
    (grad,) = grads
    assert grad is not None
    return [k.view(grad, grad.shape[1:], grad.strides[1:]) for _ in k.needs]


ROWS = (
    Operator(
        name="_stack_steps",
        torch="torch.stack",
        oracle="stack_steps",
        roles=("tensors*",),
        attributes=(Attribute(name="steps", default=REQUIRED, check=integer),),
        forward=_stack_steps,
        saves=(),
        backward=_stack_steps_backward,
        examples=(Example(shapes=([(3, 6)] * 4,), attributes={"steps": 4}),),
        facts=EVERYWHERE_FACTS,
        source="derivatives.yaml: stack; aten/src/ATen/native/TensorShape.cpp",
    ),
    Operator(
        name="pack_padded_sequence",
        torch="torch._pack_padded_sequence",
        oracle="pack_padded_sequence",
        roles=("input", "lengths"),
        attributes=(Attribute(name="batch_first", default=False, check=flag), BATCH_SIZES),
        forward=packed.pack,
        saves=("batch_sizes",),
        backward=packed.pack_backward,
        examples=tuple(
            Example(shapes=(shape, (3,)), attributes={"batch_first": first, "batch_sizes": sizes}, dtypes=("float32", "int64"))
            for first, shape in ((False, (5, 3, 7)), (True, (3, 5, 7)))
            for sizes in ((3, 3, 2, 1, 1), (3, 3, 3, 3))
        ),
        facts=EVERYWHERE_FACTS,
        source="derivatives.yaml: _pack_padded_sequence; aten/src/ATen/native/PackedSequence.cpp",
    ),
    Operator(
        name="mkldnn_rnn_layer",
        torch="torch.mkldnn_rnn_layer",
        oracle="mkldnn_rnn_layer",
        roles=by_onednn.OPERANDS,
        attributes=(
            Attribute(name="reverse", default=False, check=flag),
            Attribute(name="has_biases", default=True, check=flag),
            Attribute(name="keeps_workspace", default=True, check=flag),
            Attribute(name="one_state", default=False, check=flag),
        ),
        forward=by_onednn.forward,
        saves=by_onednn.KEPT,
        backward=by_onednn.backward,
        examples=tuple(
            Example(
                shapes=((steps, batch, inputs), (4 * hidden, inputs), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,))
                + ((batch, hidden),) * 2,
                attributes={"reverse": bool(steps % 2), "keeps_workspace": keeps},
                frozen=() if keeps else tuple(range(7)),
            )
            for steps, batch, inputs, hidden in ((4, 3, 10, 6), (7, 1, 16, 16), (1, 1, 64, 7), (3, 130, 10, 20), (2, 2, 256, 64))
            for keeps in (True, False)
        ),
        facts=EVERYWHERE_FACTS.but(autocast=LOWER, flops=_flops),
        source="derivatives.yaml: mkldnn_rnn_layer; aten/src/ATen/native/mkldnn/RNN.cpp",
    ),
)
COMPOSITE_ROWS = (
    _network("lstm", layers.lstm, f"{NATIVE} (lstm), aten/src/ATen/native/mkldnn/RNN.cpp"),
    *(_network(cell, layers.one_hidden(cell), f"{NATIVE} (ONE_HIDDEN_RNN)") for cell in ("gru", "rnn_tanh", "rnn_relu")),
    *(_packed(cell) for cell in STEPS),
    _cell("lstm", _lstm_cell),
    *(_cell(cell, _one_cell(cell)) for cell in ("gru", "rnn_tanh", "rnn_relu")),
)
