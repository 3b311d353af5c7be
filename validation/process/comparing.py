"""Measured processes beside what is predicted for them: by regime and step the errors' median, the worst, and how many lie in the range."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import memest
from validation.process.cases import Case

RESULTS = Path(__file__).parents[1] / "results" / "process"
SETS = ("seen", "held-out")
# Of the median, and of the worst.
CLAIMS = {"glibc": (0.02, 0.14), "glibc:mmap_threshold=131072": (0.005, 0.021), "jemalloc": (0.02, 0.03)}
HELD = 0.95  # of the ranges
LATER = 2  # the step that stands for all later ones: of the second and the third, the higher


class Compared(NamedTuple):
    """One case and step: what was predicted with its range, and what was measured, in bytes."""

    case: Case
    step: int
    predicted: int
    low: int
    high: int
    measured: int

    @property
    def error(self) -> float:
        """As a part of what was measured."""
        return self.predicted / self.measured - 1

    @property
    def within(self) -> bool:
        """Whether the range holds what was measured."""
        return self.low <= self.measured <= self.high


def stored(which: str) -> list[dict[str, Any]]:
    """The measured processes: ``seen`` or ``held-out``."""
    path = RESULTS / f"{which}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def compare(rows: Iterable[Mapping[str, Any]]) -> Iterator[Compared]:
    """Each measured process, its first step and the later ones. It needs torch, and torchvision for its networks."""
    from validation.process.measuring import built

    graphs: dict[str, memest.Graph] = {}
    for row in rows:
        case = Case.of(row)
        key = f"{case.model} {case.shape}"
        if key not in graphs:
            graphs[key] = memest.from_torch(built(case.model), case.shape)
        how: dict[str, Any] = {"mode": "infer"}
        if case.optimizer:
            how = {"mode": "train", "optimizer": case.optimizer, "loss": case.loss}
        imports = "torchvision" if case.model.startswith("torchvision") else "torch"
        for step in (1, LATER):
            asked: dict[str, Any] = {"malloc": case.malloc, "imports": imports, "first_step": step == 1, **how}
            found = memest.estimate(graphs[key], input_shape=case.shape, machine=memest.Cpu(threads=2), **asked).process
            assert found.bytes is not None and found.low is not None and found.high is not None
            peaks = [s["most"] for s in row["steps"]]
            yield Compared(case, step, found.bytes, found.low, found.high, peaks[0] if step == 1 else max(peaks[1:]))


def failures(found: Collection[Compared]) -> list[str]:
    """What is claimed and does not hold."""
    problems = [] if found else ["nothing is stored of processes"]
    for malloc, (typical, most) in CLAIMS.items():
        errors = [abs(c.error) for c in found if c.case.malloc == malloc] or [0.0]
        if median(errors) > typical or max(errors) > most:
            problems.append(f"{malloc}: half of the errors are within {median(errors):.1%}, all within {max(errors):.1%}")
    if sum(c.within for c in found) < HELD * len(found):
        problems.append(f"{sum(c.within for c in found)} of {len(found)} ranges hold what was measured")
    return problems


def table(found: Iterable[Compared]) -> list[str]:
    """A line for each regime and step."""
    groups: dict[tuple[str, int], list[Compared]] = {}
    for c in found:
        groups.setdefault((c.case.malloc, c.step), []).append(c)
    lines = ["| malloc | step | processes | median error | mean | worst | within the range |", "|---|---|---:|---:|---:|---:|---:|"]
    for (malloc, step), members in sorted(groups.items()):
        errors = [c.error for c in members]
        within = sum(c.within for c in members)
        worst = max(errors, key=abs)
        lines.append(
            f"| {malloc} | {'first' if step == 1 else 'later'} | {len(members)} | {median(map(abs, errors)):.1%} | "
            f"{sum(errors) / len(errors):+.1%} | {worst:+.1%} | {within} ({within / len(members):.0%}) |"
        )
    return lines
