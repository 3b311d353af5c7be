"""Attention by cuDNN, the first choice for half types on Hopper and datacenter Blackwell.

What torch allocates is exact. The workspace of cuDNN's plan is modelled, by what plans of 9.19 were seen to take: no plan is made without
a card by newer ones. Forward needs next to none; backward adds to the query's gradient in float32, beside a number a query, and where heads
share keys holds the gradients of keys and values once for every head.

Sources: derivatives.yaml (_scaled_dot_product_cudnn_attention); aten/src/ATen/native/cudnn/MHA.cpp (``run_cudnn_SDP_fprop``, ``bprop``),
transformers/cuda/attention.cu; cudnn-frontend's scaled_dot_product_flash_attention.h (what its backward keeps in the workspace).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.ops.aten.iterator import empty_like, wants
from memest.ops.tape import Tape, Tensor

SEED_BYTES = 8
ALIGNMENT = 256
MOST_OF_FORWARD = 1 << 20


def forward(
    k: Tape, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, dropout_p: float, is_causal: bool, scale: float | None
) -> Tensor:
    """The result lies as the query does, as far as its sizes allow."""
    batch, heads, rows, _ = query.shape
    k.save(attn_mask=mask, key=key, query=query, value=value)
    seeds = [k.scratch(SEED_BYTES), k.scratch(SEED_BYTES)]
    out = _like_query(k, query, value.shape[3])
    sums = k.empty((batch, heads, rows, 1), "float32") if k.grad_enabled else None
    k.free(k.scratch(ALIGNMENT, spread=(0, MOST_OF_FORWARD)))
    k.save(logsumexp=sums, output=out)
    k.save(**{f"seed{i}": t for i, t in enumerate(seeds)})
    return out


def _like_query(k: Tape, query: Tensor, size: int) -> Tensor:
    """``alloc_with_matching_layout``: the query's order of dims, dense, with the values' size of a head."""
    shape = (*query.shape[:3], size)
    order = sorted(range(4), key=lambda d: query.strides[d])
    strides, step = [0] * 4, 1
    for d in order:
        strides[d] = step
        step = step * shape[d]
    return k.empty(shape, query.dtype, tuple(strides))


def backward(k: Tape, saved: dict[str, Any], grads: Sequence[Tensor | None], **attributes: Any) -> list[Tensor | None]:
    """All three gradients are made, wanted or not, and lie as their operands do."""
    (grad,) = grads
    assert grad is not None
    query, key, value = saved["query"], saved["key"], saved["value"]
    if grad.strides != saved["output"].strides:
        empty_like(k, saved["output"])
    made = [empty_like(k, t) for t in (query, key, value)]
    k.free(k.scratch(*_workspace(query, key, value)))
    return [t if wants(k, i) else None for i, t in enumerate([*made, None][: len(k.needs)])]


def _workspace(query: Tensor, key: Tensor, value: Tensor) -> tuple[int, tuple[int, int]]:
    batch, heads, rows, size = query.shape
    sums = 4 * batch * heads * rows
    shared = 0 if key.shape[1] == heads else 2 * batch * heads * key.shape[2] * (size + value.shape[3])
    expected = sums * (size + 1) + shared + ALIGNMENT
    return expected, (sums, 2 * expected + MOST_OF_FORWARD)
