"""The small blocks that torch asks malloc for between a step's tensors, by operator: data, recorded under an interposer.

``blocks.json`` (written by ``validation/process/tabulating.py``) has for each kind of call (its operator, its phase, and the signs of its
events: a tensor comes, or goes) what is asked for after each of these events: blocks that stay, with when they go, and how many of a size
come and go at once. A call of a kind that was not recorded takes those of the nearest: its operator's in that phase, else any of that
phase.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from memest.memory.stream import Event

DATA = Path(__file__).with_name("blocks.json")
SIGNS = 24  # of a key: longer calls are alike from there on

Goes = Literal["+", "T", "B", "E", "N"]


class Run(NamedTuple):
    """Events ``start`` to ``stop`` of one call."""

    start: int
    stop: int
    layer: str
    op: str
    phase: str
    signs: str

    @property
    def key(self) -> str:
        """What kind of call it is."""
        return f"{self.op}|{self.phase}|{self.signs[:SIGNS]}"


class Stays(NamedTuple):
    """A block that stays, and when it goes: ``by`` events later (``+``), with the tensor of an event that lies ``by`` away (``T``), after
    the event ``by`` of the layer's backward (``B``), when the step ends (``E``), or never (``N``)."""

    nbytes: int
    aligned: int
    goes: Goes
    by: int


class Passing(NamedTuple):
    """So many blocks of a size at one time, that come and go at once."""

    nbytes: int
    aligned: int
    most: int


class Script(NamedTuple):
    """What is asked for after an event."""

    stays: tuple[Stays, ...]
    passing: tuple[Passing, ...]


def runs_of(events: Sequence[Event]) -> list[Run]:
    """The calls in which events come, one after the other."""
    found: list[Run] = []
    start = 0
    for n in range(1, len(events) + 1):
        first = events[start]
        if n == len(events) or (events[n].layer, events[n].op, events[n].phase) != (first.layer, first.op, first.phase):
            signs = "".join("+" if e.delta > 0 else "-" for e in events[start:n])
            found.append(Run(start, n, first.layer, first.op, first.phase, signs))
            start = n
    return found


def scripts_of(run: Run, *, first: bool) -> list[Script]:
    """One script for each event of a call, in the first step or a later one."""
    return _scripts(run.op, run.phase, run.signs, "first" if first else "later")


@cache
def _scripts(op: str, phase: str, signs: str, when: str) -> list[Script]:
    table = _table()[when]
    exact = table.get((op, phase), {}).get(signs[:SIGNS])
    if exact is not None:
        return [exact[min(n, len(exact) - 1)] for n in range(len(signs))]
    alike = table.get((op, phase)) or {k: v for (_, other), calls in table.items() if other == phase for k, v in calls.items()}
    if not alike:
        return [Script((), ())] * len(signs)
    nearest = alike[min(alike, key=lambda s: (abs(len(s) - len(signs)), sum(a != b for a, b in zip(s, signs, strict=False))))]
    shape = min(alike, key=lambda s: (abs(len(s) - len(signs)), sum(a != b for a, b in zip(s, signs, strict=False))))
    by_sign = {sign: [script for script, own in zip(nearest, shape, strict=False) if own == sign] for sign in "+-"}
    counts = {"+": 0, "-": 0}
    found = []
    for sign in signs:
        known = by_sign[sign] or [Script((), ())]
        found.append(known[counts[sign] % len(known)])
        counts[sign] += 1
    return found


@cache
def _table() -> dict[str, dict[tuple[str, str], dict[str, list[Script]]]]:
    """The scripts of first and of later steps, by operator and phase, by signs."""
    data: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    scripts = [Script(tuple(Stays(*s) for s in stays), tuple(Passing(*p) for p in passing)) for stays, passing in data["scripts"]]
    found: dict[str, dict[tuple[str, str], dict[str, list[Script]]]] = {"first": {}, "later": {}}
    for key, numbers in data["runs"].items():
        op, phase, signs, when = key.split("|")
        found[when].setdefault((op, phase), {})[signs] = [scripts[n] for n in numbers]
    return found
