"""What a recorded history says: its peak, what stood there and why, what lay idle, and what would have helped where it ran out.

A record names no categories. They are inferred from the frames that asked for a block and from how long it lived, and said to be: a
block that ``Module.to`` asked for is a parameter or a buffer, one that ``zero_grad`` gave back was a gradient.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from memest.errors import FileError, UsageError
from memest.memory.allocators.history import Frame, History
from memest.memory.allocators.retracing import Exhaustion, Lifetime, Otherwise, Retraced, otherwise, retrace
from memest.memory.allocators.settings import MIB, Settings

PARAMETERS, STATE, GRADIENTS, ACTIVATIONS = "parameters and buffers", "optimizer state", "gradients", "activations"
BACKWARD, STEP, WORKSPACE, INPUTS = "backward", "optimizer step", "workspace", "inputs"
BEFORE, OTHER = "before the record", "other"
MAX_SHORTAGES = 3
REMEDIES: dict[str, Callable[[Settings], Settings]] = {
    "the same, started empty": lambda s: s,
    "expandable_segments:True": lambda s: replace(s, expandable_segments=True, max_split_size=Settings().max_split_size),
    "max_split_size_mb:128": lambda s: replace(s, expandable_segments=False, max_split_size=128 * MIB),
}
_LIBRARY = ("/torch/", "/torch_npu/", "\\torch\\")
_MOVES = {"_apply", "convert", "to", "cuda", "npu", "to_empty", "pin_memory"}
_KERNEL = re.compile(r"\b(?:native|_ops)::(?:\(anonymous namespace\)::)?(\w+)")
_SEPARATOR = re.compile(r"[/\\]")
_NODE = re.compile(r"\b(\w+Backward\d*)::apply")
_MAKERS = ("empty", "zeros", "resize", "structured", "call", "redispatch")


class Holding(NamedTuple):
    """Blocks of a category at the peak."""

    category: str
    nbytes: int
    blocks: int


class Held(NamedTuple):
    """One block at the peak: its bytes, those asked for, where it was asked for, and the event that did (-1: before the record)."""

    nbytes: int
    asked: int
    category: str
    where: str
    event: int


class Remedied(NamedTuple):
    """A request that found no room, and the settings it was tried with: what they would have reserved, and whether that fits."""

    shortage: Exhaustion
    where: str
    tried: dict[str, Otherwise]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One device's history, replayed and read. ``holdings`` add up to the allocated peak; ``expandable`` is the same record with
    expandable segments, None where it has them already."""

    history: History
    retraced: Retraced
    holdings: tuple[Holding, ...]
    largest: tuple[Held, ...]
    where: str
    shortages: tuple[Remedied, ...]
    expandable: Otherwise | None

    @property
    def fragmentation(self) -> int:
        """Bytes reserved and not allocated at the peak."""
        return self.retraced.at_peak.reserved - self.retraced.allocated


def chosen(histories: tuple[History, ...], device: int | None, source: str) -> History:
    """The device that was asked for, else the one with the most events; FileError where it has none."""
    if device is not None and all(h.device != device for h in histories):
        raise UsageError(f"{source}: nothing on device {device}; there is {', '.join(str(h.device) for h in histories)}")
    found = max((h for h in histories if device in (None, h.device)), key=lambda h: (len(h.entries), h.reserved))
    if not found.recorded:
        raise FileError(
            f"{source}: no history, only the {len(found.segments):,} segments that stood at the end ({found.reserved:,} bytes): call "
            "torch.cuda.memory._record_memory_history() before what is to be recorded"
        )
    return found


def recorded(history: History, top: int) -> Recorded:
    """Replays a history and reads it; ``top`` blocks of the peak by name."""
    found = retrace(history)
    # what is freed at the event of the peak is no part of it, what begins there is
    alive = [x for x in found.lifetimes if x.start <= found.allocated_at and (x.end is None or x.end > found.allocated_at)]
    held = [Held(x.size, x.asked, category(history, x), where(history.stacks[x.stack]), x.start) for x in alive]
    held.sort(key=lambda h: (-h.nbytes, h.event))
    sums: dict[str, tuple[int, int]] = {}
    for block in held:
        nbytes, count = sums.get(block.category, (0, 0))
        sums[block.category] = nbytes + block.nbytes, count + 1
    peak = history.entries[found.allocated_at].stack if found.allocated_at >= 0 else 0
    settings = replace(history.settings, padding=found.padding)
    return Recorded(
        history=history,
        retraced=found,
        holdings=tuple(sorted((Holding(name, *row) for name, row in sums.items()), key=lambda h: -h.nbytes)),
        largest=tuple(held[:top]),
        where=where(history.stacks[peak]),
        shortages=tuple(_remedied(history, found, s) for s in found.exhaustions[:MAX_SHORTAGES]),
        expandable=None if settings.expandable_segments else otherwise(found, replace(settings, expandable_segments=True)),
    )


def _remedied(history: History, found: Retraced, shortage: Exhaustion) -> Remedied:
    settings = replace(history.settings, padding=found.padding)
    tried = {name: otherwise(found, change(settings), until=shortage) for name, change in REMEDIES.items()}
    return Remedied(shortage, where(history.stacks[shortage.stack]), tried)


def category(history: History, life: Lifetime) -> str:
    """What a block was for, inferred."""
    stack = history.stacks[life.stack]
    told = next((f.name for f in stack if f.filename == "category"), "")  # in a history that memest wrote
    if told:
        return told
    names, files = {f.name for f in stack}, " ".join(f.filename for f in stack)
    native = " ".join(f.name for f in stack if not f.filename.endswith(".py"))
    released = () if life.end is None else history.stacks[history.entries[life.end].stack]
    if any(f.name == "zero_grad" for f in released) or "AccumulateGrad" in native:
        return GRADIENTS
    if not stack:  # autograd's own thread has no Python frames
        return BEFORE if life.start < 0 else BACKWARD if len(history.stacks) > 1 else OTHER
    if "orkspace" in native or "cublas" in native.lower():
        return WORKSPACE
    if "/optim/" in files:
        return STATE if life.end is None or "_init_group" in names else STEP
    if names & {"backward", "_engine_run_backward"} or "autograd::Engine" in native:
        return GRADIENTS if life.end is None else BACKWARD
    if "_call_impl" in names or "forward" in names:
        return ACTIVATIONS
    if "nn/parameter.py" in files or "nn/init.py" in files or ("nn/modules/" in files and names & _MOVES):
        return PARAMETERS
    if "dataloader.py" in files or names & _MOVES:
        return INPUTS
    return OTHER


def where(stack: tuple[Frame, ...]) -> str:
    """The innermost line of the user's own code, else of torch's Python, else the kernel and the node of autograd that asked."""
    python = [f for f in stack if f.filename.endswith(".py")]
    own = [f for f in python if not any(part in f.filename for part in _LIBRARY)]
    for frames in (own, python):
        if frames:
            name, filename, line = frames[0]
            return f"{_SEPARATOR.split(filename)[-1]}:{line} {name}"
    kernels = (m[1] for f in stack for m in _KERNEL.finditer(f.name) if not m[1].startswith(_MAKERS))
    nodes = (m[1] for f in stack for m in _NODE.finditer(f.name))
    found = [next(nodes, ""), next(kernels, "")]
    return " > ".join(filter(None, found)) or next((f.name for f in stack if f.name), "")
