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
)

FAMILIES = (
    *(activations, arithmetic, choices, convolutions, functions, gates, groups, losses, normalizations, places, pools, products),
    *(rearranging, reductions, shapes),
)
FORMULAS: dict[str, Any] = {name: formula for family in FAMILIES for name, formula in family.FORMULAS.items()}
