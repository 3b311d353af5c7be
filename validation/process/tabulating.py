"""From records of malloc to the table of small blocks: what each operator's calls ask for between a step's tensors.

``python -m validation.process.tabulating FOLDER`` reads ``NAME.npz`` of :mod:`recording` for each of its cases and writes ``blocks.json``
beside the model. Between two events of a step (a tensor comes, or goes) some blocks come and go at once: of these the most of a size at
one time counts. The others stay, and are told by when they go: so many events later in the same call (``+``), with a tensor that comes
near (``T``), in the layer's backward (``B``), with the step (``E``), or never (``N``). Of the calls of a kind in a network the one with
the median number of them is told; first steps have kinds of their own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from memest.memory.allocators.glibc import chunk_size
from memest.memory.stream import Event
from memest.runtimes.torch.process.blocks import DATA, SIGNS, runs_of

NEAR, LATER = 3, 40
CASES: dict[str, tuple[str, tuple[int, ...], str, str]] = {
    "various2": ("validation.process.various:Various(2)", (2, 3, 32, 32), "sgd:momentum=0.9", "cross_entropy"),
    "various3": ("validation.process.various:Various(3)", (2, 3, 16, 16, 16), "adam", "cross_entropy"),
    "various2i": ("validation.process.various:Various(2)", (2, 3, 32, 32), "", ""),
    "various3i": ("validation.process.various:Various(3)", (2, 3, 16, 16, 16), "", ""),
    "resnet18": ("torchvision.models:resnet18()", (2, 3, 96, 96), "sgd:momentum=0.9", "cross_entropy"),
    "resnet18i": ("torchvision.models:resnet18()", (2, 3, 96, 96), "", ""),
    "mobilenet": ("torchvision.models:mobilenet_v2()", (2, 3, 96, 96), "adam", "cross_entropy"),
    "mobileneti": ("torchvision.models:mobilenet_v2()", (2, 3, 96, 96), "", ""),
    "densenet": ("torchvision.models:densenet121()", (2, 3, 64, 64), "adam", "cross_entropy"),
    "unet3d": ("validation.networks:UNet3d(base_filters=8)", (1, 1, 32, 32, 32), "adam", "mse"),
    "unet3di": ("validation.networks:UNet3d(base_filters=8)", (1, 1, 32, 32, 32), "", ""),
    "vgg": ("torchvision.models:vgg11(num_classes=10)", (1, 3, 64, 64), "sgd:momentum=0.9", "cross_entropy"),
}
ENDS = -1
OURS = 1  # the thread that runs the step


Records = Sequence[tuple[int, int, int, int, int]]


class Small(NamedTuple):
    """A block that is no tensor: bytes, alignment (0: none), and the gap in which it goes (None: later)."""

    nbytes: int
    aligned: int
    gone: int | None


class Gap(NamedTuple):
    """What stays of what comes between two events, and of what does not the most at one time by bytes and alignment."""

    stay: list[Small]
    most: dict[tuple[int, int], int]


def gaps_of(records: Records, after: Records) -> tuple[list[Gap], list[int]]:
    """The gaps (one before each event, and one after the last), and the events as bytes, releases negative. What the step ``after`` gives
    back goes in the last gap."""
    alive: dict[int, tuple[int, int, int, int]] = {}  # by address: bytes, alignment, gap, number (tensors: -1)
    born: list[tuple[int, int, int]] = []
    gone: dict[int, int] = {}
    deltas: list[int] = []
    pending: list[tuple[int, bool, int]] = []
    for size, address, aligned, thread, kind in records:
        if thread != OURS:
            continue
        if size >= 0 and kind == 2:
            alive[address] = (size, 0, 0, -1)
            deltas.append(size)
        elif size >= 0:
            alive[address] = (size, aligned, len(deltas), len(born))
            born.append((size, aligned, len(deltas)))
            pending.append((len(born) - 1, True, len(deltas)))
        elif address in alive:
            nbytes, _, _, number = alive.pop(address)
            if number < 0:
                deltas.append(-nbytes)
            else:
                gone[number] = len(deltas)
                pending.append((number, False, len(deltas)))
    for size, address, *_ in after:
        if size >= 0:
            alive.pop(address, None)
        elif address in alive:
            gone.setdefault(alive.pop(address)[3], ENDS)
    found = [Gap([], {}) for _ in range(len(deltas) + 1)]
    counts: dict[tuple[int, tuple[int, int]], int] = {}
    for number, came, gap in pending:
        nbytes, aligned, birth = born[number]
        if gone.get(number) != birth:
            if came:
                found[gap].stay.append(Small(nbytes, aligned, gone.get(number)))
            continue
        passing = (nbytes if aligned else chunk_size(nbytes) - 8, aligned)
        counts[gap, passing] = counts.get((gap, passing), 0) + (1 if came else -1)
        found[gap].most[passing] = max(found[gap].most.get(passing, 0), counts[gap, passing])
    return found, deltas


def lined_up(events: Sequence[Event], deltas: Sequence[int]) -> list[Event]:
    """The events in the order in which they were recorded. ValueError where they are others."""
    found = list(events)
    if len(found) != len(deltas):
        raise ValueError(f"{len(deltas)} events were recorded, {len(found)} predicted")
    for n, delta in enumerate(deltas):
        if found[n].delta != delta:
            other = next((k for k in range(n + 1, len(found)) if found[k].delta == delta), None)
            if other is None:
                raise ValueError(f"event {n}: {delta} was recorded, {found[n].delta} predicted")
            found.insert(n, found.pop(other))
    return found


def told(events: Sequence[Event], gaps: Sequence[Gap]) -> dict[str, list[Any]]:
    """The scripts of each run of events, by its key."""
    made = {e.storage.id: n for n, e in enumerate(events) if e.delta > 0}
    runs = runs_of(events)
    run_at = {n: run for run in runs for n in range(run.start, run.stop)}
    backward = {run.layer: run for run in reversed(runs) if run.phase == "backward"}
    calls: dict[str, list[list[Any]]] = {}
    for run in runs:
        scripts: list[Any] = []
        for n in range(run.start, run.stop):
            stay: list[Any] = []
            for small in gaps[n + 1].stay:
                last = small.gone if small.gone in (None, ENDS) else small.gone - 1
                goes, by = _goes(n, last, events, made, run_at, backward)
                stay.append([small.nbytes, small.aligned, goes, by])
            scripts.append([stay, [[*passing, count] for passing, count in gaps[n + 1].most.items()]])
        calls.setdefault(run.key, []).append(scripts)
    return {key: sorted(found, key=lambda scripts: sum(len(s[0]) for s in scripts))[len(found) // 2] for key, found in calls.items()}


def _goes(n: int, last: int | None, events: Sequence[Event], made: dict[int, int], run_at: dict[int, Any], backward: dict[str, Any]) -> Any:
    if last is None:
        return "N", 0
    if last < 0:
        return "E", 0
    if run_at[last] is run_at[n]:
        return "+", last - n
    tensor = made.get(events[last].storage.id) if events[last].delta < 0 else None
    if tensor is not None and abs(tensor - n) <= NEAR:
        return "T", tensor - n
    home = backward.get(events[n].layer)
    if events[n].phase == "forward" and home is not None and run_at[last] is home:
        return "B", last - home.start
    if events[last].phase == events[n].phase or last - n <= LATER:
        return "+", last - n
    return ("B", 0) if events[n].phase == "forward" and events[last].phase == "backward" else ("E", 0)


def main() -> int:
    """Write the table."""
    import memest
    from validation.process.measuring import built

    folder = Path(sys.argv[1])
    scripts: list[Any] = []
    numbers: dict[str, int] = {}
    table: dict[str, list[int]] = {}
    for name, (model, shape, optimizer, loss) in CASES.items():
        graph = memest.from_torch(built(model), shape)
        how: dict[str, Any] = {"mode": "train", "optimizer": optimizer, "loss": loss} if optimizer else {"mode": "infer"}
        estimate = memest.estimate(graph, input_shape=shape, machine=memest.Cpu.detect(), **how)
        records = np.load(folder / f"{name}.npz")
        for step, after, stream in (("step1", "step2", estimate.steps.first()), ("step2", "step3", estimate.steps.asked())):
            gaps, deltas = gaps_of(records[step].tolist(), records[after].tolist())
            try:
                events = lined_up(stream.events, deltas)
            except ValueError as e:
                print(f"{name}, {step}: {e}", file=sys.stderr)
                continue
            new = 0
            for key, found in told(events, gaps).items():
                kind = f"{key}|{'first' if step == 'step1' else 'later'}"
                if kind not in table:
                    new += 1
                    table[kind] = [numbers.setdefault(json.dumps(s), len(numbers)) for s in found]
            print(f"{name}, {step}: {new} of new kinds", file=sys.stderr)
    scripts = [json.loads(text) for text in numbers]
    data = {"torch": "2.13.0", "runs": table, "scripts": scripts}
    DATA.write_text(json.dumps(data, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{len(table)} kinds of calls, {len(scripts)} scripts, {SIGNS} signs", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
