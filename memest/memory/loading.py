"""What a data loader adds to the process it feeds: its workers, the batches in ``/dev/shm``, and the node's total.

How torch's loader holds batches (torch/utils/data/dataloader.py, ``_utils/worker.py``, ``_utils/collate.py``; held against
``validation/results/cluster/loaders.json``):

- A worker collates into shared memory, so a batch lies in ``/dev/shm`` from when it is made until the loop lets go of it. There are
  ``workers x prefetch`` of them ahead of the loop, and the one that the loop holds. Workers that are forked for a later epoch also inherit
  the last batch of the epoch before, which the loop still holds then, and keep it alive until they end. For a moment one more may be there:
  a worker begins the next one before the loop has let go of the old one.
- A worker holds the samples of the batch that it collates. Where malloc's threshold moves they leave holes that the next samples do not
  quite fit into: up to twice as much.
- What a forked worker shares with its parent it copies when it is written to, and to count a reference is to write: in a long epoch all of
  Python's objects are copied. A worker that is spawned imports everything anew.
- What the process held when workers were forked and then replaces (parameters, the optimizer's state, gradients that are let go), they
  keep: once for all of them.
- What is pinned (on a card alone) is copied into the host allocator's blocks, of powers of two, which are never given back
  (aten/src/ATen/cuda/CachingHostAllocator.cpp): one for each batch ahead and the one in the loop's hands. Not measured.
- Without workers the process holds, when it reads, the samples, the new batch and the old one; the step's own peak is elsewhere, and
  usually higher.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from memest.machines.loader import Loader
from memest.memory.figure import Figure, Range, plus, range_of
from memest.sizes.units import parse_bytes

PAGE = 4096
NOTHING = Range(0, 0, 0)
DATA = Path(__file__).with_suffix(".json")


class Fed(NamedTuple):
    """The step that is fed: bytes of its batch's tensors, the process's figure, what of it is there when the loop reads (parameters, state,
    gradients, the batch) less what is there at the peak, what workers keep of the process if they are forked in a later epoch, whether
    malloc's threshold moves, and whether batches are pinned."""

    batch: tuple[int, ...]
    process: Figure
    below_peak: int
    replaced: int
    moves: bool
    pins: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """``parent`` is the process that reads, ``worker`` the pages that one worker shares with nobody, ``shm`` what lies in ``/dev/shm``,
    ``pinned`` what the parent pins, ``kept`` what workers keep of what it replaced, ``workers`` all that workers and ``/dev/shm`` add to
    the parent, ``node`` the sum: what a container's limit has to hold."""

    loader: Loader
    parent: Figure
    worker: Figure
    shm: Figure
    pinned: Figure
    kept: Figure
    workers: Figure
    node: Figure

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        figures = {name: getattr(self, name).to_dict() for name in ("parent", "worker", "shm", "pinned", "kept", "workers", "node")}
        return {"loader": str(self.loader), **figures}


def loading(loader: Loader, fed: Fed) -> Loading:
    """What ``loader`` adds to the step that it feeds."""
    batch, pinned = sum(fed.batch), _pinned(loader, fed)
    if not loader.workers:
        none = NOTHING.figure("no workers")
        parent = _reading(fed, batch)
        return Loading(loader=loader, parent=parent, worker=none, shm=none, pinned=pinned, kept=none, workers=none, node=parent)
    kept = Range(0, fed.replaced, fed.replaced) if loader.inherits else NOTHING
    shm, worker = _shm(loader, fed.batch), _worker(loader, batch, fed.moves)
    workers = _workers(loader, fed, shm, worker, kept).figure(
        "workers' own pages, /dev/shm but for the step's own batch, what workers keep"
    )
    node = plus(fed.process, workers, "the process, its workers' own pages, what they keep, /dev/shm but for the step's own batch")
    held = 1 + loader.inherits
    return Loading(
        loader=loader,
        parent=fed.process,
        worker=worker.figure("what it copies of the parent or imports anew, and the samples of one batch"),
        shm=shm.figure(f"(workers x prefetch + {held}) batches of {batch:,} bytes"),
        pinned=pinned,
        kept=kept.figure("what the process replaced since workers of a later epoch were forked, once for all of them"),
        workers=workers,
        node=node,
    )


def _shm(loader: Loader, tensors: Iterable[int]) -> Range:
    batch = sum(-(-n // PAGE) * PAGE for n in tensors)
    held = loader.ahead + 1
    found = held + loader.inherits
    return Range(held * batch, found * batch, (found + 1) * batch)


def _pinned(loader: Loader, fed: Fed) -> Figure:
    if not (loader.pin_memory and fed.pins):
        return NOTHING.figure("pin_memory does nothing without CUDA" if loader.pin_memory else "nothing is pinned")
    batch = sum(1 << max(0, n - 1).bit_length() for n in fed.batch)
    return Range(batch, (loader.ahead + 1) * batch, (loader.ahead + 2) * batch).figure("by the host allocator's source, not measured")


def _worker(loader: Loader, batch: int, moves: bool) -> Range:
    own = _measured()["spawn" if loader.start == "spawn" else "fork"]
    most = 2 * batch if moves else batch
    return Range(own.low, own.bytes + (batch + most) // 2, own.high + most)


def _workers(loader: Loader, fed: Fed, shm: Range, worker: Range, kept: Range) -> Range:
    """Workers and ``/dev/shm``, less the batch that the step's own figure has already."""
    held, tracker = sum(fed.batch), _measured()["tracker"].bytes if loader.start == "spawn" else 0
    each = zip(worker, shm, kept, strict=True)
    return Range(*(loader.workers * own + there - held + more + tracker for own, there, more in each))


def _reading(fed: Fed, batch: int) -> Figure:
    """The process that reads itself: its step's peak, or what is there between steps with samples and a second batch."""
    if fed.process.bytes is None:
        return fed.process
    more = (2 * batch, 2 * batch, (3 if fed.moves else 2) * batch)
    found = (max(n, n - fed.below_peak + new) for n, new in zip(range_of(fed.process), more, strict=True))
    return Range(*found).figure(fed.process.reason)


def library_bytes() -> Range:
    """Resident pages of the files that processes of torch map alike, which a node holds once."""
    return _measured()["libraries"]


@cache
def _measured() -> dict[str, Range]:
    """The numbers of ``loading.json``, which says what of them was measured, in bytes."""
    data = json.loads(DATA.read_text(encoding="utf-8"))
    return {name: Range(*(parse_bytes(data[name][key]) for key in Range._fields)) for name in data if name != "how"}
