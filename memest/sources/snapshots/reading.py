"""A file of ``torch.cuda.memory._dump_snapshot``, or of ``torch.cuda.memory_snapshot()`` pickled, as histories of its devices.

Takes the forms of torch 1.12 to 2.14, and of allocators that follow torch's (torch_npu): blocks without addresses or requested sizes,
frames in a block's ``history``, names of states that changed, records without events. What is neither is refused, with its place.
Format: torch/csrc/cuda/Module.cpp (``THCPModule_memorySnapshot``) and torch/cuda/_memory_viz.py in pytorch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from memest.errors import FileError, UsageError, kind_of
from memest.memory.allocators.blocks import AWAITING, FREE, SMALL_SEGMENT, USED
from memest.memory.allocators.history import Entry, Frame, History, Piece, Segment
from memest.memory.allocators.settings import CLASSES, DEFAULT, UNLIMITED, Settings, read_settings
from memest.sources.snapshots.unpickling import MAX_BYTES, unpickled

ACTIONS = ("alloc", "free_requested", "free_completed", "segment_alloc", "segment_free", "segment_map", "segment_unmap", "oom")
SILENT = ("snapshot", "user_defined")  # marks: nothing is taken or given back
STATES = {"active_allocated": USED, "active_awaiting_free": AWAITING, "active_pending_free": AWAITING, "inactive": FREE}
MAX_ADDRESS = 1 << 64
MAX_DEVICES = 1024
MAX_ROWS = 10_000_000  # segments, blocks, events and frames, counting what a file names again
HOW = "torch.cuda.memory._record_memory_history() before, torch.cuda.memory._dump_snapshot(FILE) after"


def load_histories(path: Path) -> tuple[History, ...]:
    """The devices of a file that hold anything; FileError for a file that is no snapshot."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileError(f"{path}: more than {MAX_BYTES >> 20} MiB; record fewer entries (max_entries of _record_memory_history)")
        raw = path.read_bytes()
    except OSError as e:
        raise FileError(f"{path}: cannot be read: {e.strerror or e}") from None
    return read_histories(raw, str(path))


def read_histories(raw: bytes, source: str) -> tuple[History, ...]:
    """The same of bytes that are at hand; ``source`` names them in errors."""
    if raw[:1] in (b"{", b"["):
        raise FileError(f"{source}: JSON, not a pickle; a snapshot is written by {HOW}")
    return _Reader(source).histories(unpickled(raw, source))


class _Reader:
    """From plain data to histories. Equal stacks and names are kept once; ``_left`` bounds how much is read in all, however often the file
    names the same list."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._left = MAX_ROWS

    def histories(self, data: Any) -> tuple[History, ...]:
        """One for each device with segments or events."""
        whole: Mapping[Any, Any] = {"segments": data} if isinstance(data, list) else self._mapping(data, "the snapshot")
        if "segments" not in whole:
            self._refuse("no segments: not a snapshot of torch's allocator; it is written by " + HOW)
        traces = self._list(whole.get("device_traces") or [], "device_traces")
        if len(traces) > MAX_DEVICES:
            self._refuse(f"device_traces of {len(traces):,} devices")
        settings, text = self._settings(whole.get("allocator_settings"))
        by_device: dict[int, list[Any]] = {}
        for at, row in enumerate(self._list(whole["segments"], "segments")):
            row = self._mapping(row, f"segments[{at}]")
            by_device.setdefault(self._whole(row.get("device", 0), f"segments[{at}].device", MAX_DEVICES), []).append((at, row))
        found = []
        for device in sorted({*by_device, *(at for at, trace in enumerate(traces) if trace)}):
            trace = traces[device] if device < len(traces) else []
            found.append(_Device(self, device, settings, text).history(by_device.get(device, []), self._list(trace, "device_traces")))
        if not found:
            self._refuse("nothing was allocated on any device while it was recorded")
        return tuple(found)

    def _settings(self, row: Any) -> tuple[Settings, str]:
        """From the text where it can be read, and from the values beside it, which say what was in force."""
        if not isinstance(row, dict):
            return DEFAULT, ""
        text = row.get("PYTORCH_CUDA_ALLOC_CONF") or row.get("PYTORCH_ALLOC_CONF") or ""
        if not isinstance(text, str):
            self._refuse("allocator_settings: PYTORCH_CUDA_ALLOC_CONF is a text")
        try:
            asked = read_settings(text)
        except UsageError:
            asked = DEFAULT
        split = row.get("max_split_size", -1)
        steps = row.get("roundup_power2_divisions")
        divisions = asked.divisions
        if isinstance(steps, dict) and all(isinstance(n, int) and 0 <= n < 1 << 20 for n in steps.values()):
            divisions = tuple(steps.get(str(1 << power), 0) for power in range(CLASSES))
        return Settings(
            expandable_segments=row.get("expandable_segments", asked.expandable_segments) is True,
            max_split_size=split if isinstance(split, int) and 0 < split < UNLIMITED else asked.max_split_size,
            max_non_split_rounding=asked.max_non_split_rounding,
            divisions=divisions,
            large_segment_size=asked.large_segment_size,
        ), text

    def _refuse(self, why: str) -> NoReturn:
        raise FileError(f"{self._source}: {why}")

    def _mapping(self, value: Any, place: str) -> dict[Any, Any]:
        if not isinstance(value, dict):
            self._refuse(f"{place}: a dict is expected, got {kind_of(value)}")
        return value

    def _list(self, value: Any, place: str) -> list[Any]:
        if not isinstance(value, (list, tuple)):
            self._refuse(f"{place}: a list is expected, got {kind_of(value)}")
        self._left -= len(value) + 1
        if self._left < 0:
            self._refuse(f"more than {MAX_ROWS:,} segments, blocks, events and frames")
        return value  # type: ignore[return-value]

    def _whole(self, value: Any, place: str, below: int = MAX_ADDRESS) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < below:
            self._refuse(f"{place}: a whole number from 0 to {below - 1:,} is expected, got {kind_of(value)}")
        return value


class _Device:
    """One device's rows."""

    def __init__(self, reader: _Reader, device: int, settings: Settings, text: str) -> None:
        self._reader = reader
        self._device = device
        self._settings = settings
        self._text = text
        self._stacks: list[tuple[Frame, ...]] = [()]
        self._by_id: dict[int, int] = {}
        self._by_frames: dict[tuple[Frame, ...], int] = {(): 0}
        self._lanes: dict[tuple[Any, Any], int] = {}
        self._unknown: Counter[str] = Counter()

    def history(self, segments: list[tuple[int, dict[Any, Any]]], trace: list[Any]) -> History:
        """Everything in its order."""
        found = sorted((self._segment(row, f"segments[{at}]") for at, row in segments), key=lambda s: s.address)
        for one, after in pairwise(found):
            if one.address + one.size > after.address:
                self._reader._refuse(f"segments at {one.address:#x} and {after.address:#x} overlap")
        # an event names its pool since 2.14 alone; before, the segment that stands there tells
        pools = [(s.address, s.address + s.size, s.lane) for s in found]
        entries: list[Entry] = []
        for at, row in enumerate(trace):
            entry = self._entry(row, f"device_traces[{self._device}][{at}]", pools)
            if entry is not None:
                entries.append(entry)
        expandable = self._settings.expandable_segments or any(e.action == "segment_map" for e in entries)
        settings = replace(self._settings, expandable_segments=expandable)
        return History(
            device=self._device,
            segments=tuple(found),
            entries=tuple(entries),
            stacks=tuple(self._stacks),
            lanes=len(self._lanes),
            settings=settings,
            settings_text=self._text,
            recorded=bool(entries),
            unknown=tuple(self._unknown.items()),
        )

    def _segment(self, row: dict[Any, Any], place: str) -> Segment:
        whole = self._reader._whole
        address, size = whole(row.get("address"), f"{place}.address"), whole(row.get("total_size"), f"{place}.total_size")
        if not size:
            self._reader._refuse(f"{place}.total_size: a segment without bytes")
        kind = row.get("segment_type")
        if kind not in ("small", "large", None):
            self._reader._refuse(f"{place}.segment_type: small or large is expected, got {kind_of(kind)}")
        pieces, at = [], address
        for number, block in enumerate(self._reader._list(row.get("blocks"), f"{place}.blocks")):
            piece = self._piece(self._reader._mapping(block, f"{place}.blocks[{number}]"), at, f"{place}.blocks[{number}]")
            if piece.address != at:
                self._reader._refuse(f"{place}.blocks[{number}]: it begins at {piece.address:#x}, where {at:#x} is expected")
            pieces.append(piece)
            at += piece.size
        if at != address + size:
            self._reader._refuse(f"{place}: its blocks are {at - address:,} bytes, total_size says {size:,}")
        lane = self._lane(row.get("stream", 0), row.get("segment_pool_id"))
        small = size == SMALL_SEGMENT if kind is None else kind == "small"
        return Segment(address, size, lane, small, row.get("is_expandable") is True, tuple(pieces))

    def _piece(self, row: dict[Any, Any], at: int, place: str) -> Piece:
        size, state = self._reader._whole(row.get("size"), f"{place}.size"), row.get("state")
        if size < 1:
            self._reader._refuse(f"{place}.size: a block without bytes")
        if not isinstance(state, str) or state not in STATES:
            self._reader._refuse(f"{place}.state: one of {', '.join(STATES)} is expected, got {kind_of(state)}")
        frames, asked = row.get("frames"), row.get("requested_size", size)
        past = row.get("history")
        if frames is None and isinstance(past, list) and past and isinstance(past[0], dict):  # up to torch 2.0
            frames, asked = past[0].get("frames"), past[0].get("real_size", size)
        address = self._reader._whole(row.get("address", at), f"{place}.address")
        asked = self._reader._whole(asked, f"{place}.requested_size")
        return Piece(address, size, min(asked, size), STATES[state], self._stack(frames, place))

    def _entry(self, row: Any, place: str, pools: list[tuple[int, int, int]]) -> Entry | None:
        row = self._reader._mapping(row, place)
        action = row.get("action")
        if action not in ACTIONS:
            if isinstance(action, str):
                if action not in SILENT:  # what a later torch adds
                    self._unknown[action] += 1
                return None
            self._reader._refuse(f"{place}.action: a text is expected, got {kind_of(action)}")
        where = "device_free" if action == "oom" else "addr"
        address = self._reader._whole(row.get(where), f"{place}.{where}")
        size = self._reader._whole(row.get("size"), f"{place}.size")
        pool = row.get("pool_id")
        lane = None
        if pool is None:
            near = bisect_right(pools, (address, MAX_ADDRESS, 0)) - 1
            lane = pools[near][2] if near >= 0 and address < pools[near][1] else None
        if lane is None:
            lane = self._lane(row.get("stream", 0), pool)
        return Entry(action, address, size, lane, self._stack(row.get("frames"), place))

    def _lane(self, stream: Any, pool: Any) -> int:
        if isinstance(pool, list):
            pool = tuple(pool)
        if not isinstance(stream, int) or not (pool is None or (isinstance(pool, tuple) and all(isinstance(n, int) for n in pool))):
            self._reader._refuse(f"stream and pool are numbers, got {kind_of(stream)} and {kind_of(pool)}")
        return self._lanes.setdefault((stream, pool if pool and any(pool) else None), len(self._lanes))

    def _stack(self, frames: Any, place: str) -> int:
        """The number of a list of frames; one that the file names again is not read again."""
        if not frames:
            return 0
        known = self._by_id.get(id(frames))
        if known is None:
            rows = self._reader._list(frames, f"{place}.frames")
            stack = tuple(self._frame(row, place) for row in rows)
            known = self._by_frames.setdefault(stack, len(self._stacks))
            if known == len(self._stacks):
                self._stacks.append(stack)
            self._by_id[id(frames)] = known
        return known

    def _frame(self, row: Any, place: str) -> Frame:
        if not isinstance(row, dict):
            self._reader._refuse(f"{place}.frames: a dict is expected, got {kind_of(row)}")
        name, filename, line = row.get("name", ""), row.get("filename", ""), row.get("line", 0)
        if not isinstance(name, str) or not isinstance(filename, str) or not isinstance(line, int):
            self._reader._refuse(f"{place}.frames: a name, a file and a line are expected")
        return Frame(name, filename, line)
