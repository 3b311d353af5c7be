"""The step as an allocator history: the pickle that ``torch.cuda.memory._dump_snapshot`` writes and torch's memory_viz page opens.

The history begins empty: one segment, then the resident storages, then every event, in order. So its running sum of allocations and
frees is resident bytes plus the step's, and its maximum the peak. ``time_us`` is the number of the moment, not a time: 0 for what is
resident, ``i + 1`` for event ``i``. Addresses come from :mod:`memest.memory.placement`, an aid for drawing. Frames say, innermost first,
the operator and its layer, why the storage is kept, its category and the phase.

Format: torch/csrc/cuda/Module.cpp (``_memory_snapshot``) writes it, torch/utils/viz/MemoryViz.js and torch/cuda/_memory_viz.py read it. The
page's own unpickler knows the opcodes of protocols 2 to 4 that plain dicts, lists, strings and ints need, and nothing else is written.
"""

from __future__ import annotations

import pickle
from functools import cache
from typing import Any

from memest.errors import UsageError
from memest.estimate.estimate import Estimate
from memest.estimate.series import series
from memest.memory.placement import place
from memest.memory.stream import Storage
from memest.render.reports import heading

PROTOCOL = 4
BASE = 1 << 40  # where the segment lies: any address will do
EXACT = 1 << 53  # the page reads numbers as doubles
PLACEMENT = "addresses are an aid for drawing (first fit, nothing rounded), not a prediction"
_Event = dict[str, Any]


def render(estimate: Estimate) -> bytes:
    """The pickle. UsageError where a double cannot hold the addresses."""
    residents = [s for s in estimate.timeline.residents if s.nbytes]
    placed = place(residents, estimate.events)
    if BASE + placed.extent > EXACT:
        raise UsageError(
            f"a history of {placed.extent:,} bytes: its viewers read numbers as doubles, exact up to 2^53; use a smaller shape"
        )
    return pickle.dumps(_History().snapshot(estimate, residents, placed.residents, placed.steps, placed.extent), PROTOCOL)


class _History:
    """Events and the blocks they leave. Equal frames are one object, which a pickle writes once."""

    def __init__(self) -> None:
        self.trace: list[_Event] = []
        self.blocks: dict[int, tuple[int, list[_Event]]] = {}
        self._frame = cache(lambda name, filename: {"name": name, "filename": filename, "line": 0})
        self._frames = cache(lambda *frames: [self._frame(*f) for f in frames if f[0]])

    def snapshot(
        self, estimate: Estimate, residents: list[Storage], resident_places: tuple[int, ...], places: tuple[int, ...], extent: int
    ) -> _Event:
        """The whole dict."""
        about = self._frames((PLACEMENT, "memest"))
        if extent:
            self._add("segment_alloc", BASE, extent, about, 0)
        for storage, spot in zip(residents, resident_places, strict=True):
            self._allocate(storage, spot, self._why(storage, "standing", storage.layer, "standing"), 0)
        for time, (step, spot) in enumerate(zip(estimate.events, places, strict=True), 1):
            frames = self._why(step.storage, step.op or "release", step.layer, step.phase)
            if step.delta > 0:
                self._allocate(step.storage, spot, frames, time)
            else:
                self._free(-step.delta, spot, frames, time)
        # MemoryViz.js misspells what it does when categories are given and none is called "unknown": this event names it.
        self._add("snapshot", 0, 0, self._frames((heading(estimate), "memest")), len(places) + 1)
        self.trace[-1]["category"] = "unknown"
        return {
            "segments": [self._segment(extent, about)] if extent else [],
            "device_traces": [self.trace],
            "allocator_settings": {"written_by": "memest", "of": heading(estimate), "placement": PLACEMENT},
            "external_annotations": _annotations(estimate),
        }

    def _add(self, action: str, address: int, size: int, frames: list[_Event], time: int) -> None:
        self.trace.append({"action": action, "addr": address, "size": size, "stream": 0, "time_us": time, "frames": frames})

    def _why(self, storage: Storage, op: str, layer: str, phase: str) -> list[_Event]:
        return self._frames((op, layer or "step"), (storage.reason, "reason"), (storage.category, "category"), (phase, "phase"))

    def _allocate(self, storage: Storage, spot: int, frames: list[_Event], time: int) -> None:
        self._add("alloc", BASE + spot, storage.nbytes, frames, time)
        self.trace[-1]["category"] = storage.category
        self.blocks[spot] = (storage.nbytes, frames)

    def _free(self, nbytes: int, spot: int, frames: list[_Event], time: int) -> None:
        for action in ("free_requested", "free_completed"):
            self._add(action, BASE + spot, nbytes, frames, time)
        del self.blocks[spot]

    def _segment(self, extent: int, frames: list[_Event]) -> _Event:
        """The one segment, with the blocks that the step leaves and the gaps between them."""
        blocks: list[_Event] = []
        at = 0
        for start, (nbytes, why) in [*sorted(self.blocks.items()), (extent, (0, []))]:
            if start > at:
                blocks.append(_block(at, start - at, 0, "inactive", []))
            if nbytes:
                blocks.append(_block(start, nbytes, nbytes, "active_allocated", why))
            at = start + nbytes
        alive = sum(nbytes for nbytes, _ in self.blocks.values())
        return {
            "device": 0,
            "address": BASE,
            "total_size": extent,
            "allocated_size": alive,
            "active_size": alive,
            "requested_size": alive,
            "stream": 0,
            "segment_type": "large",
            "segment_pool_id": [0, 0],
            "is_expandable": False,
            "frames": frames,
            "blocks": blocks,
        }


def _block(start: int, size: int, requested: int, state: str, frames: list[_Event]) -> _Event:
    return {"address": BASE + start, "size": size, "requested_size": requested, "state": state, "frames": frames}


def _annotations(estimate: Estimate) -> list[_Event]:
    """The phases, as torch's allocator notes what ``record_function`` marks."""
    return [
        {"device": 0, "time_us": time, "name": span.name, "stage": stage}
        for span in series(estimate).phases
        for stage, time in (("START", span.start), ("END", span.stop))
    ]
