"""Matrix products and attention."""

from __future__ import annotations

from memest.runtimes.onnxruntime.contracting import is_pair
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


def _addmm(c: Call) -> Value:
    """One node where it is of matrices; in a batch a product and a sum."""
    left, right = c.tensors[1], c.tensors[2]
    if len(left.shape) == 2:
        return c.put("Gemm", [left, right, c.input])
    return c.put("Add", [c.put("MatMul", [left, right]), c.input])


def _attention(c: Call) -> Value:
    """Both factors scaled, the keys turned around, a mask added."""
    query, key, value, mask = (c[role] for role in ("query", "key", "value", "attn_mask"))
    if c["enable_gqa"] or query.shape[:-2] != key.shape[:-2]:
        raise c.refuse("attention with groups of queries")
    found = attended(c, query, key, value, c.constant((query.shape[-2], key.shape[-2])) if c["is_causal"] else mask)
    return found


def attended(c: Call, query: Value, key: Value, value: Value, mask: Value | None) -> Value:
    """softmax(q k + mask) v, as the exporter writes it."""
    rank = len(key.shape)
    turned = c.transposed(key, (*range(rank - 2), rank - 1, rank - 2))
    factors = [c.put("Mul", [v, c.constant((1,))], v.shape) for v in (query, turned)]
    shape = (*query.shape[:-1], key.shape[-2])
    scores = c.put("MatMul", factors, shape)
    if mask is not None:
        if mask.dtype == "bool":
            mask = c.put("Where", [mask, c.constant(), c.constant()], mask.shape)
        scores = c.put("Add", [scores, mask], shape)
    return c.put("MatMul", [c.put("Softmax", [scores], shape, axis=-1), value], (*shape[:-1], value.shape[-1]))


def _multi_head(c: Call) -> Value | list[Value | None]:
    """nn.MultiheadAttention of one tensor, batch first, as it is exported: (L, N, E) inside."""
    query, key, value = c["query"], c["key"], c["value"]
    if key is not query or value is not query or c["need_weights"]:
        raise c.refuse("multi-head attention over several tensors, or with its weights")
    n, length, width = query.shape
    heads = c["num_head"]
    inner = c.transposed(query, (1, 0, 2))
    all_three = c.put("MatMul", [inner, c.transposed(c["qkv_weight"], (1, 0))], (length, n, 3 * width))
    all_three = c.put("Add", [all_three, c["qkv_bias"]], all_three.shape)
    apart = c.sizes(all_three, (length, n, 3, width))
    one = c.constant((1,), "int64")
    apart = c.transposed(c.put("Unsqueeze", [apart, one], (1, length, n, 3, width)), (3, 1, 2, 0, 4))
    apart = c.put("Squeeze", [apart, one], (3, length, n, width))
    parts = [c.put("Gather", [apart, c.constant((), "int64")], (length, n, width), axis=0, index=i) for i in range(3)]
    split = [c.transposed(c.sizes(part, (length, n * heads, width // heads)), (1, 0, 2)) for part in parts]
    q, k, v = (c.sizes(part, (n, heads, length, width // heads)) for part in split)
    found = c.transposed(attended(c, q, k, v, c["mask"]), (2, 0, 1, 3))
    found = c.put("Gemm", [c.sizes(found, (length * n, width)), c["proj_weight"], c["proj_bias"]], (length * n, width))
    return [c.transposed(c.sizes(found, (length, n, width)), (1, 0, 2)), None]


def _einsum(c: Call) -> Value:
    operands, equation = c.tensors[0], c["equation"]
    if not is_pair(equation, [v.shape for v in operands]):
        raise c.refuse(f"einsum {equation!r}, of other than two operands, or summing what one of them has alone,")
    return c.put("Einsum", operands, equation=equation)


HANDLERS: dict[str, Handler] = {
    "linear": _linear,
    **dict.fromkeys(("matmul", "bmm", "mm"), _matmul),
    **dict.fromkeys(("addmm", "baddbmm"), _addmm),
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    **dict.fromkeys(("_multi_head", "_native_multi_head_attention"), _multi_head),
}
