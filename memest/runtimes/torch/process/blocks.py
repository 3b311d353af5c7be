"""The small blocks that torch asks malloc for between a step's tensors, by operator: data, recorded under an interposer.

``blocks.json`` (written by ``validation/process/tabulating.py``) has for each kind of call (in training or inference, new in a first step
or as it is later, its phase, its operator, and the signs of its events: a tensor comes, or goes) what is asked for before each of these
events, one block after the other, and when each goes. A call of a kind that was not recorded takes those of the nearest: its operator's in
that phase, else any of that phase. What an operator takes for a list of tensors follows from how many there are (:func:`lists`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

from memest.memory.allocators.glibc import CACHED, HEADER, MOST_CACHED, chunk_size
from memest.memory.stream import Event
from memest.runtimes.runtime import Steps

DATA = Path(__file__).with_name("blocks.json")

CLEARED = -1
BIAS, OPTIMIZER = ".bias", "optimizer_step"
POINTER, EDGE, NODE, VECTOR = 8, 16, 528, 24  # bytes of what lists hold: torch's Edge, CatBackward0, a std::vector
PAIR = 2, 4  # tensors of a list, and dims, where no layer tells

Goes = Literal["=", "+", "T", "B", "E", "N", "L"]


class Layers(NamedTuple):
    """What their events do not tell: the layers with a bias, and of those that take a list of tensors how many these are, with their
    dims."""

    biased: frozenset[str]
    lists: Mapping[str, tuple[int, int]]


class Run(NamedTuple):
    """Events ``start`` to ``stop`` of one call: ``signs`` tells whether its layer is biased, and of each event whether a workspace comes,
    another tensor, or one goes; ``before`` is the operator of the call before; ``listed``: tensors of its list, their dims."""

    start: int
    stop: int
    layer: str
    op: str
    phase: str
    signs: str
    before: str
    listed: tuple[int, int] = PAIR

    def call(self, events: Sequence[Event]) -> tuple[str, str, tuple[int, ...]]:
        """What it is among all calls: the operator, and bytes that come and go."""
        return self.op, self.phase, tuple(e.delta for e in events[self.start : self.stop])


class Take(NamedTuple):
    """A block that is asked for: ``nbytes``, at a multiple of ``aligned`` (0: of malloc's own; CLEARED: by calloc), and when it goes: when
    the script says so (``=``), after the event that lies ``by`` further (``+``), with the tensor of an event that lies ``by`` away (``T``),
    after the event ``by`` of the layer's backward (``B``), when the step ends (``E``), or never (``N``). ``L`` stands for the blocks of a
    list of tensors, in their order."""

    nbytes: int
    aligned: int
    goes: Goes
    by: int


class Script(NamedTuple):
    """What is done before an event, in ``full``: blocks are taken, each with its number in the call, and those of a number go. In ``brief``
    it is that without blocks that come and go at once: where the thread cache holds as many of each size (bytes of chunks) as ``cached``
    says, they change nothing."""

    full: tuple[tuple[int, Take] | int, ...]
    brief: tuple[tuple[int, Take] | int, ...]
    cached: tuple[tuple[int, int], ...]

    @staticmethod
    def of(acts: Sequence[Take | int], first: int) -> Script:
        """Of what is recorded; the blocks that are taken have numbers from ``first`` on."""
        full: list[tuple[int, Take] | int] = []
        for act in acts:
            full.append(act if isinstance(act, int) else (first, act))
            first += not isinstance(act, int)
        gone = {act for act in full if isinstance(act, int)}
        passing = {
            act[0]: chunk_size(act[1].nbytes)
            for act in full
            if not isinstance(act, int) and act[0] in gone and not act[1].aligned and act[1].nbytes <= CACHED - HEADER
        }
        now, most = Counter[int](), Counter[int]()
        for done in full:
            size = passing.get(done if isinstance(done, int) else done[0])
            if size is not None:
                now[size] += -1 if isinstance(done, int) else 1
                most[size] = max(most[size], now[size])
        brief = tuple(act for act in full if (act if isinstance(act, int) else act[0]) not in passing)
        return Script(tuple(full), brief, tuple((size, min(count, MOST_CACHED)) for size, count in most.items()))


NOTHING = Script((), (), ())


def layers_of(steps: Steps, before: Sequence[Event]) -> Layers:
    """What is known of them, with the events ``before`` the steps, which bring the parameters."""
    values = steps.asked().values
    lists = {name: (count, len(values[name].shape)) for name, count in steps.listing.items() if name in values}
    return Layers(frozenset(e.storage.layer.removesuffix(BIAS) for e in before if e.storage.layer.endswith(BIAS)), lists)


def runs_of(events: Sequence[Event], layers: Layers) -> list[Run]:
    """The calls in which events come, one after the other."""
    found: list[Run] = []
    start = 0
    for n in range(1, len(events) + 1):
        first = events[start]
        if n == len(events) or (events[n].layer, events[n].op, events[n].phase) != (first.layer, first.op, first.phase):
            signs = "".join("-" if e.delta < 0 else "*" if e.storage.category == "workspace" else "+" for e in events[start:n])
            bias = "b" if first.layer in layers.biased else "."
            before, listed = found[-1].op if found else "", layers.lists.get(first.layer, PAIR)
            found.append(Run(start, n, first.layer, first.op, first.phase, bias + signs, before, listed))
            start = n
    return found


def new_ones(runs: Sequence[Run], events: Sequence[Event]) -> list[bool]:
    """Which calls of a first step are unlike those after it: oneDNN has no primitive for them yet, or they make an optimizer's state."""
    seen: set[tuple[str, str, tuple[int, ...]]] = set()
    found = []
    for run in runs:
        call = run.call(events)
        found.append(run.phase == OPTIMIZER or call not in seen)
        seen.add(call)
    return found


def scripts_of(run: Run, *, training: bool, new: bool) -> list[Script]:
    """One script for each event of a call; a ``new`` one is what oneDNN has no primitive for yet."""
    return _scripts(training, new, run.phase, run.op, run.signs, run.before, run.listed)


@cache
def _scripts(training: bool, new: bool, phase: str, op: str, signs: str, before: str, listed: tuple[int, int]) -> list[Script]:
    tables = [_table()[training, first] for first in ((True, False) if new else (False, True))]
    kinds = next((calls for table in tables if (calls := table.get((phase, op)))), None)
    kinds = kinds or {kind: f for (other, _), calls in tables[0].items() if other == phase for kind, f in calls.items()}
    if not kinds:
        return [NOTHING] * (len(signs) - 1)
    kind = min(kinds, key=lambda known: (abs(len(known) - len(signs)), sum(a != b for a, b in zip(known, signs, strict=False))))
    first, found = 0, []
    for told in (kinds[kind].get(before) or next(iter(kinds[kind].values())))[: len(signs) - 1]:
        acts = list(_with_lists(told, first, lists(*listed, training=training)))
        found.append(Script.of(acts, first))
        first += sum(not isinstance(act, int) for act in acts)
    return found + [NOTHING] * (len(signs) - 1 - len(found))


def lists(count: int, dims: int, *, training: bool) -> list[Take | int]:
    """What ``cat`` takes for its list of ``count`` tensors: that of the call from Python, and one of references for the shapes and one for
    the copying (``MaterializedITensorListRef``), then the sizes of what comes. In training the backward is made between these two: its
    edges, one pushed after the other, dtypes and sizes of each tensor."""
    entries, sizes = Take(POINTER * count, 0, "+", 0), Take(POINTER * dims, 0, "=", 0)
    found: list[Take | int] = [entries, entries]
    if training:
        found.append(Take(NODE, 0, "E", 0))
        rooms = [EDGE << n for n in range((count - 1).bit_length() + 1)]
        for n, nbytes in enumerate(rooms):
            found.append(Take(nbytes, 0, "E" if nbytes == rooms[-1] else "=", 0))
            if n:
                found.append(n + 2)  # the one before
        found += [Take(nbytes, 0, "E", 0) for nbytes in (count, VECTOR * count, *[POINTER * dims] * count)]
    found += [entries, sizes]
    return [*found, sum(not isinstance(act, int) for act in found) - 1]


def _with_lists(told: Sequence[Take | int], first: int, blocks: Sequence[Take | int]) -> Iterator[Take | int]:
    """What is told of an event, with the ``blocks`` of a list in their place; the blocks that are taken have numbers from ``first`` on."""
    at = first
    for act in told:
        if not isinstance(act, int) and act.goes == "L":
            yield from (at + block if isinstance(block, int) else block for block in blocks)
        else:
            yield act
            at += not isinstance(act, int)


Kinds = dict[str, dict[str, list[tuple[Take | int, ...]]]]  # by the signs of a call, then by the operator of the one before


@cache
def _table() -> dict[tuple[bool, bool], dict[tuple[str, str], Kinds]]:
    """What is done in training or not, by new calls or not, by phase and operator."""
    data: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    takes = [Take(*take) for take in data["takes"]]
    scripts = [tuple(takes[n] if n >= 0 else -1 - n for n in script) for script in data["scripts"]]
    found: dict[tuple[bool, bool], dict[tuple[str, str], Kinds]] = {pair: {} for pair in product((False, True), (False, True))}
    for key, numbers in data["runs"].items():
        mode, when, phase, op, signs, before = key.split("|")
        kinds = found[mode == "train", when == "new"].setdefault((phase, op), {})
        kinds.setdefault(signs, {})[before] = [scripts[n] for n in numbers]
    return found
