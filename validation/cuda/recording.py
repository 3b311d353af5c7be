"""torch's CUDA caching allocator as the oracle: everything it was asked for, in order, with the Python function at work.

Needs torch with a device, a card's or the stand-in's. Events are those of ``torch.cuda.memory._record_memory_history``; their sizes are
the bytes asked for, before the allocator rounds them.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from validation.profiling import Measured, settle

MOST_EVENTS = 1_000_000
SEGMENTS = {"segment_alloc": 1, "segment_map": 1, "segment_free": -1, "segment_unmap": -1}
REQUESTS = {"alloc": 1, "free_requested": -1}


class Entry(NamedTuple):
    """One entry of the allocator's history: an action, bytes asked for, the address and the innermost Python functions."""

    action: str
    size: int
    address: int
    where: str


@dataclass(frozen=True)
class Recorded:
    """What a call did: bytes there before, the most at one moment, and the history in between."""

    standing: int
    reserved_before: int
    peak: int
    peak_reserved: int
    peak_requested: int
    entries: list[Entry]

    @property
    def events(self) -> list[Measured]:
        """Requests and releases, as the CPU's oracle gives them."""
        return [Measured(REQUESTS[e.action] * e.size, e.where) for e in self.entries if e.action in REQUESTS]

    @property
    def segments(self) -> list[tuple[int, int]]:
        """What was taken from the device, or given back, before which event: (position, bytes)."""
        found: list[tuple[int, int]] = []
        at = 0
        for e in self.entries:
            at += e.action in REQUESTS
            if e.action in SEGMENTS:
                found.append((at, SEGMENTS[e.action] * e.size))
        return found


def start() -> None:
    """Record once, so that all that recording imports is there, and put it out of the garbage collector's sight."""
    record_cuda(lambda: torch.ones(1, device="cuda", requires_grad=True).exp().backward())
    settle()


def clean() -> None:
    """The allocator as in a new process: nothing cached, no workspace of cuBLAS kept."""
    gc.collect()
    torch.cuda.synchronize()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()


def peaks_of(run: Callable[[], Any]) -> tuple[int, int]:
    """The most bytes allocated and reserved while ``run()`` runs."""
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()


def record_cuda(run: Callable[[], Any]) -> Recorded:
    """What the allocator did during ``run()``."""
    gc.collect()
    torch.cuda.synchronize()
    standing, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.memory._record_memory_history(enabled="all", context="alloc", stacks="python", max_entries=MOST_EVENTS)
    gc.disable()
    try:
        result = run()
        torch.cuda.synchronize()
        trace = torch.cuda.memory._snapshot()["device_traces"][torch.cuda.current_device()]
    finally:
        gc.enable()
        torch.cuda.memory._record_memory_history(enabled=None)
    del result
    stats = torch.cuda.memory_stats()
    return Recorded(
        standing, reserved, stats["allocated_bytes.all.peak"], stats["reserved_bytes.all.peak"], stats["requested_bytes.all.peak"],
        [Entry(e["action"], e["size"], e.get("addr", 0), _functions(e)) for e in trace if e["action"] != "snapshot"],
    )  # fmt: skip


def record(run: Callable[[], Any]) -> tuple[list[Measured], None]:
    """The same as a stream of requests, as ``validation.profiling.record`` gives it."""
    return record_cuda(run).events, None


def _functions(event: dict[str, Any]) -> str:
    """The innermost Python functions, outermost first."""
    frames = [f for f in event.get("frames") or [] if f["name"] != "<lambda>"][:4]
    return " / ".join(f["name"] for f in reversed(frames))
