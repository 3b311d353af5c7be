"""The resident set of the process around torch's steps, at most in one of them.

What stands in it: the interpreter with torch's libraries (measured: ``process.json``, with the versions it belongs to), the pages and
objects that the first step adds, and the heap: tensors as glibc places them. Where the mmap threshold does not move, larger tensors are
mapped and their pages are given back at once, so that the heap is what is alive. Where it moves, holes stay: the steps are played several
times (:mod:`~memest.runtimes.torch.process.heap`), the figure is the median and its range at least what the runs differ by.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from memest.machines.process import Malloc, ProcessSettings
from memest.memory.allocators.glibc import Arena, ThreadArena
from memest.memory.figure import Figure, modelled
from memest.memory.stream import Event
from memest.runtimes.runtime import Steps
from memest.runtimes.torch.process.heap import Noise, Plan, Player
from memest.runtimes.torch.script import script
from memest.sizes.units import format_bytes

DATA = Path(__file__).with_name("process.json")
EXACT = Noise(0, 0.0)
RUNS = (EXACT, Noise(1, 0.05), Noise(2, 0.05))
STEPS = 2  # that are played: a third one is like the second
OTHER = Malloc(mmap_threshold=131072)
WORTH = 0.03  # of the process: what another setting has to save to be named


@cache
def measured() -> dict[str, Any]:
    """The numbers of the model, in bytes."""
    found: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return found


def process_of(steps: Steps, settings: ProcessSettings) -> Figure:
    """The resident peak of the step asked about, and its range; the reason names the setting that would bring it down."""
    course = Course(steps)
    found = _process(course, settings)
    if not settings.malloc.moves:
        return found
    less = _process(course, ProcessSettings(malloc=OTHER, imports=settings.imports)).bytes
    assert less is not None and found.bytes is not None and found.low is not None and found.high is not None
    if less >= (1 - WORTH) * found.bytes:
        return found
    better = f"; with MALLOC_MMAP_THRESHOLD_={OTHER.mmap_threshold}: {format_bytes(less)}"
    return modelled(found.bytes, found.low, found.high, found.reason + better)


class Course:
    """What comes before the steps, and each of them up to the one asked about: the first, and one that finds what the first left."""

    def __init__(self, steps: Steps) -> None:
        events, begins = script(steps)
        bounds = (*begins, len(events))
        self.before = events[: begins[0]]
        self.steps = [events[start:stop] for start, stop in pairwise(bounds)][:STEPS]
        self.training = any(e.phase == "backward" for e in self.steps[-1])

    @cached_property
    def plans(self) -> list[Plan]:
        """The steps with the small blocks that each call asks for."""
        return [Plan.of(step, first=n == 0) for n, step in enumerate(self.steps)]

    @cached_property
    def bare(self) -> list[Plan]:
        """The steps without."""
        return [Plan(step, (), {}) for step in self.steps]


def _process(course: Course, settings: ProcessSettings) -> Figure:
    numbers, malloc = measured(), settings.malloc
    regime = "jemalloc" if malloc.name == "jemalloc" else "glibc" if malloc.moves else "fixed"
    optimizer = course.training and settings.imports == "torch"  # torchvision imports what making an optimizer imports
    base = numbers["imports"][settings.imports] + (numbers["imports"]["optimizer"] if optimizer else 0)
    first = numbers["first"]["train" if course.training else "infer"]
    if malloc.moves:
        heaps = [peak_of(course.before, course.plans, malloc, noise) for noise in RUNS]
    else:
        heaps = [peak_of(course.before, course.bare, malloc)]
    heap = round(median(heaps))
    nbytes, off = base + first + heap, numbers[regime]
    low = min(base + first + min(heaps), round(nbytes * (1 - off["range"])))
    high = max(base + first + max(heaps), round(nbytes * (1 + off["range"])))
    parts = f"Python with {settings.imports} ({format_bytes(base)}), what the first step adds ({format_bytes(first)})"
    reason = (
        f"{parts}, and {format_bytes(heap)} of tensors under {malloc}; modelled, and of {off['cases']} processes measured with torch "
        f"{numbers['torch']}, glibc {numbers['libc']} half are within {off['median']:.1%}, all within {off['worst']:.1%}"
    )
    return modelled(nbytes, low, high, reason)


def peak_of(before: Sequence[Event], plans: Sequence[Plan], malloc: Malloc, noise: Noise = EXACT) -> int:
    """The most resident bytes of the heaps and mapped blocks in the last of the steps."""
    arena = Arena(mmap_threshold=malloc.mmap_threshold, trim_threshold=malloc.trim_threshold, top_pad=malloc.top_pad)
    if malloc.name == "jemalloc":
        arena = Arena(mmap_threshold=1)
    elif malloc.moves:
        arena.mmap_threshold, arena.trim_threshold = measured()["threshold"], 2 * measured()["threshold"]
    player = Player(arena, noise)
    for event in before:
        player.move(event)
    most = 0
    for plan, thread in zip(plans, _threads(malloc), strict=False):
        player.go_on(thread or arena)
        most = player.step(plan)
    return most


def _threads(malloc: Malloc) -> Iterator[Arena | None]:
    """The arena of the thread that runs each step; None: the main one."""
    kept = [ThreadArena(mmap_threshold=malloc.mmap_threshold, trim_threshold=malloc.trim_threshold, top_pad=malloc.top_pad)]
    while True:
        if malloc.thread == "main" or malloc.arena_max == 1 or malloc.name == "jemalloc":
            yield None
        elif malloc.thread == "worker":
            yield kept[0]
        else:
            yield ThreadArena(mmap_threshold=malloc.mmap_threshold, trim_threshold=malloc.trim_threshold, top_pad=malloc.top_pad)
