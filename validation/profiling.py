"""Torch's own allocator as the oracle: every allocation and release on CPU, in order, with the operator that made it.

Needs torch. The events are ``torch.profiler``'s memory events (profile_memory=True): exact request sizes, empty requests left out.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, NamedTuple

from torch.profiler import ProfilerActivity, profile


class Measured(NamedTuple):
    """One allocation (``delta`` > 0) or release, and the stack of operators it happened in. ``old``: what is released was there before."""

    delta: int
    where: str
    old: bool = False


def settle() -> None:
    """Put what is imported out of the garbage collector's sight: collecting before each record then takes no time."""
    gc.collect()
    gc.freeze()


def watched(run: Callable[[], Any]) -> None:
    """``run()`` under the profiler, which tells later of the releases of what it saw: a module may let go of what its last call kept."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True):
        run()


def record(run: Callable[[], Any]) -> tuple[list[Measured], Any]:
    """The event stream of ``run()``, and its result (kept alive until the profile has ended)."""
    gc.collect()
    gc.disable()
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as p:
            result = run()
    finally:
        gc.enable()
    found: list[tuple[int, int, int, str, int]] = []
    order = 0

    def walk(node: Any, path: tuple[str, ...]) -> None:
        nonlocal order
        if node.tag.name == "Allocation":
            found.append((node.start_time_ns, order, node.extra_fields.alloc_size, " / ".join(path), node.extra_fields.ptr))
            order += 1
        for child in node.children:
            walk(child, (*path, node.name))

    kineto = p.profiler.kineto_results
    for root in kineto.experimental_event_tree():
        walk(root, ())
    found.sort(key=lambda e: e[:2])
    alive: set[int] = set()
    events = []
    for _, _, size, where, at in found:
        events.append(Measured(size, where, size < 0 and at not in alive))
        (alive.add if size > 0 else alive.discard)(at)
    return events, result
