"""The multi-head attention block that torch runs as one operator in inference (``torch._native_multi_head_attention``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.network.tensor import Shape
from memest.ops.aten.cuda_reduce import summing
from memest.ops.aten.gemm import batched_product, mm, transpose
from memest.ops.aten.iterator import with_number_
from memest.ops.aten.reductions import reduce_into
from memest.ops.composite import Caller, Composite
from memest.ops.facts import EVERYWHERE_CALLS, EVERYWHERE_FACTS, LOWER, Attributes, called
from memest.ops.operator import REQUIRED, Attribute, Example, Operator, choice, flag, integer
from memest.ops.tape import Tape, Tensor


def _multi_head(
    k: Tape,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    mask: Tensor | None,
    *,
    embed_dim: int,
    num_head: int,
    need_weights: bool,
    average_attn_weights: bool,
    sharing: str,
) -> tuple[Tensor | None, ...]:
    """``native_multi_head_attention_cpu``: queries, keys and values live in one tensor, whose first part becomes the result's."""
    _check_multi_head(query, qkv_weight, embed_dim, num_head, mask)
    batch, length, _ = query.shape
    projected = _project(k, query, key, value, qkv_weight, sharing)
    size = embed_dim // num_head
    packed = k.empty((3, batch, num_head, length, size), query.dtype)
    k.free(projected)
    one = k.alias(packed, (batch * num_head, length, size))
    scores = batched_product(k, one, transpose(k, one, 1, 2))
    if not need_weights:
        k.free(scores)
    turned = k.empty((batch, length, embed_dim), query.dtype) if num_head > 1 and length > 1 else None
    result = mm(k, k.alias(turned or packed, (batch * length, embed_dim)), transpose(k, proj_weight, 0, 1), proj_bias)
    k.free(turned)
    weights = _averaged(k, scores, batch, num_head, average_attn_weights) if need_weights else None
    k.free(packed)
    return k.alias(result, (batch, length, embed_dim)), weights


def _check_multi_head(query: Tensor, weight: Tensor, embed_dim: int, num_head: int, mask: Tensor | None) -> None:
    if query.ndim != 3 or query.shape[2] != embed_dim or weight.shape != (3 * embed_dim, embed_dim) or embed_dim % num_head:
        raise ShapeError(
            f"multi-head attention of {num_head} heads and {embed_dim} channels does not take a query of shape {list(query.shape)}"
        )
    if mask is not None:
        raise UnsupportedError("multi-head attention with a mask is not modelled in inference; call scaled_dot_product_attention")


def _project(k: Tape, query: Tensor, key: Tensor, value: Tensor, weight: Tensor, sharing: str) -> Tensor:
    """``qkv_projection``: one product when query, key and value are one tensor, else several put side by side."""
    sources = {"all": (query,), "key_value": (query, key), "none": (query, key, value)}[sharing]
    parts = {"all": (3,), "key_value": (1, 2), "none": (1, 1, 1)}[sharing]
    products = [_project_one(k, t, weight, n) for t, n in zip(sources, parts, strict=True)]
    if len(products) == 1:
        return products[0]
    out = k.empty((*query.shape[:2], weight.shape[0]), query.dtype)
    k.free(*products)
    return out


def _project_one(k: Tape, t: Tensor, weight: Tensor, parts: int) -> Tensor:
    """``matmul`` with the transposed part of the weight: one product where the first two dims are one in memory, else one an image."""
    batch, length, size = t.shape
    rows = parts * size
    if t.strides[0] == t.strides[1] * length:
        part = k.alias(weight, (size, rows), (weight.strides[1], weight.strides[0]))
        return mm(k, k.alias(t, (batch * length, size), t.strides[1:]), part)
    return batched_product(k, t, k.alias(weight, (batch, size, rows), (0, weight.strides[1], weight.strides[0])))


def _averaged(k: Tape, scores: Tensor, batch: int, heads: int, average: bool) -> Tensor:
    length = scores.shape[1]
    if not average:
        return k.alias(scores, (batch, heads, length, length))
    mean = k.empty((batch, length, length), scores.dtype)
    reduce_into(k, k.alias(scores, (batch, heads, length, length)), mean, (1,), summing)
    k.free(scores)
    return with_number_(k, mean, heads)


def _native_multi_head_attention(c: Caller, query: Any, key: Any, value: Any, *rest: Any, **attributes: Any) -> Any:
    sharing = "none" if key is not value else "all" if query is key else "key_value"
    return c.call("_multi_head", query, key, value, *rest, sharing=sharing, **attributes)


def _flops(inputs: Sequence[Shape], made: Sequence[Shape], given: Attributes) -> int:
    """Three projections, queries by keys, weights by values, and the projection of the result."""
    (batch, length, size), (_, keys, _), (_, values, _) = inputs[:3]
    return 2 * batch * size * ((2 * length + keys + values) * size + 2 * length * keys)


MULTI_HEAD_ROLES = ("query", "key", "value", "qkv_weight", "qkv_bias", "proj_weight", "proj_bias", "mask?")
MULTI_HEAD_ATTRIBUTES = (
    Attribute(name="embed_dim", default=REQUIRED, check=integer),
    Attribute(name="num_head", default=REQUIRED, check=integer),
    Attribute(name="need_weights", default=True, check=flag),
    Attribute(name="average_attn_weights", default=True, check=flag),
)
SOURCE = "aten/src/ATen/native/transformers/attention.cpp"
MULTI_HEAD_EXAMPLE = Example(
    shapes=((2, 5, 12), (2, 5, 12), (2, 5, 12), (36, 12), (36,), (12, 12), (12,), None),
    attributes={"embed_dim": 12, "num_head": 3},
    frozen=(0, 1, 2, 3, 4, 5, 6),
)

ROWS = (
    Operator(
        name="_multi_head",
        torch="torch._native_multi_head_attention",
        oracle="multi_head",
        roles=MULTI_HEAD_ROLES,
        attributes=(*MULTI_HEAD_ATTRIBUTES, Attribute(name="sharing", default="none", check=choice("all", "key_value", "none"))),
        forward=_multi_head,
        saves=(),
        backward=None,
        examples=(MULTI_HEAD_EXAMPLE,),
        facts=EVERYWHERE_FACTS.but(autocast=called("_native_multi_head_attention", LOWER), flops=_flops),
        source=SOURCE,
    ),
)
COMPOSITE_ROWS = (
    Composite(
        name="_native_multi_head_attention",
        torch="torch._native_multi_head_attention",
        oracle="native_multi_head_attention",
        roles=MULTI_HEAD_ROLES,
        attributes=MULTI_HEAD_ATTRIBUTES,
        compose=_native_multi_head_attention,
        examples=(MULTI_HEAD_EXAMPLE,),
        facts=EVERYWHERE_CALLS.but(autocast=LOWER),
        source=SOURCE,
    ),
)
