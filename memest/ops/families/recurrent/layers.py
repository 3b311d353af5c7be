"""Layers of cells over a sequence, as ATen writes them on CPU, and oneDNN's layers of an LSTM.

Sources: aten/src/ATen/native/RNN.cpp (``FullLayer``, ``FullBidirectionalLayer``, ``apply_layer_stack``, ``_lstm_impl``, ``lstm``),
aten/src/ATen/native/mkldnn/RNN.cpp (``mkldnn_rnn``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.ops.composite import Caller, refuse_on_cuda
from memest.ops.families.recurrent.cells import QUANTIZED, STEPS, Hidden, Step, Weights, gathered, parts, times


def _steps(c: Caller, step: Step, inputs: Sequence[Any], hidden: Hidden, weights: Weights) -> tuple[list[Any], Hidden]:
    """All steps of one direction: every state, and the last hidden one."""
    outputs: list[Any] = []
    for i, one in enumerate(inputs):
        following = step(c, one, hidden, weights, True)
        if i:
            c.drop(*hidden[1:])
        hidden = following
        outputs.append(hidden[0])
    return outputs, hidden


def _stacked(c: Caller, outputs: Sequence[Any], products: Any) -> Any:
    """One tensor of all steps, as many as ``products`` has."""
    return c.call("_stack_steps", outputs, steps=products.shape[0])


def _one_way(c: Caller, step: Step, input: Any, hidden: Hidden, weights: Weights) -> tuple[Any, Hidden]:
    products = times(c, input, weights.ih, weights.bias_ih)
    inputs = parts(c.call("unbind", products, dim=0))
    outputs, last = _steps(c, step, inputs, hidden, weights)
    stacked = _stacked(c, outputs, products)
    c.drop(*outputs[:-1], *inputs, products)
    return stacked, last


def _both_ways(c: Caller, step: Step, input: Any, hiddens: Sequence[Hidden], weights: Sequence[Weights]) -> tuple[Any, list[Hidden]]:
    """The products of the way there live until those of the way back are taken apart."""
    there, back = weights
    products = times(c, input, there.ih, there.bias_ih)
    inputs = parts(c.call("unbind", products, dim=0))
    forward, last = _steps(c, step, inputs, hiddens[0], there)
    one = _stacked(c, forward, products)
    again = times(c, input, back.ih, back.bias_ih)
    c.drop(*inputs, products)
    inputs = parts(c.call("unbind", again, dim=0))
    backward, first = _steps(c, step, inputs[::-1], hiddens[1], back)
    other = _stacked(c, backward[::-1], again)
    joined = c.call("cat", [one, other], dim=2)
    c.drop(one, other, *forward[:-1], *backward[:-1], *inputs, again)
    return joined, [last, first]


def layered(
    c: Caller,
    cell: str,
    input: Any,
    hiddens: list[Hidden],
    weights: list[Weights],
    dropout: float,
    training: bool,
    directions: int,
    ways: tuple[Any, Any] = (_one_way, _both_ways),
) -> tuple[Any, list[Hidden]]:
    """``apply_layer_stack``: the last layer's output, and the hidden states of all layers and directions; ``ways`` are a layer in one
    direction, and in both."""
    step, (one_way, both_ways) = STEPS[cell], ways
    current, finals = input, []
    for at in range(0, len(weights), directions):
        if directions == 2:
            output, last = both_ways(c, step, current, hiddens[at : at + 2], weights[at : at + 2])
        else:
            output, one = one_way(c, step, current, hiddens[at], weights[at])
            last = [one]
        finals.extend(last)
        if at:
            c.drop(current)
        current = output
        if dropout and training and at + directions < len(weights):
            current = c.call("dropout", output, p=dropout, training=True)
            c.drop(output)
    return current, finals


def _checked(c: Caller, input: Any, states: Sequence[Any], num_layers: int, directions: int) -> None:
    refuse_on_cuda(c, "a recurrent layer")
    if len(input.shape) != 3 or any(len(s.shape) != 3 for s in states):
        raise ShapeError(f"a recurrent layer takes an input of three dims and hidden states of three, got {list(input.shape)}")
    if any(s.shape[0] != num_layers * directions for s in states):
        raise ShapeError(f"{num_layers} layers of {directions} directions need as many hidden states, got {states[0].shape[0]}")
    if 0 in input.shape:
        raise UnsupportedError("a recurrent layer over an empty sequence is not modelled")


def one_hidden(cell: str) -> Any:
    """``gru``, ``rnn_tanh``, ``rnn_relu``."""

    def compose(
        c: Caller,
        input: Any,
        hx: Any,
        params: list[Any],
        *,
        has_biases: bool,
        num_layers: int,
        dropout: float,
        training: bool | None,
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:
        directions = 2 if bidirectional else 1
        _checked(c, input, (hx,), num_layers, directions)
        sequence = c.call("transpose", input, dim0=0, dim1=1) if batch_first else input
        weights = gathered(params, has_biases, False, num_layers * directions)
        hiddens: list[Hidden] = [(h,) for h in parts(c.call("unbind", hx, dim=0))]
        output, finals = layered(c, cell, sequence, hiddens, weights, dropout, trains(c, training), directions)
        last = c.call("stack", [h for (h,) in finals], dim=0)
        return c.call("transpose", output, dim0=0, dim1=1) if batch_first else output, last

    return compose


def trains(c: Caller, training: bool | None) -> bool:
    """Whether dropout is on."""
    return c.training if training is None else training


def lstm(
    c: Caller,
    input: Any,
    hx: Any,
    cx: Any,
    params: list[Any],
    *,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    training: bool | None,
    bidirectional: bool,
    batch_first: bool,
) -> Any:
    """``lstm``: oneDNN's where it can, else step by step."""
    directions = 2 if bidirectional else 1
    _checked(c, input, (hx, cx), num_layers, directions)
    projected = hx.shape[2] != cx.shape[2]
    weights = gathered(params, has_biases, projected, num_layers * directions)
    trained = trains(c, training)
    sequence = c.call("transpose", input, dim0=0, dim1=1) if batch_first else input
    if not projected and is_onednn(c, input, weights[0]):
        output, hy, cy = _by_onednn(c, sequence, hx, cx, weights, has_biases, dropout, trained, directions)
    else:
        hiddens: list[Hidden] = list(zip(parts(c.call("unbind", hx, dim=0)), parts(c.call("unbind", cx, dim=0)), strict=True))
        output, finals = layered(c, "lstm", sequence, hiddens, weights, dropout, trained, directions)
        cy = c.call("stack", [one for _, one in finals], dim=0)  # arguments of one call: the last first
        hy = c.call("stack", [h for h, _ in finals], dim=0)
    return c.call("transpose", output, dim0=0, dim1=1) if batch_first else output, hy, cy


def is_onednn(c: Caller, input: Any, weights: Weights) -> bool:
    """``use_mkldnn``; never of quantized weights."""
    if weights.ih.spec.dtype in QUANTIZED and weights.ih.spec.dtype != input.spec.dtype:
        return False
    if input.spec.dtype == "bfloat16" and c.target.cpu.isa == "avx512":
        raise UnsupportedError("an LSTM in bfloat16 on avx512 runs oneDNN's kernels, which are modelled in float32 alone; use float32")
    return bool(input.spec.dtype == "float32")


def _by_onednn(
    c: Caller, input: Any, hx: Any, cx: Any, weights: list[Weights], has_biases: bool, dropout: float, trained: bool, directions: int
) -> tuple[Any, Any, Any]:
    """``mkldnn_rnn``: a call for each layer and direction."""
    source, states, cells = (c.call("contiguous", t) for t in (input, hx, cx))
    current = source
    outputs: list[Any] = [None] * directions
    finals: list[Any] = []
    for at in range(0, len(weights), directions):
        for d in range(directions):
            one = weights[at + d]
            h, s = c.call("select", states, dim=0, index=at + d), c.call("select", cells, dim=0, index=at + d)
            biases = [one.bias_ih, one.bias_hh] if has_biases else _zeros(c, one)
            made = c.call(
                "mkldnn_rnn_layer", current, one.ih, one.hh, *biases, h, s,
                reverse=bool(d), has_biases=has_biases, keeps_workspace=c.grad_mode, one_state=hx.storage is cx.storage,
            )  # fmt: skip
            output, hy, cy, workspace = made
            c.drop(outputs[d] if directions == 2 else None, workspace, h, s, *(() if has_biases else biases))
            outputs[d] = output
            finals.append((hy, cy))
        before, current = current, outputs[0] if directions == 1 else c.call("cat", outputs, dim=2)
        if at:
            c.drop(before)
        if dropout and trained and at + directions < len(weights):
            kept = c.call("dropout", current, p=dropout, training=True)
            c.drop(current)
            current = kept
    return current, c.call("stack", [h for h, _ in finals], dim=0), c.call("stack", [s for _, s in finals], dim=0)


def _zeros(c: Caller, weights: Weights) -> list[Any]:
    """What is given for absent biases: zeros as large as the weights, the second made first."""
    second = c.call("zeros", shape=tuple(weights.hh.shape))
    return [c.call("zeros", shape=tuple(weights.ih.shape)), second]
