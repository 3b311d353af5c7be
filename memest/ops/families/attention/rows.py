"""Scaled dot product attention: the fused ("flash") kernel where it can be used, else the same in single operators.

The fused kernel works through blocks of queries and keys, with a buffer for each thread, and keeps one number a query for backward.

Sources: aten/src/ATen/native/transformers/attention.cpp, sdp_utils_cpp.h (when the fused kernel is chosen),
native/cpu/FlashAttentionKernel.cpp (buffers).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from memest.errors import ShapeError
from memest.machines.cpu import Cpu
from memest.machines.target import Target
from memest.network.dtypes import FLOATING, HALVES, ITEMSIZE, opmath
from memest.network.tensor import Shape, Spec
from memest.ops.aten.copies import contiguous
from memest.ops.aten.gemm import transpose
from memest.ops.aten.iterator import elementwise, empty_like, iterator_strides
from memest.ops.composite import Caller, Composite
from memest.ops.facts import EVERYWHERE_CALLS, EVERYWHERE_FACTS, LOWER, POINTWISE_FACTS, Attributes
from memest.ops.families.attention.products import MOST_ROWS, computes, most_of_products, products_of_blocks
from memest.ops.operator import REQUIRED, Attribute, Example, Operator, flag, integer, number, optional, text
from memest.ops.searched import sealed
from memest.ops.tape import Tape, Tensor

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]
KEYS_IN_BLOCK = 512
FLASH, EFFICIENT, MATH, CUDNN = BACKENDS = ("flash", "efficient", "math", "cudnn")
"""Kernels to choose from, as ``torch.nn.attention.SDPBackend`` has them."""
FUSED_DTYPES = FLOATING
NEWER_CHOICE = (2, 14)
"""The first torch that makes three dims a batch of one, and whose fused kernel shares one head of keys and values without being asked."""


# the fused kernel ------------------------------------------------------------------------------------------------------


def _block(queries: int, keys: int) -> tuple[int, int]:
    """Queries and keys a thread works on at once."""
    rows = 256 if queries >= 768 else 64 if queries >= 192 else 32
    return min(rows, queries), min(KEYS_IN_BLOCK, keys)


def _flash(k: Tape, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, *, scale: float | None) -> Tensor:
    batch, heads, queries, size = query.shape
    k.save(attn_mask=attn_mask, key=key, query=query, value=value)
    accumulate = opmath(query.dtype)
    out = empty_like(k, query)
    logsumexp = k.empty((batch, queries, heads), accumulate)
    copies = [contiguous(k, transpose(k, t, 1, 2)) for t in (query, key, value) if t.strides[-1] != 1]
    mask = _spread_mask(k, attn_mask, query, key)
    rows, cols = _block(queries, key.shape[2])
    buffer = k.empty((k.target.cpu.threads, rows * cols + 2 * rows + rows * size), accumulate)
    reduced = k.empty((k.target.cpu.threads, rows, cols), query.dtype) if query.dtype in HALVES else None
    k.free(reduced, buffer, mask, *reversed(copies))
    k.note(has_mask=attn_mask is not None)
    k.save(logsumexp=logsumexp, output=out)
    return out


def _spread_mask(k: Tape, mask: Tensor | None, query: Tensor, key: Tensor) -> Tensor | None:
    """``reshape_attn_mask_to_4d``: a view, unless the last dim has an odd stride."""
    if mask is None or mask.shape[-1] == 1 or mask.strides[-1] in (0, 1):
        return None
    batch, heads = (mask.shape[0], mask.shape[1]) if mask.ndim == 4 else (1, 1)
    return k.empty((batch, heads, query.shape[2], key.shape[2]), mask.dtype)


def _flash_backward(k: Tape, saved: Saved, grads: Grads, *, scale: float | None) -> list[Tensor | None]:
    """All three gradients are made, wanted or not, and lie as (batch, length, heads, size)."""
    (grad,) = grads
    assert grad is not None
    operands = (grad, saved["query"], saved["key"], saved["value"], saved.get("attn_mask"))
    scaled = saved["query"].shape[3] != 1 if scale is None else scale != 1
    if computes(k.target.cpu, saved["query"].dtype):
        made = sealed(k, "flash_attention_backward", _flash_gradients, _most_of_gradients, operands, scaled=scaled)
    else:
        made = _flash_gradients(k, *operands, scaled=scaled)
    gradients: list[Tensor | None] = [k.alias(t, turned.shape, turned.strides) for t in made for turned in (transpose(k, t, 1, 2),)]
    return [*gradients, None] if saved["has_mask"] else gradients


def _flash_gradients(
    k: Tape, grad: Tensor, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, scaled: bool
) -> list[Tensor]:
    """What the kernel makes, and what its threads hold while it does. Of the threads' row sums torch's profiler sees those of the calling
    thread."""
    made = [k.empty(transpose(k, t, 1, 2).shape, t.dtype) for t in (query, key, value)]
    above = contiguous(k, transpose(k, grad, 1, 2))
    copies = [contiguous(k, transpose(k, t, 1, 2)) for t in (query, key, value) if t.strides[-1] != 1]
    spread = _spread_mask(k, mask, query, key)
    rows, cols = _block(query.shape[2], key.shape[2])
    accumulate = opmath(query.dtype)
    buffer = k.empty((k.target.cpu.threads, 2 * rows * cols), accumulate)
    reduced = k.empty((k.target.cpu.threads, 2 * rows * cols), query.dtype) if query.dtype in HALVES else None
    sums = k.empty((rows,), accumulate)
    if computes(k.target.cpu, query.dtype):
        products_of_blocks(k, query, key, (rows, cols), scaled)
    k.free(sums, reduced, buffer, spread, *reversed(copies), above)
    return made


def _most_of_gradients(cpu: Cpu, grad: Spec, query: Spec, key: Spec, value: Spec, mask: Spec | None, *, scaled: bool) -> tuple[Any, ...]:
    """No fewer bytes than that: gradients and copies of everything, a mask for every score, buffers of the largest blocks."""
    given = sum(prod(t.shape) * ITEMSIZE[t.dtype] for t in (grad, query, key, value))
    scores = prod(query.shape[:3]) * key.shape[2] * ITEMSIZE[mask.dtype] if mask is not None else 0
    buffers = cpu.threads * 2 * MOST_ROWS * KEYS_IN_BLOCK * (4 + 2) + 4 * MOST_ROWS
    return (2 * given + scores + buffers + most_of_products(cpu, query.shape[3]),)


def can_fuse(target: Target, query: Any, key: Any, value: Any, mask: Any, dropout_p: float, enable_gqa: bool) -> bool:
    """``use_flash_attention_cpp``."""
    lifted = lifts(target, query, key, value, mask)
    q, k, v = ((1, *t.shape) if lifted else t.shape for t in (query, key, value))
    if dropout_p > 0 or not len(q) == len(k) == len(v) == 4 or query.spec.dtype not in FUSED_DTYPES:
        return False
    if not (q[0] == k[0] == v[0] and q[3] == k[3] == v[3]) or 0 in (q[2], k[2], q[3]):
        return False
    shared = target.version >= NEWER_CHOICE and k[1] == v[1] == 1
    if not shared and not heads_fit(q[1], k[1], v[1], enable_gqa):
        return False
    if q[3] != 1 and any(t.spec.strides[-1] != 1 for t in (query, key, value)):
        return False
    if mask is None:
        return True
    shape = (1, *mask.shape) if lifted and len(mask.shape) == 3 else mask.shape
    return not mask.says_grad and mask_fits(shape, (q[0], q[1], q[2], k[2]))


def lifts(target: Target, query: Any, key: Any, value: Any, mask: Any) -> bool:
    """Whether torch puts a batch of one in front of everything, and takes it from the result: the batch becomes heads."""
    three = all(len(t.shape) == 3 for t in (query, key, value))
    return target.version >= NEWER_CHOICE and three and (mask is None or len(mask.shape) <= 3)


def allowed(kernel: str, backends: tuple[str, ...] | None) -> bool:
    """Whether a kernel is among those that are left to choose from (None: all are)."""
    return backends is None or kernel in backends


def backend_names(value: Any) -> tuple[str, ...]:
    """Names of kernels, each once, in the usual order."""
    given = (value,) if isinstance(value, str) else tuple(value)
    if not given or not set(given) <= set(BACKENDS):
        raise ValueError(f"expected some of {', '.join(BACKENDS)}")
    return tuple(name for name in BACKENDS if name in given)


def heads_fit(query: int, key: int, value: int, enable_gqa: bool) -> bool:
    return key == value and (query % key == 0 if enable_gqa else query == key)


def mask_fits(shape: Shape, wanted: Shape) -> bool:
    return len(shape) in (2, 4) and all(n in (1, w) for n, w in zip(shape, wanted[-len(shape) :], strict=True))


# the same in single operators ------------------------------------------------------------------------------------------


def _additive_mask(k: Tape, mask: Tensor, *, dtype: str) -> Tensor:
    """``convert_boolean_attn_mask``: 0 where attention may look, else minus infinity."""
    numbers = [k.empty((), dtype), k.empty((), dtype)]
    out = k.empty(mask.shape, dtype, iterator_strides(mask.shape, (mask,)))
    k.free(*reversed(numbers))
    return out


def _causal_mask(k: Tape, input: Tensor, *, rows: int, cols: int) -> Tensor:
    """A triangle of ones as an additive mask."""
    full = k.empty((rows, cols), "bool")
    triangle = k.empty((rows, cols), "bool")
    k.free(full)
    out = _additive_mask(k, triangle, dtype=input.dtype)
    k.free(triangle)
    return out


def _safe_softmax(k: Tape, input: Tensor) -> Tensor:
    """A softmax whose fully masked rows are zero: where they are is found in two steps."""
    out = k.empty(input.shape, input.dtype)
    _drop_copy(k, input)
    masked = k.empty(input.shape, "bool", iterator_strides(input.shape, (input,)))
    rows = k.empty((*input.shape[:-1], 1), "bool")
    zero = k.empty((), input.dtype)
    k.free(zero, rows, masked)
    k.save(result=out)
    return out


def _drop_copy(k: Tape, t: Tensor) -> None:
    dense = contiguous(k, t)
    k.free(None if dense is t else dense)


def _safe_softmax_backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
    (grad,) = grads
    assert grad is not None
    product = elementwise(k, grad, saved["result"]) if k.target.on_cuda else None
    out = k.empty(grad.shape, grad.dtype)
    _drop_copy(k, grad)
    k.free(product)
    return [out]


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
    fused = allowed(FLASH, backends) and can_fuse(c.target, query, key, value, attn_mask, dropout_p, enable_gqa)
    lifted = lifts(c.target, query, key, value, attn_mask)
    if lifted:
        query, key, value = (c.call("unsqueeze", t, dim=0) for t in (query, key, value))
        attn_mask = c.call("unsqueeze", attn_mask, dim=0) if attn_mask is not None and len(attn_mask.shape) == 3 else attn_mask
    if attn_mask is not None and attn_mask.spec.dtype == "bool":
        attn_mask = c.call("_additive_mask", attn_mask, dtype=query.spec.dtype)
    if fused:
        made = c.call("_flash_attention", query, key, value, attn_mask, scale=scale)
    else:
        made = by_single_operators(c, query, key, value, attn_mask, dropout_p, is_causal, enable_gqa)
    return c.call("squeeze", made, dim=0) if lifted else made


def check_operands(query: Any, key: Any, value: Any, mask: Any, is_causal: bool) -> None:
    q, k, v = query.shape, key.shape, value.shape
    if min(len(q), len(k), len(v)) < 2 or q[-1] != k[-1] or k[-2] != v[-2]:
        raise ShapeError(f"query {list(q)}, key {list(k)} and value {list(v)} differ in size or length")
    if mask is not None and is_causal:
        raise ShapeError("attention takes a mask or is_causal, not both")


def by_single_operators(c: Caller, query: Any, key: Any, value: Any, mask: Any, dropout_p: float, is_causal: bool, enable_gqa: bool) -> Any:
    """``_scaled_dot_product_attention_math``: query and key are scaled by the root of the factor each. Half types are computed in
    float32; the weights, which nobody gets, are converted back with the result."""
    dtype = query.spec.dtype
    if dtype in HALVES:
        query, key, value = (c.call("to", t, dtype="float32") for t in (query, key, value))
    scaled = c.call("mul.Scalar", query, value=0.5)
    if is_causal:
        mask = c.call("_causal_mask", scaled, rows=query.shape[-2], cols=key.shape[-2])
    if enable_gqa and not query.shape[-3] == key.shape[-3] == value.shape[-3]:
        key, value = (c.call("repeat_interleave", t, repeats=query.shape[-3] // t.shape[-3], dim=-3) for t in (key, value))
    turned = c.call("mul.Scalar", c.call("transpose", key, dim0=-2, dim1=-1), value=0.5)
    scores = c.call("matmul", scaled, turned)
    c.drop(turned)
    if mask is not None:
        c.drop(c.call("add", scores, mask, inplace=True))
    weights = c.call("_safe_softmax", scores)
    c.drop(scores)
    if dropout_p > 0:
        kept, weights = weights, c.call("dropout", weights, p=dropout_p, training=True)
        c.drop(kept)
    if dtype not in HALVES:
        return c.call("matmul", weights, value)
    c.call("to", weights, dtype=dtype)
    return c.call("to", c.call("matmul", weights, value), dtype=dtype)


def flash_flops(inputs: Sequence[Shape], made: Sequence[Shape], given: Attributes) -> int:
    """Queries by keys, and the weights by values."""
    query, key, value = inputs[:3]
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


SCALE = Attribute(name="scale", default=None, check=optional(number))
QUERY_KEY_VALUE = ("query", "key", "value", "attn_mask?")
LONG = ((1, 3, 70, 32), (1, 3, 530, 32), (1, 3, 530, 32))  # several blocks
HEADS = ((2, 3, 10, 16), (2, 3, 12, 16), (2, 3, 12, 16))
SOURCE = "aten/src/ATen/native/transformers/attention.cpp"

ROWS = (
    Operator(
        name="_flash_attention",
        torch="torch.ops.aten._scaled_dot_product_flash_attention_for_cpu",
        oracle="flash_attention",
        roles=QUERY_KEY_VALUE,
        attributes=(SCALE,),
        forward=_flash,
        saves=("query", "key", "value", "attn_mask", "output", "logsumexp"),
        backward=_flash_backward,
        examples=(
            Example(shapes=(*HEADS, None), attributes={}),
            Example(shapes=(*HEADS, (10, 12)), attributes={"scale": 1.0}, frozen=(3,)),
            Example(shapes=(*LONG, None), attributes={}, dtypes=("bfloat16",) * 3),
            Example(shapes=(*LONG, (70, 530)), attributes={"scale": 1.0}, dtypes=("bfloat16",) * 4, frozen=(3,)),
        ),
        facts=EVERYWHERE_FACTS.but(flops=flash_flops),
        source=f"derivatives.yaml: _scaled_dot_product_flash_attention_for_cpu; {SOURCE}, native/cpu/FlashAttentionKernel.cpp",
    ),
    Operator(
        name="_additive_mask",
        torch="torch.nn.functional.scaled_dot_product_attention",
        oracle="additive_mask",
        roles=("mask",),
        attributes=(Attribute(name="dtype", default="float32", check=text),),
        forward=_additive_mask,
        saves=(),
        backward=None,
        examples=(Example(shapes=((10, 12),), attributes={}, dtypes=("bool",)),),
        facts=POINTWISE_FACTS,
        source=f"{SOURCE} (convert_boolean_attn_mask)",
    ),
    Operator(
        name="_causal_mask",
        torch="torch.nn.functional.scaled_dot_product_attention",
        oracle="causal_mask",
        roles=("input",),
        attributes=(Attribute(name="rows", default=REQUIRED, check=integer), Attribute(name="cols", default=REQUIRED, check=integer)),
        forward=_causal_mask,
        saves=(),
        backward=None,
        examples=(Example(shapes=((2, 10, 12),), attributes={"rows": 10, "cols": 11}, frozen=(0,)),),
        facts=EVERYWHERE_FACTS,
        source=f"{SOURCE} (_scaled_dot_product_attention_math)",
    ),
    Operator(
        name="_safe_softmax",
        torch="torch.ops.aten._safe_softmax",
        oracle="safe_softmax",
        roles=("input",),
        attributes=(),
        forward=_safe_softmax,
        saves=("result",),
        backward=_safe_softmax_backward,
        examples=(Example(shapes=((2, 3, 4, 5),), attributes={}),),
        facts=EVERYWHERE_FACTS,
        source=f"derivatives.yaml: _safe_softmax; {SOURCE}",
    ),
)

COMPOSITE_ROWS = (
    Composite(
        name="scaled_dot_product_attention",
        torch="torch.nn.functional.scaled_dot_product_attention",
        roles=QUERY_KEY_VALUE,
        attributes=(
            Attribute(name="dropout_p", default=0.0, check=number),
            Attribute(name="is_causal", default=False, check=flag),
            SCALE,
            Attribute(name="enable_gqa", default=False, check=flag),
            Attribute(name="backends", default=None, check=optional(backend_names)),
        ),
        compose=_attention,
        examples=(
            Example(shapes=(*HEADS, None), attributes={}),
            Example(shapes=(*HEADS, (10, 12)), attributes={}, dtypes=("float32", "float32", "float32", "bool")),
            Example(shapes=((2, 3, 10, 16), (2, 3, 12, 16), (2, 3, 12, 8), None), attributes={}),
            Example(shapes=(*HEADS, (10, 12)), attributes={}),
            Example(shapes=(*HEADS, None), attributes={"dropout_p": 0.1}),
            Example(shapes=((2, 3, 10, 16),) * 3 + (None,), attributes={"is_causal": True, "dropout_p": 0.1}),
            Example(shapes=(*HEADS, None), attributes={"backends": ("math",)}),
            Example(shapes=(*HEADS, None), attributes={"backends": ("flash", "efficient")}),
        ),
        facts=EVERYWHERE_CALLS.but(autocast=LOWER),
        source=f"{SOURCE}, sdp_utils_cpp.h",
        oracle="attention",
    ),
)
