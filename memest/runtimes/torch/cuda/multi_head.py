"""Multi-head attention on CUDA: where it attends to itself and nobody asks for the weights, it is a linear layer, fused attention and
another linear layer; else the block of products that the CPU runs.

Source: aten/src/ATen/native/transformers/cuda/attention.cu (native_multi_head_attention_cuda).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from memest.ops.composite import Caller, Composite
from memest.ops.families.attention.multi_head import COMPOSITE_ROWS
from memest.ops.families.attention.rows import MATH
from memest.runtimes.torch.cuda.attention_choice import Call, chosen

SOURCE = "aten/src/ATen/native/transformers/cuda/attention.cu"


def _native_multi_head_attention(
    c: Caller,
    query: Any,
    key: Any,
    value: Any,
    qkv_weight: Any,
    qkv_bias: Any,
    proj_weight: Any,
    proj_bias: Any,
    mask: Any,
    *,
    embed_dim: int,
    num_head: int,
    need_weights: bool,
    average_attn_weights: bool,
) -> Any:
    if query is key is value and not need_weights and mask is None and len(query.shape) == 3:
        heads = _heads(c, query, num_head)
        if chosen(c.target, _asking(heads, heads, heads)) != MATH:
            packed = c.call("linear", query, qkv_weight, qkv_bias)
            parts = (c.call("slice", packed, dim=-1, start=i * embed_dim, end=(i + 1) * embed_dim) for i in range(3))
            out = c.call("scaled_dot_product_attention", *(_heads(c, part, num_head) for part in parts), None)
            flat = c.call("reshape", c.call("transpose", out, dim0=1, dim1=2), shape=tuple(query.shape))
            return c.call("linear", flat, proj_weight, proj_bias), None
    sharing = "none" if key is not value else "all" if query is key else "key_value"
    given = {"need_weights": need_weights, "average_attn_weights": average_attn_weights, "sharing": sharing}
    weights = (qkv_weight, qkv_bias, proj_weight, proj_bias)
    return c.call("_multi_head", query, key, value, *weights, mask, embed_dim=embed_dim, num_head=num_head, **given)


def _heads(c: Caller, t: Any, heads: int) -> Any:
    batch, length, size = t.shape
    return c.call("transpose", c.call("view", t, shape=(batch, length, heads, size // heads)), dim0=1, dim1=2)


def _asking(query: Any, key: Any, value: Any) -> Call:
    return Call(query=query, key=key, value=value, mask=None, dropout_p=0.0, is_causal=False, enable_gqa=False, trained=False)


ROWS: tuple[Composite, ...] = tuple(
    replace(row, compose=_native_multi_head_attention, source=f"{row.source}; {SOURCE}") for row in COMPOSITE_ROWS
)
SAME = ("_multi_head",)
