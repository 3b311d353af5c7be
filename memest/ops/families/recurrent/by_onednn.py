"""One layer of an LSTM in one direction by oneDNN (``mkldnn_rnn_layer``).

Kept are the operands, what the layer gives, and a workspace that oneDNN fills. Source: aten/src/ATen/native/mkldnn/RNN.cpp; what oneDNN
asks for: :mod:`memest.libraries.onednn.lstm`.
"""

from __future__ import annotations

from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.libraries.onednn.lstm import Buffers, Layer
from memest.ops.aten.copies import clone, contiguous
from memest.ops.tape import Tape, Tensor

OPERANDS = ("input", "weight0", "weight1", "weight2", "weight3", "hx", "cx")
KEPT = (*OPERANDS, "output", "hy", "cy", "workspace")
Saved = dict[str, Any]


def _layer(input: Tensor, weight_ih: Tensor, weight_hh: Tensor) -> Layer:
    if input.dtype != "float32" or weight_ih.dtype != "float32":
        raise UnsupportedError(f"oneDNN's LSTM is modelled in float32, got {input.dtype} and {weight_ih.dtype}")
    steps, batch, features = input.shape
    rows, hidden = weight_hh.shape
    if weight_ih.shape != (rows, features) or rows != 4 * hidden:
        shapes = f"{list(weight_ih.shape)} and {list(weight_hh.shape)}"
        raise ShapeError(f"an LSTM's weights of shapes {shapes} do not take an input of {features} features")
    return Layer(steps, batch, features, hidden)


def _bias(k: Tape, layer: Layer, one: Tensor, other: Tensor, has_biases: bool) -> Tensor:
    if has_biases and not one.shape == other.shape == (layer.gates,):
        raise ShapeError(f"an LSTM of {layer.hidden} features needs biases of {layer.gates}, got {list(one.shape)}")
    return k.empty((layer.gates,), one.dtype)


def _run(k: Tape, buffers: Buffers, *between: int) -> None:
    """What oneDNN asks for and gives back: weights, what stands ``between``, and the scratchpad."""
    weights = [k.scratch(n) for n in buffers[:2] if n]
    made = [*weights, *(k.scratch(n) for n in between), k.scratch(buffers.scratchpad)]
    k.free(*reversed(made))


def forward(
    k: Tape,
    input: Tensor,
    weight0: Tensor,
    weight1: Tensor,
    weight2: Tensor,
    weight3: Tensor,
    hx: Tensor,
    cx: Tensor,
    *,
    reverse: bool,
    has_biases: bool,
    keeps_workspace: bool,
    one_state: bool,
) -> tuple[Tensor | None, ...]:
    """``mkldnn_rnn_layer``: with gradients on, whoever wants them, the kernel of training runs."""
    k.save(cx=cx, hx=hx, input=input, weight0=weight0, weight1=weight1, weight2=weight2, weight3=weight3)
    layer = _layer(input, weight0, weight1)
    output = k.empty((layer.steps, layer.batch, layer.hidden))
    hy, cy = k.empty(hx.shape), k.empty(cx.shape)
    contiguous(k, weight0), contiguous(k, weight1)
    _bias(k, layer, weight2, weight3, has_biases)
    workspace = k.empty((layer.workspace_bytes(),), "uint8") if keeps_workspace else None
    _run(k, layer.training() if keeps_workspace else layer.inference(k.target.cpu))
    k.save(output=output, hy=hy, cy=cy, workspace=workspace)
    return output, hy, cy, workspace


def backward(
    k: Tape, saved: Saved, grads: list[Tensor | None], *, reverse: bool, has_biases: bool, keeps_workspace: bool, one_state: bool
) -> list[Tensor | None]:
    """``mkldnn_rnn_layer_backward``: all gradients are made, whichever are wanted."""
    layer = _layer(saved["input"], saved["weight0"], saved["weight1"])
    for grad, like in zip(grads, (saved["output"], saved["hx"], saved["cx"]), strict=False):
        if grad is None:
            k.empty(like.shape)
        else:
            contiguous(k, grad)
    contiguous(k, saved["weight0"]), contiguous(k, saved["weight1"])
    _bias(k, layer, saved["weight2"], saved["weight3"], has_biases)
    if one_state:
        clone(k, saved["cx"])
    input, hx, cx, weight0, weight1 = (k.empty(saved[role].shape) for role in ("input", "hx", "cx", "weight0", "weight1"))
    bias = k.empty((layer.gates,))
    _run(k, layer.backward(), *layer.weight_gradients())
    return [input, weight0, weight1, bias, clone(k, bias), hx, cx]
