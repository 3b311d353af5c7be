"""One step of a recurrent cell, as ATen writes it on CPU: products and gates, chunk by chunk in place.

Source: aten/src/ATen/native/RNN.cpp (``SimpleCell``, ``LSTMCell``, ``GRUCell``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from memest.errors import ShapeError
from memest.ops.composite import Caller

Hidden = tuple[Any, ...]
QUANTIZED = {"int8": "linear_dynamic", "float16": "linear_dynamic_fp16"}


class Weights(NamedTuple):
    """What a layer owns in one direction; biases and the projection of the state may be absent."""

    ih: Any
    hh: Any
    bias_ih: Any = None
    bias_hh: Any = None
    hr: Any = None


Step = Callable[[Caller, Any, Hidden, Weights, bool], Hidden]
"""The next hidden state from the input (``ready``: its product with the weights) and the hidden state; nothing else is left."""


def over(c: Caller, op: str, target: Any, *others: Any) -> Any:
    """``target.op_(...)``: the result in its place, which this frame holds once."""
    result = c.call(op, target, *others, inplace=True)
    c.drop(target)
    return result


def parts(result: Any) -> tuple[Any, ...]:
    """What a call gives, also where that is one tensor."""
    return result if isinstance(result, tuple) else (result,)


def times(c: Caller, input: Any, weight: Any, bias: Any) -> Any:
    """``linear``; by weights that were quantized, what torch.ao.quantization.quantize_dynamic makes of it."""
    dtype = weight.spec.dtype
    return c.call("linear" if dtype == input.spec.dtype else QUANTIZED.get(dtype, "linear"), input, weight, bias)


def _chunks(c: Caller, gates: Any, count: int) -> tuple[Any, ...]:
    size = gates.shape[1]
    if size % count or size == 0:
        raise ShapeError(f"{size} rows of weights are not {count} gates")
    return parts(c.call("unsafe_split", gates, split_size=size // count, dim=1))


def _input_gates(c: Caller, input: Any, weights: Weights, ready: bool) -> Any:
    return input if ready else times(c, input, weights.ih, weights.bias_ih)


def _summed(c: Caller, input: Any, hidden: Any, weights: Weights, ready: bool) -> tuple[Any, Any]:
    """Both products, the state's first; their sum in its place, and the input's if it was made here."""
    gates = times(c, hidden, weights.hh, weights.bias_hh)
    products = _input_gates(c, input, weights, ready)
    return over(c, "add", gates, products), None if ready else products


def simple(activation: str) -> Step:
    """``SimpleCell``."""

    def step(c: Caller, input: Any, hidden: Hidden, weights: Weights, ready: bool) -> Hidden:
        gates, products = _summed(c, input, hidden[0], weights, ready)
        result = c.call(activation, gates)
        c.drop(gates, products)
        return (result,)

    return step


def lstm(c: Caller, input: Any, hidden: Hidden, weights: Weights, ready: bool) -> Hidden:
    """``LSTMCell``."""
    state, cell = hidden
    gates, products = _summed(c, input, state, weights, ready)
    c.drop(products)
    chunks = _chunks(c, gates, 4)
    ingate, forget, new, out = (over(c, op, t) for op, t in zip(("sigmoid", "sigmoid", "tanh", "sigmoid"), chunks, strict=True))
    kept, added = c.call("mul", forget, cell), c.call("mul", ingate, new)
    cy = over(c, "add", kept, added)
    c.drop(added)
    shown = c.call("tanh", cy)
    hy = c.call("mul", out, shown)
    c.drop(shown)
    if weights.hr is not None:
        turned = c.call("t", weights.hr)
        projected = c.call("matmul", hy, turned)
        c.drop(turned, hy)
        hy = projected
    c.drop(ingate, forget, new, out, gates)
    return hy, cy


def gru(c: Caller, input: Any, hidden: Hidden, weights: Weights, ready: bool) -> Hidden:
    """``GRUCell``."""
    (state,) = hidden
    inputs = _input_gates(c, input, weights, ready)
    reset_in, update_in, new_in = _chunks(c, inputs, 3)
    hiddens = times(c, state, weights.hh, weights.bias_hh)
    reset, update, scaled = _chunks(c, hiddens, 3)
    reset = over(c, "sigmoid", over(c, "add", reset, reset_in))
    update = over(c, "sigmoid", over(c, "add", update, update_in))
    scaled = over(c, "mul", scaled, reset)
    new = over(c, "tanh", c.call("add", new_in, scaled))
    result = over(c, "add", over(c, "mul", c.call("sub", state, new), update), new)
    c.drop(new, reset, update, scaled, hiddens, reset_in, update_in, new_in)
    if not ready:
        c.drop(inputs)
    return (result,)


STEPS: dict[str, Step] = {"lstm": lstm, "gru": gru, "rnn_tanh": simple("tanh"), "rnn_relu": simple("relu")}


def gathered(params: Sequence[Any], has_biases: bool, projected: bool, count: int) -> list[Weights]:
    """``gather_params``: the tensors of ``count`` layers and directions, in torch's order."""
    each = 2 + 2 * has_biases + projected
    if len(params) != count * each:
        raise ShapeError(f"{count} layers and directions have {count * each} weights, got {len(params)}")
    found = []
    for at in range(0, len(params), each):
        ih, hh, *rest = params[at : at + each]
        bias_ih, bias_hh = rest[:2] if has_biases else (None, None)
        found.append(Weights(ih, hh, bias_ih, bias_hh, rest[-1] if projected else None))
    return found
