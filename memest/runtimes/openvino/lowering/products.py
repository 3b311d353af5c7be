"""Convolutions, products of matrices, attention.

Source: openvino/src/frontends/onnx (what torch's exporters write), common/transformations (MatMul with constant weights becomes a
FullyConnected, a transposition of its operands an attribute), intel_cpu/src/nodes/{conv,deconv,fullyconnected,matmul}.cpp.
"""

from __future__ import annotations

from math import prod
from typing import Any

from memest.errors import UnsupportedError
from memest.network.graph import Layer
from memest.ops.equations import parsed
from memest.runtimes.openvino.lowering.translation import Translate, Translation


def _convolution(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    kind = "Deconvolution" if a.get("transposed") or "conv_transpose" in layer.op else "Convolution"
    if len(t.shapes[b["input"]]) != len(t.shapes[b["weight"]]):
        raise UnsupportedError("a convolution of one image without a batch: no rule for it on openvino; give it a batch of 1")
    if not t.is_constant(b["weight"]):
        raise UnsupportedError("a convolution with weights that are computed: no rule for it on openvino")
    if kind == "Deconvolution":
        _check_transposed(a, len(t.shapes[b["input"]]) - 2)
    reads = [b["input"], b["weight"], *([b["bias"]] if b["bias"] else [])]
    t.give(layer, t.add(kind, reads, t.made(layer)))


def _check_transposed(a: dict[str, Any], dims: int) -> None:
    """Other kernels want other layouts: channels in blocks, or rows."""
    if dims == 1:
        raise UnsupportedError("a transposed convolution of one dim: no rule for it on openvino")
    if a["groups"] != 1 and dims == 2:
        raise UnsupportedError("a transposed convolution in groups: no rule for it on openvino")
    if _is_dilated(a):
        raise UnsupportedError("a transposed convolution with a dilation: no rule for it on openvino")


def _is_dilated(a: dict[str, Any]) -> bool:
    given = a["dilation"]
    return any(n != 1 for n in ((given,) if isinstance(given, int) else given))


def _linear(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    reads = [b["input"], b["weight"], *([b["bias"]] if b["bias"] else [])]
    t.give(layer, t.add("FullyConnected", reads, t.made(layer)))


def _matmul(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    x, y = b["input"], b["other"] if "other" in b else b["mat2"]
    kind = "FullyConnected" if t.is_constant(y) else "MatMul"
    reads = (x, y) if kind == "FullyConnected" else (t.before_transposition(x), t.before_transposition(y))
    t.give(layer, t.add(kind, reads, t.made(layer)))


def _addmm(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    x, y = (b["mat1"], b["mat2"]) if "mat1" in b else (b["batch1"], b["batch2"])
    if t.is_constant(y) and t.is_constant(b["input"]) and len(t.shapes[b["input"]]) == 1:
        t.give(layer, t.add("FullyConnected", (x, y, b["input"]), t.made(layer)))
    else:
        made = t.add("MatMul", (x, y), t.made(layer))
        t.give(layer, t.eltwise("add", made, b["input"], shape=t.made(layer)))


def _einsum(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    """Two operands of which one product of matrices is made as they lie: labels of all three in front, one of each alone, one that is
    summed. The plugin turns the last two dims of either operand around itself."""
    operands, equation = b["operands"], a["equation"]
    inputs, output = parsed(equation, [t.shapes[v] for v in operands])
    if len(operands) == 2:
        first, second = inputs
        outer = [label for label in output if label in first and label in second]
        alone = [[label for label in labels if label in output and label not in outer] for labels in inputs]
        summed = [label for label in first if label in second and label not in output]
        lie = all(labels[: len(outer)] == outer and len(labels) == len(outer) + 2 for labels in inputs)
        if lie and [len(part) for part in (*alone, summed)] == [1, 1, 1] and output == [*outer, *alone[0], *alone[1]]:
            kind = "FullyConnected" if t.is_constant(operands[1]) else "MatMul"
            t.give(layer, t.add(kind, operands, t.made(layer)))
            return
    raise UnsupportedError(f"einsum {equation!r}: no rule for it on openvino, but for one product of matrices as they lie; permute first")


def attention(t: Translation, q: str, k: str, v: str, mask: str | None, *, causal: bool = False) -> str:
    """As torch's exporters write it: half of the scale goes to each of query and key, which is transposed for the first product."""
    if causal:
        raise UnsupportedError("attention with is_causal: no rule for it on openvino; give it the mask")
    query = t.eltwise("multiply", q)
    *outer, length, width = t.shapes[k]
    if len(outer) > 1:
        flat = t.reshape(t.transpose(t.reshape(k, (prod(outer), length, width)), (0, 2, 1)), (*outer, width, length))
    else:
        flat = t.transpose(k, (0, 2, 1))
    key = t.eltwise("multiply", flat)
    scores = t.add("MatMul", (query, key), (*t.shapes[q][:-1], length))
    if mask is not None:
        scores = t.eltwise("add", scores, mask)
    weights = t.add("Softmax", (scores,), t.shapes[scores], f"axis {len(t.shapes[scores]) - 1}")
    return t.add("MatMul", (weights, v), (*t.shapes[q][:-1], t.shapes[v][-1]))


def _attention(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    t.give(layer, attention(t, b["query"], b["key"], b["value"], b["attn_mask"], causal=a["is_causal"]))


def _multi_head(t: Translation, layer: Layer, a: dict[str, Any], b: dict[str, Any]) -> None:
    """``torch.nn.MultiheadAttention`` of one input: written out, sequence first (torch.nn.functional.multi_head_attention_forward)."""
    if not b["query"] == b["key"] == b["value"] or a["need_weights"]:
        raise UnsupportedError("multi-head attention of several inputs, or whose weights are wanted: no rule for it on openvino")
    batch, length, width = t.shapes[b["query"]]
    heads = a["num_head"]
    x = t.transpose(b["query"], (1, 0, 2))
    packed = t.add("FullyConnected", (x, b["qkv_weight"], b["qkv_bias"]), (length, batch, 3 * width))
    apart = t.transpose(t.reshape(packed, (1, length, batch, 3, width)), (3, 1, 2, 0, 4))
    stacked = t.reshape(apart, (3, length, batch, width))
    parts = [t.add("Gather", (stacked,), (length, batch, width), "axis 0") for _ in range(3)]
    each = [t.transpose(t.reshape(p, (length, batch * heads, width // heads)), (1, 0, 2)) for p in parts]
    q, k, v = (t.reshape(e, (batch, heads, length, width // heads)) for e in each)
    joined = t.transpose(attention(t, q, k, v, b["mask"]), (2, 0, 1, 3))
    flat = t.reshape(joined, (length * batch, width))
    made = t.add("FullyConnected", (flat, b["proj_weight"], b["proj_bias"]), (length * batch, width))
    t.give(layer, t.transpose(t.reshape(made, (length, batch, width)), (1, 0, 2)))


TABLE: dict[str, Translate] = {
    **dict.fromkeys(
        ("convolution", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _convolution
    ),
    "linear": _linear,
    **dict.fromkeys(("matmul", "bmm", "mm"), _matmul),
    **dict.fromkeys(("addmm", "baddbmm"), _addmm),
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    "_native_multi_head_attention": _multi_head,
}
