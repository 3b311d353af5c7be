"""The events of torch's memory_viz: rows of a trace, with frames that say why a storage is there.

Frames say, innermost first, the operator and its layer, why the storage is kept, its category and the phase. Equal frames are one object,
which a pickle writes once. Format: torch/csrc/cuda/Module.cpp (``_memory_snapshot``) writes it, torch/utils/viz/MemoryViz.js and
torch/cuda/_memory_viz.py read it; the page's own unpickler knows the opcodes of protocols 2 to 4 that plain dicts, lists, strings and
ints need.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from memest.memory.stream import Storage

PROTOCOL = 4
EXACT = 1 << 53  # the page reads numbers as doubles
Row = dict[str, Any]


class Trace:
    """Events in their order. ``time`` is the number of a moment, not a time: 0 for what stands before, ``i + 1`` for event ``i``."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._frame = cache(lambda name, filename: {"name": name, "filename": filename, "line": 0})
        self.frames = cache(lambda *frames: [self._frame(*f) for f in frames if f[0]])

    def why(self, storage: Storage, op: str, layer: str, phase: str) -> list[Row]:
        """The frames of an event of a storage."""
        return self.frames((op, layer or "step"), (storage.reason, "reason"), (storage.category, "category"), (phase, "phase"))

    def add(self, action: str, address: int, size: int, frames: list[Row], time: int, stream: int = 0) -> None:
        """An event."""
        self.rows.append({"action": action, "addr": address, "size": size, "stream": stream, "time_us": time, "frames": frames})

    def name(self, category: str) -> None:
        """The category of the last event."""
        self.rows[-1]["category"] = category

    def end(self, title: str, time: int) -> None:
        """The last event. MemoryViz.js misspells what it does when categories are given and none is "unknown": this one names it."""
        self.add("snapshot", 0, 0, self.frames((title, "memest")), time)
        self.name("unknown")


def block(address: int, size: int, requested: int, state: str, frames: list[Row]) -> Row:
    """A block of a segment."""
    return {"address": address, "size": size, "requested_size": requested, "state": state, "frames": frames}


def segment(
    address: int, size: int, blocks: list[Row], frames: list[Row], *, stream: int = 0, small: bool = False, expandable: bool = False
) -> Row:
    """A segment of these blocks."""
    live = [b for b in blocks if b["state"] == "active_allocated"]
    alive = sum(b["size"] for b in live)
    return {
        "device": 0,
        "address": address,
        "total_size": size,
        "allocated_size": alive,
        "active_size": alive,
        "requested_size": sum(b["requested_size"] for b in live),
        "stream": stream,
        "segment_type": "small" if small else "large",
        "segment_pool_id": [0, 0],
        "is_expandable": expandable,
        "frames": frames,
        "blocks": blocks,
    }
