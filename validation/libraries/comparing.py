"""Stored graphs played beside stored measurements: the README's lines of libraries, and their claim."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import memest
from memest.errors import MemestError
from memest.machines.cpu import Cpu
from validation.libraries.storing import load
from validation.libraries.subjects import LIBRARIES, Subject, subjects
from validation.streams import stream_digest

MODES = ("train", "infer")
EQUAL = {"timm": 0.99, "smp": 0.99, "monai": 0.99, "transformers": 0.99}
"""The share of steps that is claimed to be equal to the byte, event by event; what is refused counts as unequal."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One network in one mode: the peaks measured and predicted, whether the streams are equal, or why there is no prediction."""

    library: str
    release: str
    torch: str
    name: str
    mode: str
    measured: int
    predicted: int = 0
    equal: bool = False
    refused: str = ""

    def __str__(self) -> str:
        said = "equal" if self.equal else f"refused: {self.refused}" if self.refused else f"differs by {self.predicted - self.measured:+,}"
        return f"{self.library}  {self.name}  {self.mode}  {self.measured:,}  {said}"


def compare(only: str = "") -> list[Compared]:
    """Every stored result of a network as the catalogue has it now."""
    return [c for library in LIBRARIES if only in ("", "libraries", library) for c in _of(library)]


def _of(library: str) -> Iterator[Compared]:
    head, records = load(library)
    now = {s.name: s for s in subjects(library)}
    for r in records:
        subject = now.get(r["name"])
        if subject is not None and subject.digest == r["digest"]:
            for mode in MODES:
                if mode in r:
                    yield _compared(subject, head, r, mode)


def _compared(subject: Subject, head: dict[str, Any], record: dict[str, Any], mode: str) -> Compared:
    measured = record[mode]
    given: dict[str, Any] = {
        "library": subject.library, "release": head["release"], "torch": head["torch"], "name": subject.name, "mode": mode,
        "measured": measured["peak"],
    }  # fmt: skip
    if "refused" in record:
        return Compared(**given, refused=record["refused"])
    try:
        found = predict(subject, record["graph"], mode, Cpu(**head["cpu"]), head["torch"])
    except MemestError as e:
        return Compared(**given, refused=str(e))
    before = {s.id for s in found.timeline.residents}
    stream = stream_digest(e.delta for e in found.events if e.storage.id not in before)
    same = found.standing_bytes == measured["standing"] and stream == measured["stream"]
    return Compared(**given, predicted=found.peak_bytes, equal=same)


def predict(subject: Subject, graph: Any, mode: str, cpu: Cpu, torch: str) -> Any:
    """memest's estimate of a network whose graph is stored."""
    step: dict[str, Any] = {"optimizer": subject.optimizer, "loss": subject.loss} if mode == "train" else {}
    read = memest.loads(json.dumps(graph), form="json")
    return memest.estimate(read, input_shape=subject.shapes, mode=mode, machine=cpu, torch=torch, **step)


def missing() -> list[str]:
    """Networks of the catalogues without a current result."""
    have = {(s, r["digest"]) for s in LIBRARIES for r in load(s)[1]}
    return [f"{s.library} {s.name}" for library in LIBRARIES for s in subjects(library) if (library, s.digest) not in have]


def table(found: Iterable[Compared]) -> str:
    """The lines of libraries in the README's accuracy table: cases, measured, exact, worst difference of what is answered, the claim,
    streams equal; what is refused counts as measured and as not exact."""
    groups: dict[str, list[Compared]] = {}
    for c in found:
        groups.setdefault(c.library, []).append(c)
    return "\n".join(_row(library, members) for library, members in groups.items())


def _row(library: str, members: list[Compared]) -> str:
    answered = [c for c in members if not c.refused]
    exact = sum(c.predicted == c.measured for c in answered)
    worst = max((abs(c.predicted - c.measured) / c.measured for c in answered), default=0.0)
    label = f"{LIBRARIES[library]} {members[0].release}: {len({c.name for c in members})} networks"
    refused = f", {len(members) - len(answered)} refused" if len(answered) < len(members) else ""
    claimed = f"{100 * EQUAL[library]:g} % equal"
    share = f"{exact} ({100 * exact / len(members):.1f} %{refused})"
    return f"| {label} | {len(members)} | {share} | {100 * worst:.3f} % | {claimed} | {sum(c.equal for c in members)} of {len(members)} |"


def failures(found: list[Compared]) -> list[str]:
    """The claims that do not hold, and libraries without results."""
    have = {c.library for c in found}
    problems = [f"{s} has no stored results; run: python -m validation libraries {s}" for s in LIBRARIES if s not in have]
    for library in sorted(have):
        steps = [c.equal for c in found if c.library == library]
        if sum(steps) < EQUAL[library] * len(steps):
            problems.append(f"{library}: {sum(steps)} of {len(steps)} steps are equal to the byte, {100 * EQUAL[library]:g} % are claimed")
    return problems
