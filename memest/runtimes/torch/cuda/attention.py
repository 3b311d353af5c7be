"""Scaled dot product attention on CUDA: by cuDNN, the flash kernel, the memory-efficient one, or single operators
(:mod:`memest.runtimes.torch.cuda.attention_choice` says which)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from memest.ops.composite import Caller, Composite
from memest.ops.facts import EVERYWHERE_FACTS
from memest.ops.families.attention.rows import COMPOSITE_ROWS, CUDNN, FLASH, MATH, by_single_operators, check_operands, flash_flops
from memest.ops.operator import Attribute, Example, Operator, flag, number, optional
from memest.runtimes.torch.cuda import attention_cudnn, attention_efficient, attention_flash
from memest.runtimes.torch.cuda.attention_choice import GROUPED_EFFICIENT, Call, chosen

HEAD_UNIT = 8
MASK_UNIT = 8


def _attention(
    c: Caller,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any,
    *,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
    backends: tuple[str, ...] | None,
) -> Any:
    check_operands(query, key, value, attn_mask, is_causal)
    alone = c.target.version >= GROUPED_EFFICIENT and len(query.shape) == len(key.shape) == len(value.shape) == 3
    if alone:
        query, key, value = (c.call("unsqueeze", t, dim=0) for t in (query, key, value))
        if attn_mask is not None and len(attn_mask.shape) == 3:
            attn_mask = c.call("unsqueeze", attn_mask, dim=0)
    trained = c.grad_mode and any(t.requires_grad for t in (query, key, value))
    call = Call(
        query=query,
        key=key,
        value=value,
        mask=attn_mask,
        dropout_p=dropout_p,
        is_causal=is_causal,
        enable_gqa=enable_gqa,
        trained=trained,
        backends=backends,
    )
    kernel = chosen(c.target, call)
    converted = attn_mask is not None and attn_mask.spec.dtype == "bool"
    if converted:
        attn_mask = c.call("_additive_mask", attn_mask, dtype=query.spec.dtype)
    if kernel == MATH:
        out = by_single_operators(c, query, key, value, attn_mask, dropout_p, is_causal, enable_gqa)
    elif kernel == FLASH:
        out = _by_flash(c, query, key, value, dropout_p, is_causal)
    else:
        name = "_scaled_dot_product_cudnn_attention" if kernel == CUDNN else "_scaled_dot_product_efficient_attention"
        if attn_mask is not None:
            given, attn_mask = attn_mask, _spread(c, attn_mask, query, key, aligned=kernel != CUDNN)
            c.drop(given if converted and attn_mask is not given else None)
        out = c.call(name, query, key, value, attn_mask, dropout_p=dropout_p, is_causal=is_causal, scale=scale)
    return c.call("squeeze", out, dim=0) if alone else out


def _by_flash(c: Caller, query: Any, key: Any, value: Any, dropout_p: float, is_causal: bool) -> Any:
    """Heads are padded to a multiple of eight, and the result is cut."""
    size = query.shape[3]
    if size % HEAD_UNIT:
        query, key, value = (c.call("pad", t, pad=(0, HEAD_UNIT - size % HEAD_UNIT)) for t in (query, key, value))
    out = c.call("_scaled_dot_product_flash_attention", query, key, value, dropout_p=dropout_p, is_causal=is_causal)
    return c.call("slice", out, dim=-1, start=0, end=size) if size % HEAD_UNIT else out


def _spread(c: Caller, mask: Any, query: Any, key: Any, *, aligned: bool) -> Any:
    """``preprocess_mask``: rows that do not begin at multiples of eight elements are padded, then cut; the mask is expanded."""
    strides = mask.spec.strides
    if aligned and (any(step % MASK_UNIT for step in strides[:-1]) or strides[-1] != 1):
        last = mask.shape[-1]
        padded = c.call("pad", mask, pad=(0, MASK_UNIT - last % MASK_UNIT))
        mask = c.call("slice", padded, dim=-1, start=0, end=last)
    return c.call("expand", mask, size=(*query.shape[:3], key.shape[2])) if aligned else mask


SOURCE = "aten/src/ATen/native/transformers/attention.cpp, cuda/attention.cu, cuda/attention_backward.cu"
ASKED = (
    Attribute(name="dropout_p", default=0.0, check=number),
    Attribute(name="is_causal", default=False, check=flag),
)
SCALE = Attribute(name="scale", default=None, check=optional(number))
HEADS = ((2, 3, 10, 16), (2, 3, 12, 16), (2, 3, 12, 16))
KEPT = ("query", "key", "value", "attn_mask", "output", "logsumexp")
FACTS = EVERYWHERE_FACTS.but(flops=flash_flops)

ROWS: tuple[Operator | Composite, ...] = (
    Operator(
        name="_scaled_dot_product_flash_attention",
        torch="torch.ops.aten._scaled_dot_product_flash_attention",
        roles=("query", "key", "value"),
        attributes=ASKED,
        forward=attention_flash.forward,
        saves=("query", "key", "value", "output", "logsumexp", "seeds", "unused"),
        backward=attention_flash.backward,
        examples=(Example(shapes=HEADS, attributes={}, dtypes=("float16",) * 3),),
        facts=FACTS,
        source=f"derivatives.yaml: _scaled_dot_product_flash_attention; {SOURCE}",
    ),
    Operator(
        name="_scaled_dot_product_efficient_attention",
        torch="torch.ops.aten._scaled_dot_product_efficient_attention",
        roles=("query", "key", "value", "attn_mask?"),
        attributes=(*ASKED, SCALE),
        forward=attention_efficient.forward,
        saves=(*KEPT, "seed0", "seed1"),
        backward=attention_efficient.backward,
        examples=(Example(shapes=(*HEADS, None), attributes={}),),
        facts=FACTS,
        source=f"derivatives.yaml: _scaled_dot_product_efficient_attention; {SOURCE}",
    ),
    Operator(
        name="_scaled_dot_product_cudnn_attention",
        torch="torch.ops.aten._scaled_dot_product_cudnn_attention",
        roles=("query", "key", "value", "attn_mask?"),
        attributes=(*ASKED, SCALE),
        forward=attention_cudnn.forward,
        saves=(*KEPT, "seed0", "seed1"),
        backward=attention_cudnn.backward,
        examples=(Example(shapes=(*HEADS, None), attributes={}, dtypes=("float16",) * 3),),
        facts=FACTS,
        source=f"derivatives.yaml: _scaled_dot_product_cudnn_attention; {SOURCE}",
    ),
    *(replace(row, compose=_attention) for row in COMPOSITE_ROWS if row.name == "scaled_dot_product_attention"),
)
SAME = ("_additive_mask", "_causal_mask", "_safe_softmax")
