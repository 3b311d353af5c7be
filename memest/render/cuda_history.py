"""A step on a GPU as an allocator history: the stream, replayed through torch's caching allocator, with its segments and addresses.

What :mod:`memest.render.history` is for the CPU, where addresses are only drawn; here they are those that the allocator gives, and
segments come and go as it asks for them. The history begins empty, with what stands before the step.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import Any

from memest.errors import OutOfMemoryError
from memest.memory.allocators.blocks import USED, Block, Driver
from memest.memory.allocators.caching import CachingAllocator, blocks_of
from memest.memory.allocators.settings import DEFAULT, Settings, written
from memest.memory.stream import Event, Storage
from memest.render.memory_viz import PROTOCOL, Row, Trace, block, segment


class _Noting(Driver):
    """A driver whose segments and pages become events, before the allocation that asked for them."""

    def __init__(self, capacity: int | None, trace: Trace) -> None:
        super().__init__(capacity)
        self.why: tuple[list[Row], int] = ([], 0)
        self._trace = trace

    def malloc(self, nbytes: int) -> int | None:
        """As the driver's, and noted."""
        address = super().malloc(nbytes)
        if address is not None:
            self._trace.add("segment_alloc", address, nbytes, *self.why)
        return address

    def release(self, address: int, nbytes: int) -> None:
        """As the driver's, and noted."""
        super().release(address, nbytes)
        self._trace.add("segment_free", address, nbytes, *self.why)

    def map(self, address: int, nbytes: int) -> bool:
        """As the driver's, and noted."""
        done = super().map(address, nbytes)
        if done:
            self._trace.add("segment_map", address, nbytes, *self.why)
        return done

    def unmap(self, address: int, nbytes: int) -> None:
        """As the driver's, and noted."""
        super().unmap(address, nbytes)
        self._trace.add("segment_unmap", address, nbytes, *self.why)


def cuda_snapshot(
    residents: Iterable[Storage], events: Iterable[Event], settings: Settings = DEFAULT, *, title: str, capacity: int | None = None
) -> dict[str, Any]:
    """The dict that ``torch.cuda.memory._snapshot`` gives, up to the event that ``capacity`` has no room for. An
    event of 0 bytes empties the cache."""
    trace = Trace()
    driver = _Noting(capacity, trace)
    allocator = CachingAllocator(settings, driver=driver)
    live: dict[int, tuple[Block, list[Row]]] = {}
    time = 0

    def allocate(storage: Storage, nbytes: int, frames: list[Row]) -> None:
        driver.why = (frames, time)
        found = allocator.malloc(nbytes)
        if found is None:
            return
        trace.add("alloc", found.address, nbytes, frames, time)
        trace.name(storage.category)
        live[storage.id] = (found, frames)

    try:
        for storage in residents:
            allocate(storage, storage.nbytes, trace.why(storage, "standing", storage.layer, "standing"))
        for time, event in enumerate(events, 1):
            frames = trace.why(event.storage, event.op or "release", event.layer, event.phase)
            if event.delta > 0:
                allocate(event.storage, event.delta, frames)
            elif not event.delta:
                driver.why = (frames, time)
                allocator.empty_cache()
            elif event.storage.id in live:
                found, _ = live.pop(event.storage.id)
                for action in ("free_requested", "free_completed"):
                    trace.add(action, found.address, found.asked, frames, time)
                allocator.free(found)
                if event.storage.empties:
                    driver.why = (frames, time)
                    allocator.empty_cache()
    except OutOfMemoryError:
        shortage = allocator.shortage
        assert shortage is not None
        trace.rows.append({**_row("oom", shortage.asked, driver.why), "device_free": shortage.free})
    trace.end(title, time + 1)
    frames_of = {b.address: frames for b, frames in live.values()}
    return {
        "segments": [_segment(first, size, frames_of) for first, size in allocator.segments()],
        "device_traces": [trace.rows],
        "allocator_settings": {"written_by": "memest", "of": title, "PYTORCH_CUDA_ALLOC_CONF": written(settings)},
        "external_annotations": [],
    }


def cuda_history(
    residents: Iterable[Storage], events: Iterable[Event], settings: Settings = DEFAULT, *, title: str, capacity: int | None = None
) -> bytes:
    """The same as the pickle that torch's memory_viz opens."""
    return pickle.dumps(cuda_snapshot(residents, events, settings, title=title, capacity=capacity), PROTOCOL)


def _segment(first: Block, size: int, frames_of: dict[int, list[Row]]) -> Row:
    blocks = [_block(b, frames_of) for b in blocks_of(first)]
    return segment(first.address, size, blocks, [], small=first.pool.small, expandable=first.expandable is not None)


def _block(found: Block, frames_of: dict[int, list[Row]]) -> Row:
    used = found.state == USED
    state = "active_allocated" if used else "inactive"
    return block(found.address, found.size, found.asked if used else 0, state, frames_of.get(found.address, []) if used else [])


def _row(action: str, size: int, why: tuple[list[Row], int]) -> Row:
    return {"action": action, "size": size, "stream": 0, "time_us": why[1], "frames": why[0]}
