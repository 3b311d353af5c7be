"""What one child process measures of the build on its path: ``python probes.py FOLDER PROBE ARGUMENTS`` prints names and numbers as JSON.

Only what ``import memest`` has offered since commit ``BASE`` is used. Seconds are CPU time, memory is bytes of the process.
"""

from __future__ import annotations

import gc
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

SIDE = 224
BATCH = 8
SIZES_ASKED = 4
NEW_BATCHES = 50
FORWARDS, IMPORTS, PLAYS = 4, 3, 5
LARGER = 8
TENSORS = 2000
CARD, CARD_BATCHES = "a100-40gb", 50
GRIDS: dict[str, dict[str, Any]] = {
    "crops of every size": {"batch": range(1, 65), "H": range(161, 289), "W": range(161, 289)},
    "multiples of 32": {"batch": range(1, 1025), "H": range(64, 1025, 32), "W": range(64, 1025, 32)},
    "crops, 16.8 million in parts": {"batch": range(1, 1025), "H": range(161, 289), "W": range(161, 289)},
}
IN_PARTS = 4_000_000  # points from which a sweep is gone through in parts
STEP: dict[str, Any] = {"optimizer": "adam", "loss": "cross_entropy"}


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of ``run()``, and its result."""
    start = time.process_time()
    result = run()
    return time.process_time() - start, result


def on_a_described_processor(memest: Any) -> dict[str, Any]:
    """The keyword of a processor that is described, as the build calls it."""
    return {"machine" if hasattr(memest, "Gpu") else "cpu": memest.Cpu()}


def settled(run: Callable[[], Any]) -> tuple[float, Any]:
    """:func:`timed`, with no garbage of others left to collect meanwhile."""
    gc.collect()
    return timed(run)


def network(name: str) -> dict[str, float]:
    """``name`` of torchvision in training: a meta forward, the import, the sizes asked of a graph one after the other, a play."""
    import copy

    import torch

    import memest

    module = getattr(_vision(torch), name)().train()
    shape = (BATCH, 3, SIDE, SIDE)
    on_meta = copy.deepcopy(module).to("meta")
    memest.from_torch(torch.nn.Conv2d(3, 3, 3), (1, 3, 8, 8))  # libraries load once, for everyone
    gc.collect()
    gc.freeze()  # what is imported is not searched for garbage in every measurement
    forwards = [settled(lambda: on_meta(torch.empty(shape, device="meta")))[0] for _ in range(FORWARDS)]
    first = [_forgetful(memest, lambda: memest.from_torch(module, shape)) for _ in range(IMPORTS)]
    again = [settled(lambda: memest.from_torch(module, shape))[0] for _ in range(IMPORTS)]
    imports = {"from_torch": min(first), "from_torch again": min(again)}
    return {"meta forward": min(forwards), **imports, **_sizes_of(memest, memest.from_torch(module, shape))}


def _forgetful(memest: Any, run: Callable[[], Any]) -> float:
    """CPU seconds of ``run()`` with nothing remembered from before, where the build can forget."""
    if hasattr(memest, "clear_caches"):
        memest.clear_caches()
    return settled(run)[0]


def _sizes_of(memest: Any, graph: Any) -> dict[str, float]:
    here = on_a_described_processor(memest)

    def asked(batch: int) -> Any:
        return memest.estimate(graph, input_shape=(batch, 3, SIDE, SIDE), **here, **STEP)

    first, estimate = settled(lambda: asked(BATCH))
    later = [settled(lambda n=n: asked(BATCH + n))[0] for n in range(1, SIZES_ASKED)]
    plays = []
    for _ in range(PLAYS):
        estimate.__dict__.pop("timeline", None)
        plays.append(settled(lambda: estimate.timeline)[0])
    start = BATCH + SIZES_ASKED
    new = timed(lambda: [asked(n) for n in range(start, start + NEW_BATCHES)])[0] / NEW_BATCHES
    anywhere = random.Random(0).sample(range(1000, 5000), NEW_BATCHES)
    strewn = timed(lambda: [asked(n) for n in anywhere])[0] / NEW_BATCHES
    return {
        "first size": first,
        "sizes 2 to 4": sum(later) / len(later),
        "slowest of sizes 2 to 4": max(later),
        "play": min(plays),
        "new batch": new,
        "strewn batch": strewn,
    }


def sweep(grid: str) -> dict[str, float]:
    """CPU seconds a point: of a graph never asked before, of the same graph again, and of writing columns as large."""
    import memest

    graph, here = memest.model("resnet50"), on_a_described_processor(memest)
    axes = GRIDS[grid]
    points = prod(map(len, axes.values()))
    times = 3 if points <= IN_PARTS else 1

    def swept() -> int:
        if points <= IN_PARTS:
            return len(memest.sweep(graph, **here, **STEP, **axes)["peak_bytes"])
        return sum(len(part["peak_bytes"]) for part in memest.sweeps(graph, **here, **STEP, **axes))

    fresh, found = timed(swept)
    assert found == points
    again = min(timed(swept)[0] for _ in range(times))
    written = min(timed(lambda: _columns(axes))[0] for _ in range(times))
    return {"fresh": fresh / points, "again": again / points, "columns": written / points}


def _columns(axes: dict[str, range]) -> list[Any]:
    import numpy as np

    lengths = [len(values) for values in axes.values()]
    sizes = [np.broadcast_to(axis, lengths).flatten() for axis in np.ix_(*(np.arange(v.start, v.stop, v.step) for v in axes.values()))]
    return [*sizes, np.full(len(sizes[0]), 1), np.full(len(sizes[0]), 2)]


def card(name: str) -> dict[str, float]:
    """``name`` in training on a card, where the build has cards: a first estimate to the steady state of the allocator; of new batches the
    mean of an estimate, of the allocator's part in it, of an estimate for a processor, and of a step played for a processor; of the
    allocator alone an event."""
    import memest

    if not hasattr(memest, "Gpu"):
        return {}
    from memest.memory.allocators.replaying import replay
    from memest.runtimes.table import runtime_named

    graph, other, here = memest.model(name), memest.model(name), on_a_described_processor(memest)

    def asked(batch: int) -> Any:
        found = memest.estimate(graph, input_shape=(batch, 3, SIDE, SIDE), machine=CARD, **STEP)
        return found, found.reserved

    def processed(batch: int) -> Any:
        return memest.estimate(other, input_shape=(batch, 3, SIDE, SIDE), **here, **STEP)

    steady, (estimate, _) = settled(lambda: asked(BATCH))
    for batch in range(BATCH, BATCH + SIZES_ASKED):
        asked(batch)
        processed(batch)
    batches = range(BATCH + SIZES_ASKED, BATCH + SIZES_ASKED + CARD_BATCHES)

    def mean(run: Callable[[Any], Any], over: Iterable[Any]) -> float:
        return settled(lambda: [run(each) for each in over])[0] / CARD_BATCHES

    seconds, found = settled(lambda: [asked(n)[0] for n in batches])
    events = [(e.delta, e.storage.id) for e in estimate.events]
    return {
        "steady": steady,
        "new batch": seconds / CARD_BATCHES,
        "allocator": mean(lambda e: runtime_named(e.runtime).figures(0, e.steps, e.recipe.target), found),
        "compiled": mean(processed, batches),
        "played": mean(lambda n: processed(n).timeline, batches),
        "event": min(settled(lambda: replay(events))[0] for _ in range(PLAYS)) / len(events),
    }


def planners(life: str) -> dict[str, float]:
    """CPU seconds of each planner that the build has, for ``TENSORS`` tensors of random sizes that live for up to ``life`` events."""
    try:
        from memest.memory.planners import PLANNERS
        from memest.memory.planners.blocks import Block
    except ImportError:
        return {}
    rnd = random.Random(0)
    births = [rnd.randrange(2 * TENSORS) for _ in range(TENSORS)]
    blocks = [Block(n, at, at + rnd.randrange(1, int(life)), rnd.randrange(1, 2000) * 64) for n, at in enumerate(births)]
    return {name: min(settled(partial(plan, blocks))[0] for _ in range(PLAYS)) for name, plan in PLANNERS.items()}


def memory(grid: str) -> dict[str, float]:
    """Bytes that a sweep of a compiled graph adds to a fresh process at most: for each further point of a grid ``LARGER`` times as large,
    for the columns alone, and beside the columns of the large one."""
    small, large = (_child("grown", grid, str(times)) for times in (1, LARGER))
    return {
        "further point": (large["grown"] - small["grown"]) / (large["points"] - small["points"]),
        "columns": large["columns"] / large["points"],
        "beside the columns": large["grown"] - large["columns"],
    }


def grown(grid: str, times: str) -> dict[str, float]:
    """What this process needed at most for one sweep, of the grid with ``times`` as many batches, beyond what it had."""
    import memest

    graph, here = memest.model("resnet50"), on_a_described_processor(memest)
    axes = GRIDS[grid]
    memest.sweep(graph, **here, **STEP, **{**axes, "batch": range(1, 3)})
    before = _status("VmRSS")
    found = memest.sweep(graph, **here, **STEP, **{**axes, "batch": range(1, int(times) * len(axes["batch"]) + 1)})
    columns = sum(column.nbytes for column in found.values())
    return {"grown": _status("VmHWM") - before, "columns": columns, "points": len(found["peak_bytes"])}


def _child(probe: str, *arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, sys.argv[1], probe, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def _status(what: str) -> int:
    """Bytes of this process, now (``VmRSS``) or at most so far (``VmHWM``)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) * 1024


def _vision(torch: Any) -> Any:
    """torchvision's networks, also where its compiled operators do not load: they are plain Python."""
    try:
        import torchvision.models
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)
        import torchvision.models
    return torchvision.models


_KEPT: list[Any] = []
PROBES: dict[str, Callable[..., dict[str, float]]] = {
    "network": network,
    "sweep": sweep,
    "memory": memory,
    "grown": grown,
    "card": card,
    "planners": planners,
}


def _main(folder: str, probe: str, *arguments: str) -> None:
    del sys.path[0]  # the folder of this file
    import memest

    if Path(memest.__file__).parents[1].resolve() != Path(folder).resolve():
        raise SystemExit(f"the memest on the path is that of {Path(memest.__file__).parents[1]}, not of {folder}")
    print(json.dumps(PROBES[probe](*arguments)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
