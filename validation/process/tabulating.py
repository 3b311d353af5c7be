"""From records of malloc to the table of small blocks: what each operator's calls ask for between a step's tensors.

``python -m validation.process.tabulating FOLDER`` reads ``NAME.npz`` of :mod:`recording` for each of its cases and writes ``blocks.json``
beside the model: what is asked for and given back between two events of a step (a tensor comes, or goes), in its order. A block goes
where the call itself gives it back, or later: so many events on in the same phase (``+``), with a tensor that comes near (``T``), in the
layer's backward (``B``), with the step (``E``), or never (``N``). Of all calls of a kind the commonest is told; calls that
are new in a first step have kinds of their own, and no other of a first step is told.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from memest.memory.stream import Event
from memest.runtimes.torch.process.blocks import CLEARED, DATA, Layers, Take, layers_of, lists, new_ones, runs_of
from memest.runtimes.torch.script import script

NEAR, LATER = 3, 40
LISTED = frozenset({"cat"})
LIST = [0, 0, "L", 0]
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
    "densenet_i": ("torchvision.models:densenet121()", (4, 3, 224, 224), "", ""),
    "resnet50": ("torchvision.models:resnet50()", (4, 3, 224, 224), "adam", "cross_entropy"),
    "vgg": ("torchvision.models:vgg11(num_classes=10)", (1, 3, 64, 64), "sgd:momentum=0.9", "cross_entropy"),
}
ENDS = -1
OURS = 1  # the thread that runs the step
CALLOC, TENSORS, MOVES = 1, 2, -2  # the interposer's words


Records = Sequence[tuple[int, int, int, int, int]]


class Small(NamedTuple):
    """A block that is no tensor: bytes, alignment (CLEARED: by calloc), the gap in which it comes, and its number."""

    nbytes: int
    aligned: int
    gap: int
    number: int


class Recorded(NamedTuple):
    """A step: bytes of its events (releases negative), what is done in the gap before each (a block comes, or the one of a number goes),
    and the gaps in which blocks go (ENDS: in the step after; none: later)."""

    deltas: list[int]
    gaps: list[list[Small | int]]
    gone: dict[int, int]


def recorded(records: Records, after: Records) -> Recorded:
    """A step's events and blocks, and of the step ``after`` what it gives back."""
    alive: dict[int, tuple[int, int]] = {}  # by address: bytes and number; tensors: -1
    deltas: list[int] = []
    gaps: list[list[Small | int]] = [[]]
    gone: dict[int, int] = {}
    count = 0
    moving: int | None = None  # the block that realloc gives back once it has another

    def goes(number: int) -> None:
        gone[number] = len(deltas)
        gaps[-1].append(number)

    for size, address, aligned, thread, kind in records:
        if thread != OURS:
            continue
        if size >= 0 and kind == TENSORS:
            alive[address] = size, -1
            deltas.append(size)
            gaps.append([])
        elif size >= 0:
            alive[address] = size, count
            gaps[-1].append(Small(size, CLEARED if kind == CALLOC else aligned, len(deltas), count))
            count += 1
            if moving is not None:
                goes(moving)
                moving = None
        elif address in alive:
            nbytes, number = alive.pop(address)
            if number < 0:
                deltas.append(-nbytes)
                gaps.append([])
            elif size == MOVES:
                moving = number
            else:
                goes(number)
    for size, address, *_ in after:
        if size >= 0:
            alive.pop(address, None)
        elif address in alive:
            gone.setdefault(alive.pop(address)[1], ENDS)
    return Recorded(deltas, gaps, gone)


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


def told(events: Sequence[Event], layers: Layers, step: Recorded, *, first: bool) -> Iterator[tuple[str, list[Any]]]:
    """Of each run of events its key and its scripts."""
    made = {e.storage.id: n for n, e in enumerate(events) if e.delta > 0}
    runs = runs_of(events, layers)
    run_at = {n: run for run in runs for n in range(run.start, run.stop)}
    backward = {run.layer: run for run in reversed(runs) if run.phase == "backward"}
    mode = "train" if backward else "infer"
    for run, new in zip(runs, new_ones(runs, events), strict=True):
        scripts: list[Any] = []
        numbers: dict[int, int] = {}
        for n in range(run.start, run.stop):
            acts: list[Any] = []
            for small in step.gaps[n]:
                if isinstance(small, int):
                    if small in numbers:
                        acts.append(-1 - numbers[small])
                    continue
                gap = step.gone.get(small.number)
                numbers[small.number] = len(numbers)
                if gap is not None and n <= gap < run.stop:
                    goes: tuple[str, int] = "=", 0
                else:
                    goes = _goes(n, gap if gap in (None, ENDS) else gap - 1, events, made, run_at, backward)
                acts.append([small.nbytes, small.aligned, *goes])
            scripts.append(acts)
        if run.op in LISTED and run.phase == "forward":
            scripts[0] = without_list(scripts[0], lists(*run.listed, training=mode == "train"))
        if new or not first:
            yield "|".join((mode, "new" if first else "later", run.phase, run.op, run.signs, run.before)), scripts


def without_list(acts: list[Any], blocks: Sequence[Take | int]) -> list[Any]:
    """What was recorded, with a mark in the place of the ``blocks`` of a list; as it is where others were recorded, such as
    one that the process takes once and for good."""
    for start in range(len(acts) - len(blocks) + 1):
        first = sum(not isinstance(act, int) for act in acts[:start])
        expected = [-1 - first - act if isinstance(act, int) else list(act) for act in blocks]
        if acts[start : start + len(blocks)] == expected:
            return [*acts[:start], LIST, *acts[start + len(blocks) :]]
    return acts


def _usual(calls: list[list[Any]]) -> list[Any]:
    """The commonest of them; of several, the one with the median number of blocks."""
    counts = Counter(map(json.dumps, calls))
    most = sorted((text for text, count in counts.items() if count == max(counts.values())), key=len)
    found: list[Any] = json.loads(most[len(most) // 2])
    return found


def _goes(n: int, last: int | None, events: Sequence[Event], made: dict[int, int], run_at: dict[int, Any], backward: dict[str, Any]) -> Any:
    if last is None:
        return "N", 0
    if last < 0:
        return "E", 0
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
    calls: dict[str, list[list[Any]]] = {}
    for name, (model, shape, optimizer, loss) in CASES.items():
        graph = memest.from_torch(built(model), shape)
        how: dict[str, Any] = {"mode": "train", "optimizer": optimizer, "loss": loss} if optimizer else {"mode": "infer"}
        estimate = memest.estimate(graph, input_shape=shape, machine=memest.Cpu.detect(), **how)
        records = np.load(folder / f"{name}.npz")
        for step, after, stream in (("step1", "step2", estimate.steps.first()), ("step2", "step3", estimate.steps.asked())):
            made = recorded(records[step].tolist(), records[after].tolist())
            try:
                events = lined_up(stream.events, made.deltas)
            except ValueError as e:
                print(f"{name}, {step}: {e}", file=sys.stderr)
                continue
            for key, scripts in told(events, layers_of(estimate.steps, script(estimate.steps)[0]), made, first=step == "step1"):
                calls.setdefault(key, []).append(scripts)
            print(f"{name}, {step}: {len(calls)} kinds", file=sys.stderr)
    takes: dict[tuple[Any, ...], int] = {}
    numbers: dict[tuple[int, ...], int] = {}
    table: dict[str, list[int]] = {}
    for key, found in calls.items():
        kept = [tuple(act if isinstance(act, int) else takes.setdefault(tuple(act), len(takes)) for act in acts) for acts in _usual(found)]
        table[key] = [numbers.setdefault(acts, len(numbers)) for acts in kept]
    data = {"torch": "2.13.0", "runs": table, "scripts": list(numbers), "takes": list(takes)}
    DATA.write_text(json.dumps(data, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{len(table)} kinds of calls, {len(numbers)} scripts", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
