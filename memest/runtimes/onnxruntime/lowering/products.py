"""Matrix products and attention."""

from __future__ import annotations

from memest.runtimes.onnxruntime.lowering.exporting import Call, Handler
from memest.runtimes.onnxruntime.lowering.nodes import Value


def _linear(c: Call) -> Value:
    source, weight, bias = c.input, c["weight"], c["bias"]
    if bias is not None and len(source.shape) == 2:
        return c.put("Gemm", [source, weight, bias])
    turned = c.transposed(weight, (1, 0))
    product = c.put("MatMul", [source, turned])
    return product if bias is None else c.put("Add", [product, bias])


def _matmul(c: Call) -> Value:
    return c.put("MatMul", [c.tensors[0], c.tensors[1]])


def _attention(c: Call) -> Value:
    raise c.refuse("attention")


HANDLERS: dict[str, Handler] = {
    "linear": _linear,
    **dict.fromkeys(("matmul", "bmm", "mm"), _matmul),
    "scaled_dot_product_attention": _attention,
}
