"""The resident set of the process around torch's steps, at most in one of them.

What stands in it: the interpreter with torch's libraries (measured: ``process.json``, with the versions it belongs to), the pages and
objects that the first step adds, and the heap: tensors as glibc places them. Where the mmap threshold does not move, larger tensors are
mapped and their pages are given back at once, so that the heap is what is alive. Where it moves, holes stay: the steps are played from
several starts of the heap (:mod:`~memest.runtimes.torch.process.heap`), the figure is their median, and the range holds all of them and
what runs of one network differ by. jemalloc holds what a fixed threshold does and a share more (``keeps``): pages that were given back,
which it returns to the system after seconds; its range and that of a fixed threshold reach as far ``below`` and ``above`` the figure as 95
of 100 measured processes lie.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from memest.machines.process import Malloc, ProcessSettings
from memest.memory.allocators.glibc import Arena, ThreadArena
from memest.memory.figure import Figure, modelled
from memest.runtimes.runtime import Steps
from memest.runtimes.torch.process.blocks import layers_of, runs_of
from memest.runtimes.torch.process.heap import Plan, Player, leave
from memest.runtimes.torch.script import script
from memest.sizes.units import format_bytes

DATA = Path(__file__).with_name("process.json")
STARTS = range(3)  # of the heap, where the mmap threshold moves
VOLUME = 5
CONVOLUTIONS = frozenset({"convolution", "conv_transpose"})
ALONE = None
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
    less = _base(course, settings) + peak_of(course, OTHER, small=False)
    assert found.bytes is not None and found.low is not None and found.high is not None
    if less >= (1 - WORTH) * found.bytes:
        return found
    better = f"; with MALLOC_MMAP_THRESHOLD_={OTHER.mmap_threshold} about {format_bytes(less)}"
    return modelled(found.bytes, found.low, found.high, found.reason + better)


class Course:
    """What comes before the steps, and each of them up to the one asked about: the first, and one that finds what the first left.
    ``volumes`` are the layers that make tensors of five dims."""

    def __init__(self, steps: Steps) -> None:
        events, begins = script(steps)
        self.before = events[: begins[0]]
        parts = [events[start:stop] for start, stop in pairwise((*begins, len(events)))][:STEPS]
        self.layers = layers_of(steps, self.before)
        self.plans = [Plan.of(step, self.layers, first=n == 0) for n, step in enumerate(parts)]
        self.training = any(e.phase == "backward" for e in parts[-1])
        self.volumes = frozenset(name for name, spec in steps.asked().values.items() if len(spec.shape) == VOLUME)

    @cached_property
    def added(self) -> list[int]:
        """Bytes that the first step has added to the process by each of its events: pages of libraries, with the calls of operators that
        are new, the code that oneDNN compiles for each convolution that is, and what MKL keeps once it has multiplied for one: torch's own
        convolution of volumes (``slow_conv3d``, small ones of one sample) asks no library for a workspace."""
        numbers, events = measured(), self.plans[0].events
        runs = runs_of(events, self.layers)
        kinds = len({(run.op, run.phase) for run in runs})
        pages = numbers["pages"]["train" if self.training else "infer"]
        seen: set[tuple[str, str]] = set()
        compiled: set[tuple[str, str, tuple[int, ...]]] = set()
        code, kept, found = numbers["pools"], 0, []
        for run in runs:
            seen.add((run.op, run.phase))
            call = run.op, run.phase, tuple(e.delta for e in events[run.start : run.stop])
            if run.op in CONVOLUTIONS and call not in compiled:
                compiled.add(call)
                volume = run.layer in self.volumes
                if volume and all(e.storage.category != "workspace" for e in events[run.start : run.stop]):
                    kept = numbers["products"]
                else:
                    code += (2 if run.phase == "backward" else 1) * numbers["code"]["volume" if volume else "image"]  # by data, by filter
            found += [code + kept + pages * len(seen) // kinds] * (run.stop - run.start)
        return found


def _base(course: Course, settings: ProcessSettings) -> int:
    """The interpreter with what it imports; making an optimizer imports what torchvision does, too."""
    imports = measured()["imports"]
    found: int = imports[settings.imports] + (imports["optimizer"] if course.training and settings.imports == "torch" else 0)
    return found


def _process(course: Course, settings: ProcessSettings) -> Figure:
    numbers, malloc = measured(), settings.malloc
    regime = "jemalloc" if malloc.name == "jemalloc" else "glibc" if malloc.moves else "fixed"
    base = _base(course, settings)
    heaps = [peak_of(course, malloc, start) for start in (STARTS if malloc.moves else STARTS[:1])]
    if malloc.name == "jemalloc":
        heaps = [round(heap + numbers["jemalloc"]["keeps"] * max(0, heap - course.added[-1])) for heap in heaps]
    heap = round(median(heaps))
    nbytes, off = base + heap, numbers[regime]
    low, high = round((base + min(heaps)) * (1 - off["below"])), round((base + max(heaps)) * (1 + off["above"]))
    first = course.added[-1]
    parts = f"Python with {settings.imports} ({format_bytes(base)}), what the first step adds ({format_bytes(first)})"
    reason = (
        f"{parts}, and {format_bytes(max(0, heap - first))} of tensors under {malloc}; modelled; of {off['cases']} processes, two steps "
        f"each, with torch {numbers['torch']}, glibc {numbers['libc']} half are within {off['median']:.1%}, all within "
        f"{off['worst']:.1%}, and the range held {off['held']} of {2 * off['cases']}"
    )
    return modelled(nbytes, low, high, reason)


def peak_of(course: Course, malloc: Malloc, start: int = 0, *, small: bool = True) -> int:
    """The most resident bytes of heaps, mapped blocks and what the first step adds, in the last of the steps, from one start of the heap;
    ``small`` blocks are played, too, or are left out."""
    if malloc.name == "jemalloc":
        malloc = OTHER
    arena = Arena(mmap_threshold=malloc.mmap_threshold, trim_threshold=malloc.trim_threshold, top_pad=malloc.top_pad)
    if malloc.moves:
        arena.mmap_threshold, arena.trim_threshold = measured()["threshold"], 2 * measured()["threshold"]
    if small:
        leave(arena, start)
    player = Player(arena, small=small)
    for event in course.before:
        player.move(event)
    most = 0
    for n, (plan, thread) in enumerate(zip(course.plans, _threads(malloc), strict=False)):
        player.go_on(thread or arena)
        most = player.step(plan, course.added if n == 0 else [course.added[-1]] * len(plan.events))
    return most


def _threads(malloc: Malloc) -> Iterator[Arena | None]:
    """The arena of the thread that runs each step; None: the main one."""
    kept = [ThreadArena(mmap_threshold=malloc.mmap_threshold, trim_threshold=malloc.trim_threshold, top_pad=malloc.top_pad)]
    while True:
        if malloc.thread == "main" or malloc.arena_max == 1:
            yield None
        elif malloc.thread == "worker":
            yield kept[0]
        else:
            yield ThreadArena(mmap_threshold=malloc.mmap_threshold, trim_threshold=malloc.trim_threshold, top_pad=malloc.top_pad)
