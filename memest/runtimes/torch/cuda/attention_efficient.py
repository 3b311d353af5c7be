"""Memory-efficient attention on CUDA: CUTLASS kernels chosen by card, dtype and size of a head.

Queries, keys and values lie as (batch, length, heads, size), and so do the result and the gradients, row by row whatever the operands do.
Backward splits the keys, and adds to the query's gradient (and where the others do not fit into registers, to theirs) in a float32
workspace of blocks.

Sources: derivatives.yaml (_scaled_dot_product_efficient_attention); aten/src/ATen/native/transformers/cuda/attention.cu
(``_efficient_attention_forward``), attention_backward.cu (``_efficient_attention_backward``), mem_eff_attention/kernel_forward.h
(``kNeedsOutputAccumulator``), kernel_backward.h (``workspace_elements_gq``, ``gk``, ``gv``), kernels/generate_kernels.py (which kernels
there are).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from memest.machines.target import Target
from memest.network.dtypes import HALVES
from memest.network.tensor import Shape
from memest.ops.aten.copies import contiguous
from memest.ops.aten.gemm import transpose
from memest.ops.aten.iterator import wants
from memest.ops.aten.reductions import sum_into
from memest.ops.tape import Tape, Tensor
from memest.sizes.choices import greatest, least

SEED_BYTES = 8
SEEDS_ON_CARD = (2, 14)
ALIGNED_ROWS = 32
IN_REGISTERS = 128
MASK_ALIGNMENT = 16
MOST_PARTS = 200
LOCK_BYTES = 16
NARROW = 96
ROOMY = ((8, 0), (9, 0), (10, 0), (10, 3))
"""The cards from sm80 on whose blocks have the shared memory that the larger kernels ask for."""


class Blocks(NamedTuple):
    """A backward kernel: queries and keys in a block, and whether the gradients of key and value stay in registers."""

    rows: int
    cols: int
    in_registers: bool


def forward(
    k: Tape, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, dropout_p: float, is_causal: bool, scale: float | None
) -> Tensor:
    """The seeds are of no use without dropout and lie on the card then, from 2.14 on; with it they are the generator's and lie in the
    CPU's memory."""
    batch, heads, rows, _ = query.shape
    size = value.shape[3]
    k.save(attn_mask=mask, key=key, query=query, value=value)
    seeds = [] if dropout_p or k.target.version < SEEDS_ON_CARD else [k.scratch(SEED_BYTES), k.scratch(SEED_BYTES)]
    out = k.empty((batch, rows, heads, size), query.dtype)
    sums = k.empty((batch, heads, -(-rows // ALIGNED_ROWS) * ALIGNED_ROWS), "float32") if k.grad_enabled else None
    if query.dtype in HALVES and greatest(query.shape[3], size) > IN_REGISTERS:
        k.free(k.empty(out.shape, "float32"))
    turned = transpose(k, out, 1, 2)
    result = k.alias(out, turned.shape, turned.strides)
    k.note(mask=None if mask is None else (mask.shape, mask.dtype))
    k.save(logsumexp=sums, output=result)
    k.save(**{f"seed{i}": t for i, t in enumerate(seeds)})
    return result


def backward(k: Tape, saved: dict[str, Any], grads: Sequence[Tensor | None], **attributes: Any) -> list[Tensor | None]:
    """All three gradients are made, wanted or not, and lie as (batch, length, heads, size)."""
    (grad,) = grads
    assert grad is not None
    query, key, value = saved["query"], saved["key"], saved["value"]
    above = contiguous(k, transpose(k, grad, 1, 2))
    made = [k.empty(transpose(k, t, 1, 2).shape, t.dtype) for t in (query, key, value)]
    batch, heads = query.shape[:2]
    shared = key.shape[1]
    whole = []
    if shared != heads:
        whole = [k.empty((batch, t.shape[2], heads, t.shape[3]), t.dtype) for t in (key, value)]
    for_mask = _mask_gradient(k, saved["mask"]) if wants(k, 3) else None
    blocks = blocks_of(k.target, query.dtype, greatest(query.shape[3], value.shape[3]))
    delta = _delta(k, above, query.dtype, blocks)
    k.free(k.scratch(workspace_bytes(blocks, query.dtype in HALVES, query.shape, key.shape, value.shape)), delta)
    for t, into in zip(whole, made[1:], strict=False):
        length, size = into.shape[1], into.shape[3]
        sum_into(k, k.alias(t, (batch, length, shared, heads // shared, size)), into, (3,))
    k.free(*reversed(whole))
    gradients: list[Tensor | None] = [k.alias(t, u.shape, u.strides) for t in made for u in (transpose(k, t, 1, 2),)]
    return [g if wants(k, i) else None for i, g in enumerate([*gradients, for_mask][: len(k.needs)])]


def _mask_gradient(k: Tape, mask: tuple[Shape, str]) -> Tensor:
    """The last dim is rounded up in memory."""
    shape, dtype = mask
    padded = (*shape[:-1], -(-shape[-1] // MASK_ALIGNMENT) * MASK_ALIGNMENT)
    base = k.empty(padded, dtype)
    return k.alias(base, shape, base.strides)


def _delta(k: Tape, grad: Tensor, dtype: str, blocks: Blocks) -> Tensor:
    """A number a query: by the kernel itself for half types, else by single operators in float32."""
    batch, rows, heads, _ = grad.shape
    if dtype in HALVES and (blocks.in_registers or k.target.device.capability != (7, 0)):
        return k.empty((batch, heads, rows), "float32")
    casts = [k.empty(grad.shape, "float32") for _ in range(2)] if dtype in HALVES else []
    product = k.empty(grad.shape, "float32")
    summed = k.empty((batch, rows, heads), "float32")
    sum_into(k, product, summed, (3,))
    turned = contiguous(k, transpose(k, summed, 1, 2))
    k.free(product, *casts, None if turned.slot == summed.slot else summed)
    return turned


def blocks_of(target: Target, dtype: str, size: Any) -> Blocks:
    """The kernel that backward takes for heads of ``size`` (the greater of those of keys and values): the first of those compiled that
    fits into shared memory."""
    capability = target.device.capability
    half, roomy = dtype in HALVES, capability in ROOMY
    if size <= IN_REGISTERS // 2:
        return Blocks(64, 64, half)
    if not half:
        return Blocks(128 if roomy else 64, 64, False)
    if size > IN_REGISTERS:
        return Blocks(128, 64, False)
    if capability < (8, 0):
        return Blocks(128, 64, True)
    if roomy:
        return Blocks(128, 128, True)
    return Blocks(128, 64, True) if size <= NARROW and capability in ((8, 6), (8, 9)) else Blocks(64, 64, False)


def workspace_bytes(blocks: Blocks, half: bool, query: Shape, key: Shape, value: Shape) -> Any:
    """Bytes of the workspace in which gradients are summed."""
    batch, heads, rows, size = query
    tiles = -(-rows // blocks.rows) * -(-size // blocks.cols)
    held = tiles * (blocks.rows * blocks.cols * 4 + LOCK_BYTES)
    if half and not blocks.in_registers:
        parts = greatest(1, least(-(-key[2] // blocks.cols), MOST_PARTS // (batch * heads)))
        width = sum(-(-n // blocks.rows) * blocks.rows for n in (size, value[3]))
        held = held + parts * blocks.cols * width * 4
    return batch * heads * held
