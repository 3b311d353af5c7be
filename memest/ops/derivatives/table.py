"""The formulas of all families, by the row whose backward they are. What stands in none of them is refused under ``create_graph=True``."""

from __future__ import annotations

from typing import Any

from memest.ops.derivatives import (
    activations,
    arithmetic,
    choices,
    convolutions,
    functions,
    gates,
    groups,
    losses,
    normalizations,
    places,
    pools,
    products,
    rearranging,
    reductions,
    shapes,
    slices,
)

FAMILIES = (
    *(activations, arithmetic, choices, convolutions, functions, gates, groups, losses, normalizations, places, pools, products),
    *(rearranging, reductions, shapes, slices),
)
FORMULAS: dict[str, Any] = {name: formula for family in FAMILIES for name, formula in family.FORMULAS.items()}

_EXTREME = "how many elements share the gradient depends on values; an extremum along a dim is modelled: max(dim=…), amax(dim)"
HINTS = {
    "hardsigmoid": "torch raises, too; write it as F.relu6(x + 3) / 6",
    "_flash_attention": "torch raises, too; attention by torch.nn.attention.sdpa_kernel(SDPBackend.MATH) is modelled",
    "mkldnn_rnn_layer": "torch raises, too; a cell (nn.LSTMCell, nn.GRUCell) called in a loop is modelled",
    "_cdist_forward": "torch raises, too, up to 2.13; write distances as (a[:, None] - b).norm(dim=-1)",
    "abs": "its second derivative is zeros without memory, which have no rule; F.smooth_l1_loss, or (x * x + eps).sqrt(), is modelled",
    **dict.fromkeys(("_max", "_min", "median", "nanmedian"), _EXTREME),
}
"""What to do instead, where a backward of a backward is refused."""
