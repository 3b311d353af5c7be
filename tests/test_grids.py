"""Grids are their configurations, and formulas over them are sums of products, whatever the axes and the formulas."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from memest.planning.grids import Grid, grid
from memest.planning.separated import separated, values
from memest.sizes.conditions import reduced
from memest.sizes.dims import parse, parse_guard

AXES: list[dict[str, Any]] = [
    {"N": np.array([1, 2, 3, 5])},
    {"H": np.arange(7, 16), "D": np.arange(17, 8, -1)},
    {"W": np.array([9, 30, 8])},
]
FORMULAS = [
    ["N*H*W", "((H + 1)//2)*((W + 3)//4)*N", "(H + 18)*(W + 18)"],
    ["(((H + 1)//2)*((W + 1)//2)*3 + H*W*64)*(1//N)*N", "H - N", "D*(W - H)"],
    ["(N*H + 7)//8", "W*N*((N*H + 7)//8)", "W"],
    ["((N*H*W*D)//5)*3 + max(N, W)", "N%3"],
    ["N", "N*N"],
    [],
]


def configurations(made: Grid) -> list[dict[str, int]]:
    return [made.row(number) for number in range(made.points)]


@pytest.mark.parametrize("texts", FORMULAS, ids=[", ".join(t) for t in FORMULAS])
def test_formulas_are_sums_of_products(texts: list[str]) -> None:
    made, formulas = grid(AXES), [parse(t) for t in texts]
    forms = separated(formulas, made)
    left, right = (Grid(tuple(a for k, a in enumerate(made.axes) if (k in forms.right) is there)) for there in (False, True))
    sides = [
        values(functions, side.rows(np.arange(side.points)), side.points) if side.axes else np.ones((len(functions), 1))
        for functions, side in ((forms.lefts, left), (forms.rights, right))
    ]
    found = np.einsum("iu,tji,jv->tuv", sides[0], forms.weights.astype(float), sides[1])
    for u in range(left.points):
        for v in range(right.points):
            at = {**left.row(u), **(right.row(v) if right.axes else {})}
            expected = [f if isinstance(f, int) else f.evaluate(at) for f in formulas]
            assert found[:, u, v].tolist() == [*expected, 1], at


def test_the_cheap_side_stands_on_the_right() -> None:
    made = grid([{"N": np.arange(1, 100)}, {"H": np.arange(1, 100)}, {"W": np.arange(1, 100)}])
    assert separated([parse("N*H*W"), parse("N*((H + W)//2)")], made).right == (0,)
    assert separated([parse("(N + H + W)//2")], made).right == ()


@pytest.mark.parametrize("share", [0.02, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_part_of_a_grid_is_grids_that_meet_nowhere(share: float, seed: int) -> None:
    made = grid(AXES)
    rng = np.random.default_rng(seed)
    mask = rng.random(made.lengths) < share
    if seed == 1:
        mask[:] = mask[:1]  # alike along an axis
    if seed == 2:
        mask[1:, :, 1:] = False
    found: list[int] = []
    for part, inside in made.where(mask):
        places = part.places if inside is None else part.places[inside.ravel()]
        found += places.tolist()
        assert [made.row(int(p)) for p in part.places] == configurations(part)
    assert sorted(found) == np.flatnonzero(mask).tolist()


def test_conditions_hold_where_they_say() -> None:
    made = grid(AXES)
    texts = ["N >= 2", "H <= 13", "(D//2)*2 == D", "H*N > W", "W%4 < 2", "N*H*W >= 150"]
    rng = random.Random(3)
    for count in range(len(texts) + 1):
        conditions = reduced([parse_guard(t) for t in rng.sample(texts, count)], ("N", "H", "D", "W"))
        rows, mask = made.within(conditions)
        part = made.at(rows)
        places = part.places if mask is None else part.places[mask.ravel()]
        assert places.tolist() == [n for n, at in enumerate(configurations(made)) if conditions.hold(at)]
