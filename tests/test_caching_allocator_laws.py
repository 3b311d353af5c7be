"""The caching allocator's laws for lists that hypothesis looks for, and shrinks where one fails."""

from __future__ import annotations

from typing import Any

import pytest

from tests.test_caching_allocator import MIB, holds

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")

SIZES = st.one_of(
    st.integers(1, 4096), st.integers(1, 2 * MIB), st.integers(MIB, 64 * MIB), st.sampled_from((512, MIB, MIB + 1, 10 * MIB, 20 * MIB))
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("m"), st.integers(0, 200), SIZES, st.integers(0, 2)),
        st.tuples(st.just("f"), st.integers(0, 200)),
        st.tuples(st.just("r"), st.integers(0, 200), st.integers(0, 2)),
        st.tuples(st.just("e")),
    ),
    max_size=60,
)
SETTINGS = st.sampled_from(
    (
        "",
        "expandable_segments:True",
        "expandable_segments:True,large_segment_size_mb:12",
        "max_split_size_mb:20",
        "max_split_size_mb:40,max_non_split_rounding_mb:30",
        "roundup_power2_divisions:[1:2,4:8,>:4]",
        "garbage_collection_threshold:0.3,per_process_memory_fraction:0.7",
    )
)
CAPACITIES = st.integers(30, 500)


def _distinct(steps: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The same steps, each name asked for once as long as it lives."""
    live: set[int] = set()
    kept = []
    for step in steps:
        if step[0] == "m" and step[1] in live:
            continue
        if step[0] == "m":
            live.add(step[1])
        elif step[0] == "f":
            live.discard(step[1])
        kept.append(step)
    return kept


@hypothesis.given(SETTINGS, CAPACITIES, STEPS)
@hypothesis.settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_any_list_keeps_the_laws(text: str, capacity: int, steps: list[tuple[Any, ...]]) -> None:
    holds(text, capacity * MIB, _distinct(steps))


@pytest.mark.slow
@hypothesis.given(SETTINGS, CAPACITIES, STEPS)
@hypothesis.settings(max_examples=10_000, deadline=None, derandomize=True, database=None)
def test_ten_thousand_lists_keep_the_laws(text: str, capacity: int, steps: list[tuple[Any, ...]]) -> None:
    holds(text, capacity * MIB, _distinct(steps))
