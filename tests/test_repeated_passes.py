"""Equal passes of a step: a stream says which of its events repeat others, and an allocator plays those that could still differ."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest

import memest
from memest.memory.allocators.caching import CachingAllocator
from memest.memory.allocators.replaying import Stretch, replay, replay_stretches
from memest.memory.allocators.settings import read_settings
from memest.memory.listing import Listing, listed
from memest.memory.stream import Stream
from memest.runtimes.table import play
from memest.runtimes.torch.cuda.replay import figures_of

MIB = 1 << 20
SLICED: dict[str, Any] = {"levers": ["micro_batch:size=1"], "runtime": "torch-cuda", "machine": "a100-40gb", "torch": "2.14"}
PASSES = [
    [(3 * MIB, 1), (7 * MIB, 2), (-1, 1), (512, 3), (5 * MIB, 4), (-1, 3), (-1, 2), (-1, 4)],
    [(30 * MIB, 1), (-1, 1), (11 * MIB, 2), (40 * MIB, 3), (-1, 2), (-1, 3)],
    [(1_500_000, 1), (900_000, 2), (-1, 1), (2_500_000, 3), (-1, 2), (1_100_000, 4), (-1, 3), (-1, 4)],
]


@pytest.mark.parametrize("levers", [["micro_batch:size=1"], ["accumulate:steps=9"], ["micro_batch:size=2", "accumulate:steps=3"]])
def test_a_stream_says_which_of_its_events_come_again(levers: list[str]) -> None:
    found = memest.estimate(memest.model("resnet18"), input_shape=(8, 3, 64, 64), levers=levers).timeline
    assert found.repeats
    for repeat in found.repeats:
        for n in range(repeat.times):
            begin = repeat.start + n * repeat.length
            before, here = (found.events[at : at + repeat.length] for at in (begin - repeat.length, begin))
            assert before == here
            assert sum(e.delta for e in here) == 0
    numbers = [n for n, _ in found.once()]
    assert len(numbers) == len(found.events) - sum(r.times * r.length for r in found.repeats)
    assert all(found.events[n] is e for n, e in found.once())


def test_the_peak_of_a_sliced_step_is_that_of_all_its_events() -> None:
    found = memest.estimate(memest.model("resnet18"), input_shape=(8, 3, 64, 64), levers=["micro_batch:size=1"])
    totals = list(accumulate(e.delta for e in found.events))
    assert found.requested_bytes - found.standing_bytes == max(totals)
    assert found.moment.index == totals.index(max(totals))


@pytest.mark.parametrize("text", ["", "expandable_segments:True", "max_split_size_mb:21", "roundup_power2_divisions:4"])
@pytest.mark.parametrize("capacity", [None, 130 * MIB, 60 * MIB])
@pytest.mark.parametrize("passes", PASSES)
def test_equal_passes_leave_what_all_of_them_would(passes: list[tuple[int, int]], capacity: int | None, text: str) -> None:
    settings = read_settings(text, (2, 14))
    begin, end = [(9 * MIB, 100), (25 * MIB, 101), (-1, 100)], [(33 * MIB, 102), (-1, 101)]
    whole = replay([*begin, *passes * 50, *end], settings, capacity=capacity)
    stretches = (Stretch(begin), Stretch(passes, 3, 50), Stretch(end, 3 + 50 * len(passes)))
    assert replay_stretches(stretches, CachingAllocator(settings, capacity=capacity), {}) == whole


def test_passes_that_are_not_played_are_not_asked_for() -> None:
    class Counting(CachingAllocator):
        asked = 0

        def malloc(self, nbytes: int, stream: int = 0):  # type: ignore[no-untyped-def]
            self.asked += 1
            return super().malloc(nbytes, stream)

    player = Counting()
    replay_stretches((Stretch(PASSES[0], 0, 1_000),), player, {})
    assert player.asked < 40


def test_ages_are_a_past_that_decides() -> None:
    settings = read_settings("garbage_collection_threshold:0.5,per_process_memory_fraction:0.9", (2, 14))
    player = CachingAllocator(settings, capacity=200 * MIB)
    assert player.answers() is None
    whole = replay(PASSES[1] * 20, settings, capacity=200 * MIB)
    assert replay_stretches((Stretch(PASSES[1], 0, 20),), player, {}) == whole


class Plain:
    """The steps of an estimate, with nothing said of what repeats."""

    is_first = keeps_gradients = distributed = whole = False
    converted: frozenset[str] = frozenset()

    def __init__(self, estimate: memest.Estimate) -> None:
        self.estimate = estimate

    def asked(self) -> Stream:
        return replace(self.estimate.timeline, repeats=())

    def listed(self) -> tuple[Listing, Listing]:
        return listed(self.first()), listed(self.asked())

    def first(self) -> Stream:
        e = self.estimate
        return replace(play(e.played, e.input_shapes, e.sizes, replace(e.recipe, step=1)), repeats=())


def test_the_figures_of_a_sliced_step_are_those_of_all_its_events() -> None:
    found = memest.estimate(memest.model("resnet18"), input_shape=(12, 3, 64, 64), **SLICED)
    assert found.timeline.repeats
    assert found.figures == figures_of(Plain(found), found.recipe.target)
