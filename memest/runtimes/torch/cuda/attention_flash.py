"""Flash attention on CUDA, for half types from sm80 on.

Queries, keys and values lie as (batch, length, heads, size). Where few blocks of queries would leave multiprocessors idle, the keys are
split: each part writes a result of its own in float32. Backward adds to the query's gradient in float32.

Sources: derivatives.yaml (_scaled_dot_product_flash_attention); aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp
(``mha_fwd``, ``set_params_splitkv``, ``num_splits_heuristic``, ``mha_bwd``), attention_backward.cu.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import ceil, prod
from struct import pack, unpack
from typing import Any

from memest.machines.cpu import Cpu
from memest.machines.gpu import Gpu
from memest.network.tensor import Spec
from memest.ops.aten.copies import contiguous
from memest.ops.aten.gemm import transpose
from memest.ops.aten.iterator import empty_like, wants
from memest.ops.aten.reductions import sum_into
from memest.ops.aten.views import viewed_strides
from memest.ops.searched import sealed
from memest.ops.tape import Tape, Tensor
from memest.sizes.choices import each

MOST_SPLITS = 128
ROWS_IN_BLOCK = 64
ROUNDED_ROWS = 128
SEED_BYTES = (16, 8)


def forward(k: Tape, query: Tensor, key: Tensor, value: Tensor, *, dropout_p: float, is_causal: bool) -> Tensor:
    """The result lies as the query does; kept are it, the logarithms of the sums, and two seeds."""
    k.save(key=key, query=query, value=value)
    operands = [transpose(k, t, 1, 2) for t in (query, key, value)]
    out, sums, seeds, unused = sealed(k, "flash_attention", _outputs, _most, operands, dropped=dropout_p > 0)
    result = k.alias(out, query.shape, transpose(k, out, 1, 2).strides)
    k.save(logsumexp=sums, output=result, seeds=seeds, unused=unused)
    return result


def _outputs(k: Tape, query: Tensor, key: Tensor, value: Tensor, *, dropped: bool) -> list[Tensor]:
    batch, rows, heads, size = query.shape
    kv_heads = key.shape[2]
    grouped = rows == 1 and heads > kv_heads and not dropped
    if grouped:  # a row of queries a head becomes as many rows as heads share a key
        rows, heads = heads // kv_heads, kv_heads
        step = query.strides[2]
        asked = k.alias(query, (batch, rows, heads, size), (query.strides[0], step, rows * step, query.strides[3]))
        out = empty_like(k, asked)
        out = k.alias(out, query.shape, _regrouped(k, out, query))
    else:
        out = empty_like(k, query)
    sums = k.empty((batch, heads, rows), "float32")
    parts: list[Tensor] = []
    if not dropped:
        count = _splits(k, batch * heads * -(-rows // ROWS_IN_BLOCK), key.shape[1], size)
        if type(count) is not int or count > 1:
            held = each(lambda n: n if n > 1 else 0, count)
            wide = _rounded(size)
            parts = [k.scratch(held * batch * heads * rows * n * 4) for n in (1, wide)]
    seeds, unused = (k.scratch(n) for n in SEED_BYTES)
    if dropped:
        seeds, old = k.scratch(SEED_BYTES[0]), seeds
        k.free(old)
    k.free(*parts)
    return [out, sums, seeds, unused]


def _regrouped(k: Tape, out: Tensor, query: Tensor) -> tuple[int, ...]:
    turned = transpose(k, out, 1, 2)
    found = viewed_strides(turned.shape, turned.strides, query.shape)
    return query.strides if found is None else found


def _rounded(size: Any) -> Any:
    """``head_size_rounded``."""
    unit = 32 if size <= 128 else 64
    return -(-size // unit) * unit


def _splits(k: Tape, blocks: Any, keys: Any, size: Any) -> Any:
    """Into how many parts the keys are split, for one problem or for many at once."""
    cols = 256 if size <= 64 else 128 if size <= 128 else 64
    return each(partial(splits, 2 * k.target.device.multiprocessors), blocks, -(-keys // cols))


def splits(processors: int, blocks: int, cols: int) -> int:
    """``num_splits_heuristic``: the fewest parts by which multiprocessors are nearly as busy as they can be. Floats are of 32 bits."""
    if blocks >= _float(_float(0.8) * processors):
        return 1
    most = min(MOST_SPLITS, processors, cols)
    busy = [_busy(blocks * n, processors) if _differs(cols, n) else 0.0 for n in range(1, most + 1)]
    return next((n for n in range(1, most + 1) if _differs(cols, n) and busy[n - 1] >= 0.85 * max(busy)), 1)


def _differs(cols: int, n: int) -> bool:
    return n == 1 or -(-cols // n) != -(-cols // (n - 1))


def _busy(blocks: int, processors: int) -> float:
    waves = _float(blocks / processors)
    return _float(waves / ceil(waves)) if waves else 0.0


def _float(x: float) -> float:
    number: float = unpack("f", pack("f", x))[0]
    return number


def _most(machine: Cpu | Gpu, query: Spec, key: Spec, value: Spec, *, dropped: bool) -> tuple[Any, ...]:
    """Bytes of which the call does not hold more: what it gives, and parts that are no more than the processors have room for."""
    batch, rows, heads, size = query.shape
    assert isinstance(machine, Gpu) and machine.device is not None
    row = 4 * (size + 64 + 1)
    blocks = 2 * machine.device.multiprocessors + batch * heads
    given = prod(query.shape) * 2 + 4 * batch * heads * rows + sum(SEED_BYTES) + SEED_BYTES[0]
    return (given + MOST_SPLITS * row * batch * heads * rows + blocks,)


def backward(k: Tape, saved: dict[str, Any], grads: Sequence[Tensor | None], **attributes: Any) -> list[Tensor | None]:
    """All three gradients are made, wanted or not, and lie as their operands do."""
    (grad,) = grads
    assert grad is not None
    query, key, value, out = (transpose(k, saved[role], 1, 2) for role in ("query", "key", "value", "output"))
    contiguous(k, transpose(k, grad, 1, 2))
    contiguous(k, out)
    made = [empty_like(k, t) for t in (query, key, value)]
    batch, rows, heads, size = query.shape
    rounded = -(-rows // ROUNDED_ROWS) * ROUNDED_ROWS
    sums = k.empty((batch, heads, rounded), "float32")
    total = k.empty((batch, rounded, heads, _rounded(size)), "float32")
    shared = key.shape[2]
    if shared != heads:
        whole = [k.empty((batch, key.shape[1], heads, size), query.dtype) for _ in range(2)]
        for t, into in zip(whole, made[1:], strict=True):
            sum_into(k, k.alias(t, (batch, key.shape[1], shared, heads // shared, size)), into, (3,))
        k.free(*reversed(whole))
    k.free(total, sums)
    turned = [k.alias(t, u.shape, u.strides) for t in made for u in (transpose(k, t, 1, 2),)]
    return [t if wants(k, i) else None for i, t in enumerate(turned)]
