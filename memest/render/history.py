"""The step as an allocator history: the pickle that ``torch.cuda.memory._dump_snapshot`` writes and torch's memory_viz page opens.

The history begins empty: one segment, then the resident storages, then every event, in order. So its running sum of allocations and
frees is resident bytes plus the step's, and its maximum the peak. ``time_us`` is the number of the moment, not a time: 0 for what is
resident, ``i + 1`` for event ``i``. Addresses come from :mod:`memest.memory.placement`, an aid for drawing.
"""

from __future__ import annotations

import pickle

from memest.errors import UsageError
from memest.estimate.estimate import Estimate
from memest.estimate.series import series
from memest.memory.placement import place
from memest.memory.stream import Storage
from memest.render.cuda_history import cuda_snapshot
from memest.render.memory_viz import EXACT, PROTOCOL, Row, Trace, block, segment
from memest.render.reports import heading
from memest.runtimes.torch.cuda.replay import settings_for
from memest.runtimes.torch.script import script

BASE = 1 << 40  # where the segment lies: any address will do
PLACEMENT = "addresses are an aid for drawing (first fit, nothing rounded), not a prediction"


def render(estimate: Estimate) -> bytes:
    """The pickle; of a step on a card with the segments and addresses of its allocator, step after step from an empty one on. UsageError
    where a double cannot hold the addresses."""
    if estimate.recipe.target.on_cuda:
        return _on_card(estimate)
    residents = [s for s in estimate.timeline.residents if s.nbytes]
    placed = place(residents, estimate.events)
    if BASE + placed.extent > EXACT:
        raise UsageError(
            f"a history of {placed.extent:,} bytes: its viewers read numbers as doubles, exact up to 2^53; use a smaller shape"
        )
    return pickle.dumps(_History().snapshot(estimate, residents, placed.residents, placed.steps, placed.extent), PROTOCOL)


def _on_card(estimate: Estimate) -> bytes:
    """The steps that lead to the one asked about, on what the context leaves of the card."""
    target = estimate.recipe.target
    events, begins = script(estimate.steps)
    reserved, process = estimate.reserved.bytes, estimate.process.bytes
    assert reserved is not None
    assert process is not None
    capacity = max(0, target.device.memory_bytes - (process - reserved))
    found = cuda_snapshot((), events, settings_for(target), title=heading(estimate), capacity=capacity)
    ends = (*(begin for begin in begins[1:]), len(events))
    found["external_annotations"] = [
        {"device": 0, "time_us": time, "name": f"step {number}", "stage": stage}
        for number, (begin, end) in enumerate(zip(begins, ends, strict=True), 1)
        for stage, time in (("START", begin + 1), ("END", end))
    ]
    return pickle.dumps(found, PROTOCOL)


class _History:
    """Events and the blocks they leave."""

    def __init__(self) -> None:
        self.trace = Trace()
        self.blocks: dict[int, tuple[int, list[Row]]] = {}

    def snapshot(
        self, estimate: Estimate, residents: list[Storage], resident_places: tuple[int, ...], places: tuple[int, ...], extent: int
    ) -> Row:
        """The whole dict."""
        trace = self.trace
        about = trace.frames((PLACEMENT, "memest"))
        if extent:
            trace.add("segment_alloc", BASE, extent, about, 0)
        for storage, spot in zip(residents, resident_places, strict=True):
            self._allocate(storage, spot, trace.why(storage, "standing", storage.layer, "standing"), 0)
        for time, (step, spot) in enumerate(zip(estimate.events, places, strict=True), 1):
            frames = trace.why(step.storage, step.op or "release", step.layer, step.phase)
            if step.delta > 0:
                self._allocate(step.storage, spot, frames, time)
            else:
                self._free(-step.delta, spot, frames, time)
        trace.end(heading(estimate), len(places) + 1)
        return {
            "segments": [segment(BASE, extent, self._left(extent), about)] if extent else [],
            "device_traces": [trace.rows],
            "allocator_settings": {"written_by": "memest", "of": heading(estimate), "placement": PLACEMENT},
            "external_annotations": _phases(estimate),
        }

    def _allocate(self, storage: Storage, spot: int, frames: list[Row], time: int) -> None:
        self.trace.add("alloc", BASE + spot, storage.nbytes, frames, time)
        self.trace.name(storage.category)
        self.blocks[spot] = (storage.nbytes, frames)

    def _free(self, nbytes: int, spot: int, frames: list[Row], time: int) -> None:
        for action in ("free_requested", "free_completed"):
            self.trace.add(action, BASE + spot, nbytes, frames, time)
        del self.blocks[spot]

    def _left(self, extent: int) -> list[Row]:
        """The blocks that the step leaves and the gaps between them."""
        blocks: list[Row] = []
        at = 0
        for start, (nbytes, why) in [*sorted(self.blocks.items()), (extent, (0, []))]:
            if start > at:
                blocks.append(block(BASE + at, start - at, 0, "inactive", []))
            if nbytes:
                blocks.append(block(BASE + start, nbytes, nbytes, "active_allocated", why))
            at = start + nbytes
        return blocks


def _phases(estimate: Estimate) -> list[Row]:
    """The phases, as torch's allocator notes what ``record_function`` marks."""
    return [
        {"device": 0, "time_us": time, "name": span.name, "stage": stage}
        for span in series(estimate).phases
        for stage, time in (("START", span.start), ("END", span.stop))
    ]
