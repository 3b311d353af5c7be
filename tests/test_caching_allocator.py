"""torch's CUDA caching allocator, replayed: every address and count as torch 2.14.1's own allocator gave them, and laws for any list."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from memest.errors import OutOfMemoryError, UsageError
from memest.memory.allocators.blocks import FREE, USED, Block, Driver
from memest.memory.allocators.caching import CachingAllocator, blocks_of
from memest.memory.allocators.replaying import replay
from memest.memory.allocators.settings import read_settings, written

MIB = 1 << 20
RECORDED = Path(__file__).parent / "data" / "caching_allocator.jsonl.gz"


def recorded() -> list[dict[str, Any]]:
    """Lists that torch 2.14.1's CUDA allocator played over a runtime that hands out growing addresses and computes nothing. ``steps``:
    [m, name, bytes, stream], [f, name], [r, name, stream] (record_stream), [e] (empty_cache); ``rows``: address (or oom), allocated,
    reserved, active, requested and inactive_split bytes after each; ``tail``: the peaks of the first four, segments, retries, ooms,
    rejections, device allocations and frees. Lists of a group follow each other in one process; ``occupied`` MiB are somebody else's."""
    with gzip.open(RECORDED, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def played(group: dict[str, Any]) -> Iterator[tuple[list[Any], list[int]]]:
    """What our allocator makes of a group: rows and tail of each list."""
    driver = Driver(group["total"] * MIB)
    allocator = CachingAllocator(read_settings(group["settings"]), total=group["total"] * MIB, driver=driver)
    base = None
    for part in group["lists"]:
        allocator.empty_cache()
        allocator.reset_peaks()
        before = allocator.statistics()
        others = driver.malloc(part["occupied"] * MIB) if part["occupied"] else None
        probe = driver.malloc(2 * MIB)
        if probe is not None:
            driver.release(probe, 2 * MIB)
        base = probe if base is None else base
        live: dict[int, Block | None] = {}
        rows = []
        for step in part["steps"]:
            got: int | str | None = None
            if step[0] == "m":
                try:
                    block = live[step[1]] = allocator.malloc(step[2], step[3])
                    got = None if block is None or base is None else block.address - base
                except OutOfMemoryError:
                    got = "oom"
            elif step[0] == "f":
                allocator.free(live.pop(step[1], None))
            elif step[0] == "e":
                allocator.empty_cache()
            elif live.get(step[1]) is not None:
                allocator.record_stream(live[step[1]], step[2])
            s = allocator.statistics()
            rows.append([got, s.allocated, s.reserved, s.active, s.requested, s.inactive_split])
        tail = [s.allocated_peak, s.reserved_peak, s.active_peak, s.requested_peak, s.segments]
        counts = ("num_alloc_retries", "num_ooms", "num_oom_rejections", "num_device_alloc", "num_device_free")
        yield rows, [*tail, *(getattr(s, name) - getattr(before, name) for name in counts)]
        for block in live.values():
            allocator.free(block)
        allocator.empty_cache()
        if others is not None:
            driver.release(others, part["occupied"] * MIB)


def test_every_address_and_count_is_the_one_torch_recorded() -> None:
    groups = recorded()
    texts = " ".join(group["settings"] for group in groups)
    for word in (
        "expandable_segments:True",
        "max_split_size_mb",
        "max_non_split",
        "divisions:[",
        "collection",
        "large_segment",
        "fraction",
        "throw",
    ):
        assert word in texts, f"no recorded list was played with {word}"
    rows = [row for group in groups for part in group["lists"] for row in part["rows"]]
    assert sum(row[0] == "oom" for row in rows) >= 20 and len(rows) >= 4000
    for group in groups:
        for part, (ours, tail) in zip(group["lists"], played(group), strict=True):
            for step, got, want in zip(part["steps"], ours, part["rows"], strict=True):
                assert got == want, (group["settings"], group["total"], step)
            assert tail == part["tail"], (group["settings"], group["total"])


def some_list(seed: int) -> tuple[str, int | None, list[tuple[Any, ...]]]:
    """Settings, a capacity and a list of steps, by chance."""
    r = random.Random(seed)
    sizes = [r.choice((r.randint(1, 3000), r.randint(1, 2 * MIB), r.randint(MIB, 12 * MIB), r.randint(1, 80 * MIB))) for _ in range(8)]
    text = r.choice(("", "", "expandable_segments:True", "max_split_size_mb:24", "roundup_power2_divisions:4", "large_segment_size_mb:12"))
    steps: list[tuple[Any, ...]] = []
    live: list[int] = []
    for name in range(r.choice((10, 40, 90))):
        chance = r.random()
        if chance < 0.03:
            steps.append(("e",))
        elif chance < 0.58 or not live:
            steps.append(("m", name, r.choice(sizes), r.randrange(2)))
            live.append(name)
        elif chance < 0.64:
            steps.append(("r", r.choice(live), r.randrange(2)))
        else:
            steps.append(("f", live.pop(r.randrange(len(live)))))
    return text, r.choice((None, 60 * MIB, 150 * MIB, 400 * MIB)), steps


def check(allocator: CachingAllocator, live: dict[int, Block]) -> None:
    """What holds at any moment."""
    spans = sorted((b.address, b.address + b.size) for b in live.values())
    assert all(end <= start for (_, end), (start, _) in pairwise(spans)), "two blocks overlap"
    assert all(b.state == USED and b.size >= b.asked for b in live.values())
    assert allocator.allocated == sum(b.size for b in live.values()), "a block leaked"
    assert allocator.reserved >= allocator.active >= allocator.allocated >= allocator.requested - (allocator.active - allocator.allocated)
    total, free, last = 0, 0, 0
    for first, nbytes in allocator.segments():
        assert first.address >= last, "two segments overlap"
        last, before = first.address, None
        for block in blocks_of(first):
            assert block.address == last and block.size > 0 and block.size % 512 == 0
            assert block.before is before or block.expandable is not None
            assert not (before is not None and before.state == FREE == block.state), "free neighbours that are not one block"
            last, before = block.address + block.size, block
            free += block.size if block.state == FREE else 0
        assert last == first.address + nbytes
        total += nbytes
    assert total == allocator.reserved and free == total - allocator.active, "segments that do not add up"
    assert allocator.driver.capacity is None or allocator.driver.used <= allocator.driver.capacity


def holds(text: str, capacity: int | None, steps: list[tuple[Any, ...]], every: int = 1) -> None:
    """Plays steps, checks after each ``every``, and at the end that all of it comes back."""
    allocator = CachingAllocator(read_settings(text), capacity=capacity)
    live: dict[int, Block] = {}
    for at, (action, *of) in enumerate(steps):
        if action == "m":
            try:
                block = allocator.malloc(of[1], of[2])
            except OutOfMemoryError:
                assert capacity is not None and allocator.shortage is not None
            else:
                assert block is not None
                live[of[0]] = block
        elif action == "e":
            allocator.empty_cache()
        elif of[0] in live:
            allocator.record_stream(live[of[0]], of[1]) if action == "r" else allocator.free(live.pop(of[0]))
        if at % every == 0:
            check(allocator, live)
    for block in live.values():
        allocator.free(block)
    allocator.empty_cache()
    check(allocator, {})
    assert allocator.reserved == allocator.active == allocator.requested == allocator.driver.used == 0


def test_blocks_never_overlap_or_leak_and_what_is_reserved_holds_what_is_allocated() -> None:
    for seed in range(150):
        holds(*some_list(seed))


@pytest.mark.slow
def test_the_same_holds_for_ten_thousand_lists() -> None:
    for seed in range(10_000):
        holds(*some_list(1000 + seed), every=7)


def test_a_large_block_is_handed_out_whole_where_at_most_a_mebibyte_would_be_left() -> None:
    allocator = CachingAllocator()
    whole = allocator.malloc(11 * MIB)
    assert whole is not None and whole.size == 12 * MIB and allocator.reserved == 12 * MIB
    split = allocator.malloc(3 * MIB)
    assert split is not None and split.size == 3 * MIB and allocator.reserved == 32 * MIB
    small = allocator.malloc(1)
    assert small is not None and small.size == 512 and allocator.reserved == 34 * MIB
    assert allocator.malloc(0) is None and allocator.requested == 14 * MIB + 1


def test_a_list_says_when_it_peaks_and_where_a_card_runs_out() -> None:
    events = [(40 * MIB, 1), (4 * MIB, 2), (-40 * MIB, 1), (22 * MIB, 3), (50 * MIB, 4), (-4 * MIB, 2)]
    free = replay(events)
    assert (free.allocated, free.allocated_at) == (76 * MIB, 4) and (free.reserved, free.reserved_at) == (110 * MIB, 4)
    assert free.failed_at is None and free.shortage is None and free.requested == 76 * MIB
    full = replay(events, capacity=100 * MIB)
    assert full.failed_at == 4 and full.shortage is not None
    assert (full.shortage.asked, full.shortage.free, full.shortage.cached, full.shortage.largest) == (
        50 * MIB,
        40 * MIB,
        34 * MIB,
        18 * MIB,
    )
    assert "50.00 MiB asked for, 40.00 MiB free of 100.00 MiB" in str(full.shortage)
    assert replay(events, read_settings("expandable_segments:True"), capacity=100 * MIB).failed_at is None


def test_a_list_goes_on_where_another_ended() -> None:
    allocator, live = CachingAllocator(), dict[int, Block]()
    first = replay([(15 * MIB, 1), (6 * MIB, 2), (-15 * MIB, 1)], allocator=allocator, live=live)
    again = replay([(15 * MIB, 1), (-15 * MIB, 1)], allocator=allocator, live=live)
    assert list(live) == [2] and again.allocated == first.allocated and again.reserved == first.reserved


def test_expandable_segments_can_be_switched_while_blocks_of_both_kinds_stand() -> None:
    allocator = CachingAllocator()
    allocator.malloc(3 * MIB)
    allocator.switch(expandable=True)
    paged = allocator.malloc(30 * MIB)
    assert paged is not None and paged.expandable is not None and allocator.reserved == 60 * MIB
    allocator.free(paged)
    allocator.switch(expandable=False)
    whole = allocator.malloc(30 * MIB)
    assert whole is not None and whole.expandable is None and allocator.reserved == 90 * MIB


def test_a_block_cannot_be_freed_twice() -> None:
    allocator = CachingAllocator()
    block = allocator.malloc(1000)
    allocator.free(block)
    with pytest.raises(UsageError, match="not allocated"):
        allocator.free(block)


def test_settings_are_read_from_the_text_torch_takes() -> None:
    settings = read_settings(" max_split_size_mb:128 , expandable_segments:True, roundup_power2_divisions:[64:8,256:4,>:2],")
    assert settings.max_split_size == 128 * MIB and settings.expandable_segments
    assert settings.divisions == (8,) * 7 + (0, 4) + (2,) * 7
    assert read_settings("roundup_power2_divisions:8").divisions == (8,) * 16
    assert read_settings("large_segment_size_mb:64").large_segment_size == 64 * MIB
    assert read_settings("pinned_use_background_threads:True,backend:native") == read_settings("")


def test_settings_are_written_as_they_are_read() -> None:
    for text in (
        "",
        "expandable_segments:True",
        "max_split_size_mb:64,large_segment_size_mb:32",
        "roundup_power2_divisions:[64:8,256:4,>:2]",
    ):
        assert read_settings(written(read_settings(text))) == read_settings(text)
    assert written(read_settings("")) == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("expandable_segment:True", "did you mean 'expandable_segments'"),
        ("expandable_segments:true", "True or False, got 'true'; did you mean 'True'"),
        ("backend:cudaMallocAsync", "cudaMallocAsync is CUDA's own allocator"),
        ("backend:natve", "did you mean 'native'"),
        ("max_split_size_mb", "not name:value"),
        ("max_split_size_mb:", "not name:value"),
        ("max_split_size_mb:19", "at least 20, got 19"),
        ("max_split_size_mb:40,large_segment_size_mb:64", "at least 64, got 40"),
        ("max_split_size_mb:1e3", "whole number, got '1e3'"),
        ("large_segment_size_mb:10", "at least 11, got 10"),
        ("roundup_power2_divisions:3", "powers of two, got 3"),
        ("roundup_power2_divisions:[64:8,256", "a bracket has no other one"),
        ("roundup_power2_divisions:[64]", "'64' is not MiB:number"),
        ("garbage_collection_threshold:1", "between 0 and 1, got '1'"),
        ("per_process_memory_fraction:nan", "from 0 to 1, got 'nan'"),
    ],
)
def test_settings_that_torch_refuses_are_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_settings(text)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_setting_younger_than_the_version_is_refused() -> None:
    assert read_settings("throw_on_cudamalloc_oom:True", (2, 13)).throw_on_cudamalloc_oom
    with pytest.raises(UsageError, match=r"torch 2\.11 has no throw_on_cudamalloc_oom, which came with 2\.13"):
        read_settings("throw_on_cudamalloc_oom:True", (2, 11))
    with pytest.raises(UsageError, match="no card is given"):
        CachingAllocator(read_settings("per_process_memory_fraction:0.5"))
