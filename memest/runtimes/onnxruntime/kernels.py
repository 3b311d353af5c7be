"""What ONNX Runtime's kernels do besides making their outputs: share or take over an input, and ask for temporaries.

Sources: the registrations in onnxruntime/core/providers/cpu (``Alias``, ``MayInplace``); temporaries of conv.cc, conv_transpose.cc,
softmax, lrn.cc and MLAS (mlas/lib/convolve.cpp, ``MlasConvPrepare``), each measured at one, two and four threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memest.network.dtypes import ITEMSIZE
from memest.network.tensor import broadcast, numel
from memest.runtimes.onnxruntime.contracting import copied
from memest.runtimes.onnxruntime.lowering.nodes import VIEWS, Node

FIRST = ((0, 0),)
IN_PLACE = frozenset(
    {
        *("Relu", "Sigmoid", "Tanh", "Elu", "LeakyRelu", "HardSigmoid", "Selu", "Celu", "Softplus", "Softsign", "ThresholdedRelu"),
        *("Clip", "Cast", "Softmax", "LogSoftmax", "Shrink", "Trilu", "ScatterElements"),
    }
)
"""Of one input. Abs, Neg, Exp, Log, Sqrt, Erf and the like are none, nor is anything of two (measured on 1.32, one operator a network)."""


def aliased(node: Node) -> tuple[tuple[int, int], ...]:
    """Inputs whose buffer an output must share: pairs of slots."""
    return FIRST if node.op in VIEWS else ()


def in_place(node: Node) -> tuple[tuple[int, int], ...]:
    """Inputs whose buffer an output takes over where they die with the call, in the order in which they are tried."""
    if node.op in IN_PLACE:
        return FIRST
    if node.op in ("nchwc:Conv", "FusedConv") and len(node.inputs) > 3:
        return ((3, 0),)
    return ()


RESULT_LAST = frozenset({"Einsum", "Where"})
"""Kernels that ask for their result when the temporaries are there."""
SEGMENT = 64 * 1024  # bytes of one thread's share: MLAS_SGEMM_STRIDEN * MLAS_SGEMM_STRIDEK * 4


def temporaries(node: Node, threads: int) -> Sequence[int]:
    """Bytes of what a call asks for while it runs, all of it alive at once."""
    rule = RULES.get(node.op)
    return [n for n in rule(node, threads) if n] if rule is not None else []


def _conv(node: Node, threads: int) -> Sequence[int]:
    """MLAS: a pointwise one none; few voxels, the whole im2col of an image; else a piece a thread."""
    weight = node.inputs[1]
    assert weight is not None
    source, result, group = node.source.shape, node.result.shape, node.attributes["group"]
    kernel, batch = node.attributes["kernel"], source[0]
    outputs, filters = numel(result[2:]), weight.shape[0] // group
    k = weight.shape[1] * numel(kernel)
    plain = all(n == 1 for n in kernel) and all(s == 1 for s in node.attributes["strides"]) and not any(node.attributes["pads"])
    if plain:
        return ()
    if outputs < filters:
        return (k * outputs * 4,)
    several = batch * group
    return (SEGMENT * (min(threads, several) if several > 1 else threads),)


def _conv_transpose(node: Node, threads: int) -> Sequence[int]:
    weight = node.inputs[1]
    assert weight is not None
    return (numel(weight.shape[1:]) * numel(node.source.shape[2:]) * 4,)


def _softmax(node: Node, threads: int) -> Sequence[int]:
    """Not on the last axis: the input and the result transposed."""
    rank = len(node.result.shape)
    return () if node.attributes["axis"] % rank == rank - 1 else (node.result.nbytes, node.result.nbytes)


def _lrn(node: Node, threads: int) -> Sequence[int]:
    _, c, *sizes = node.source.shape
    return node.source.nbytes, (c + node.attributes["size"] - 1) * numel(sizes) * ITEMSIZE[node.source.dtype]


def _resize(node: Node, threads: int) -> Sequence[int]:
    """Linear: two indices and two weights a line of an image, three of a volume (upsample.cc, ``SetupUpsampleBilinear``)."""
    sizes = node.result.shape[2:]
    if node.attributes["mode"] != "linear" or len(sizes) not in (2, 3):
        return ()
    return ((16 if len(sizes) == 2 else 24) * sum(sizes),)


def _where(node: Node, threads: int) -> Sequence[int]:
    """tensor/where_op.cc: what is taken of either, each as large as it and the condition; then they are merged."""
    condition, *either = (v for v in node.inputs if v is not None)
    return [numel(broadcast(condition.shape, v.shape)) * ITEMSIZE[node.result.dtype] for v in either]


def _einsum(node: Node, threads: int) -> Sequence[int]:
    operands = [v for v in node.inputs if v is not None]
    return copied(node.attributes["equation"], [v.shape for v in operands], [v.nbytes for v in operands], node.result.nbytes)


def _lstm(node: Node, threads: int) -> Sequence[int]:
    """rnn/uni_directional_lstm.cc, ``AllocateBuffers``: of each direction states, all gates of all steps, and biases summed up; before them
    the final states that nobody asked for (deep_cpu_lstm.h), the cell's always."""
    steps, batch, features, directions, hidden = _recurrent(node)
    one, all_of = hidden * 4, batch * hidden * 4
    asked = [directions * all_of] * (3 - len(node.outputs))
    for direction in range(directions):
        asked += [one, one, all_of, all_of, all_of, steps * 4 * all_of, *[one] * (4 if node.inputs[3] is not None else 0)]
        asked += _reversed(direction, steps, batch, features, hidden)
    return [*asked, *[batch * 4] * directions]


def _gru(node: Node, threads: int) -> Sequence[int]:
    """rnn/deep_cpu_gru.cc, ``AllocateBuffers``: of each direction two states, biases as often as there are samples, and all gates."""
    steps, batch, features, directions, hidden = _recurrent(node)
    all_of = batch * hidden * 4
    asked = [directions * all_of] * (2 - len(node.outputs))
    for direction in range(directions):
        asked += [all_of] * (7 if node.inputs[3] is not None else 3)
        asked += [steps * 3 * all_of, *_reversed(direction, steps, batch, features, hidden)]
    return [*asked, *[batch * 4] * directions]


def _recurrent(node: Node) -> tuple[int, int, int, int, int]:
    """Steps, batch, features, directions, and hidden numbers."""
    steps, directions, batch, hidden = node.result.shape
    return steps, batch, node.source.shape[2], directions, hidden


def _reversed(direction: int, steps: int, batch: int, features: int, hidden: int) -> Sequence[int]:
    """Backwards: inputs and outputs the other way round."""
    return (steps * batch * features * 4, steps * batch * hidden * 4) if direction else ()


RULES: dict[str, Callable[[Node, int], Sequence[int]]] = {
    **dict.fromkeys(("Conv", "FusedConv"), _conv),
    "ConvTranspose": _conv_transpose,
    **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
    "LRN": _lrn,
    "Resize": _resize,
    "Einsum": _einsum,
    "Where": _where,
    "LSTM": _lstm,
    "GRU": _gru,
}
