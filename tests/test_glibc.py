"""The simulation of glibc's malloc against glibc's own answers."""

from __future__ import annotations

import json
import platform
import shutil
from pathlib import Path

import pytest

from memest.memory.allocators.glibc import FIRST, MAPPED, Arena, ThreadArena, chunk_size, large_bin
from validation.process.replaying import STORED, Sizes, answered, compiled, differences, random_calls, simulated

LOGS = json.loads(STORED.read_text(encoding="utf-8"))["logs"]
HERE = shutil.which("cc") is not None and platform.libc_ver() == ("glibc", "2.36")


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log["sizes"])
def test_stored_answers_are_the_simulation_s(log: dict[str, list[int]]) -> None:
    assert differences(log["answers"], simulated(log["calls"], Arena())) == []  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("replay"))


@pytest.mark.skipif(not HERE, reason="needs a C compiler and glibc 2.36")
@pytest.mark.parametrize("sizes", ["small", "middle", "large"])
@pytest.mark.parametrize(("seeds", "most"), [(2, 1000), pytest.param(4, 2000, marks=pytest.mark.slow)])
def test_random_calls_get_the_addresses_that_glibc_gives(
    sizes: Sizes, seeds: int, most: int, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")  # as it may stand around a test: the program is run without
    for seed in range(100, 100 + seeds):
        calls = random_calls(seed, most, sizes)
        assert differences(answered(calls, program), simulated(calls, Arena())) == []


@pytest.mark.skipif(not HERE, reason="needs a C compiler and glibc 2.36")
@pytest.mark.parametrize("sizes", ["small", "middle"])
def test_another_thread_s_calls_get_the_places_that_glibc_gives(sizes: Sizes, program: Path) -> None:
    for seed in range(200, 203):
        calls = random_calls(seed, 1500, sizes)
        assert differences(answered(calls, program, in_thread=True), simulated(calls, ThreadArena()), in_thread=True) == []


def test_chunks_and_bins() -> None:
    assert [chunk_size(n) for n in (0, 24, 25, 1032)] == [32, 32, 48, 1040]
    bins = [large_bin(size) for size in range(1024, 1 << 22, 16)]
    assert bins == sorted(bins) and bins[0] == 64 and bins[-1] == 126


def test_the_threshold_follows_what_is_freed() -> None:
    arena, fixed = Arena(), Arena(mmap_threshold=131072)
    for a in (arena, fixed):
        first = a.malloc(24)
        assert first == FIRST + 16
        large = a.malloc(1 << 20)
        assert large >= MAPPED and a.mmap_threshold == 128 * 1024
        a.free(large)
        a.free(first)
        assert a.malloc(24) == first  # from the thread cache
    assert arena.mmap_threshold == (1 << 20) + 4096 and arena.trim_threshold == 2 * arena.mmap_threshold
    assert arena.malloc(1 << 20) < MAPPED <= fixed.malloc(1 << 20)


def test_what_is_given_back_is_resident_until_the_heap_is_trimmed() -> None:
    arena = Arena(trim_threshold=1 << 20, mmap_threshold=32 << 20)
    below, above = arena.malloc(4 << 20), arena.malloc(4 << 20)
    most = arena.resident
    arena.free(below)
    assert arena.resident == most >= 8 << 20
    arena.free(above)
    assert arena.resident < 1 << 20
