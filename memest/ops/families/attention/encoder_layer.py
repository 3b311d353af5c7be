"""A layer of a transformer's encoder that torch runs as one operator in inference (``torch._transformer_encoder_layer_fwd``).

Sums and activations are taken in place. Source: aten/src/ATen/native/transformers/transformer.cpp.
"""

from __future__ import annotations

from typing import Any

from memest.ops.composite import Caller, Composite, refuse_on_cuda
from memest.ops.facts import EVERYWHERE_CALLS, REFUSED
from memest.ops.operator import REQUIRED, Attribute, Example, flag, integer, number

WEIGHTS = (
    *("qkv_weight", "qkv_bias", "proj_weight", "proj_bias", "norm_weight_1", "norm_bias_1", "norm_weight_2", "norm_bias_2"),
    *("ffn_weight_1", "ffn_bias_1", "ffn_weight_2", "ffn_bias_2"),
)


def _layer(
    c: Caller,
    src: Any,
    qkv_weight: Any,
    qkv_bias: Any,
    proj_weight: Any,
    proj_bias: Any,
    norm_weight_1: Any,
    norm_bias_1: Any,
    norm_weight_2: Any,
    norm_bias_2: Any,
    ffn_weight_1: Any,
    ffn_bias_1: Any,
    ffn_weight_2: Any,
    ffn_bias_2: Any,
    mask: Any,
    *,
    embed_dim: int,
    num_heads: int,
    use_gelu: bool,
    norm_first: bool,
    eps: float,
) -> Any:
    refuse_on_cuda(c, "torch's own encoder layer in inference")

    def first_norm(t: Any) -> Any:
        return c.call("layer_norm", t, norm_weight_1, norm_bias_1, normalized_shape=(embed_dim,), eps=eps)

    def second_norm(t: Any) -> Any:
        return c.call("layer_norm", t, norm_weight_2, norm_bias_2, normalized_shape=(embed_dim,), eps=eps)

    x = first_norm(src) if norm_first else src
    attended, _ = c.call(
        "_native_multi_head_attention", x, x, x, qkv_weight, qkv_bias, proj_weight, proj_bias, mask,
        embed_dim=embed_dim, num_head=num_heads, need_weights=False,
    )  # fmt: skip
    if norm_first:
        c.drop(x)
    x = _added(c, attended, src)
    if not norm_first:
        summed, x = x, first_norm(x)
        c.drop(summed)
    entered = second_norm(x) if norm_first else x
    wide = c.call("linear", entered, ffn_weight_1, ffn_bias_1)
    result = c.call("linear", wide, ffn_weight_2, ffn_bias_2)
    c.drop(wide, entered if norm_first else None)
    result = _added(c, result, x)
    return result if norm_first else second_norm(result)


def _added(c: Caller, target: Any, other: Any) -> Any:
    """``target.add_(other)``."""
    result = c.call("add", target, other, inplace=True)
    c.drop(target)
    return result


def _example(batch: int, length: int, size: int, wide: int, **given: Any) -> Example:
    weights = ((3 * size, size), (3 * size,), (size, size), (size,), *[(size,)] * 4, (wide, size), (wide,), (size, wide), (size,))
    settings = {"embed_dim": size, "num_heads": 4, "use_gelu": False, "norm_first": False, "eps": 1e-5}
    return Example(shapes=((batch, length, size), *weights, None), attributes={**settings, **given}, frozen=tuple(range(13)))


ROWS = ()
COMPOSITE_ROWS = (
    Composite(
        name="_transformer_encoder_layer_fwd",
        torch="torch._transformer_encoder_layer_fwd",
        oracle="transformer_encoder_layer",
        roles=("src", *WEIGHTS, "mask?"),
        attributes=(
            Attribute(name="embed_dim", default=REQUIRED, check=integer),
            Attribute(name="num_heads", default=REQUIRED, check=integer),
            Attribute(name="use_gelu", default=REQUIRED, check=flag),
            Attribute(name="norm_first", default=REQUIRED, check=flag),
            Attribute(name="eps", default=REQUIRED, check=number),
        ),
        compose=_layer,
        examples=(_example(2, 5, 16, 32), _example(3, 5, 16, 24, use_gelu=True, norm_first=True)),
        facts=EVERYWHERE_CALLS.but(autocast=REFUSED),
        source="aten/src/ATen/native/transformers/transformer.cpp",
    ),
)
