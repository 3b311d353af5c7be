"""Stored graphs played beside what an engine was measured to ask for, take and hold; no engine is needed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import memest
from memest.errors import MemestError
from memest.memory.stream import Stream
from memest.runtimes.onnxruntime.memory import most_alive, pattern_block
from validation.engines.onnxruntime.storing import load
from validation.rows import normalized

EQUAL = 0.95  # the share of networks whose planned bytes, block and regions are claimed to be equal
LARGE = 200 << 20  # bytes of a process from which on its error counts
MEDIAN, WITHIN = 0.03, 0.95
COLUMNS = ("runs", "processor", "threads", "not predicted", "stream equal", "planned", "block", "arena", "process, median", "worst")


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One network at one shape: pairs (predicted, measured), or why there is no prediction. ``process`` has low and high, too."""

    case: str
    isa: str
    threads: int
    stream: bool = False
    peak: tuple[int, int] = (0, 0)
    block: tuple[int, int] = (0, 0)
    regions: tuple[int, int] = (0, 0)
    process: tuple[int, int, int, int] = (0, 0, 0, 0)
    refused: str = ""

    @property
    def inside(self) -> bool:
        """Whether the weights lie in the file."""
        return has_weights(self.case)

    @property
    def equal(self) -> bool:
        """Whether all that is claimed to be exact is."""
        return not self.refused and all(a == b for a, b in (self.peak, self.block, self.regions))

    @property
    def error(self) -> float:
        """Of the resident peak, as a share."""
        return self.process[0] / self.process[1] - 1 if self.process[1] else 0.0

    def __str__(self) -> str:
        pairs = (("peak", self.peak), ("block", self.block), ("arena", self.regions))
        said = self.refused or ", ".join(f"{name} {a:,} of {b:,}" for name, (a, b) in pairs if a != b) or "equal"
        order = "" if self.stream or self.refused else " (stream differs)"
        return f"{self.case}  {self.isa}  {self.threads} threads  {said}{order}  process {self.error:+.1%}"


Test = Callable[[Compared], bool]


def has_weights(case: str) -> bool:
    """Whether a case's file has its weights in it: those of the legacy exporter, and those that say so."""
    return case.endswith(("-legacy", "-inline"))


def compare(only: str = "") -> list[Compared]:
    """Every stored result that is wanted (part of a case's name)."""
    head, records = load("onnxruntime")
    graphs = {r["case"]: r["graph"] for r in records if "graph" in r}
    return [_compared(head, r, graphs[r["case"]]) for r in records if only in r["case"]]


def _compared(head: dict[str, Any], record: dict[str, Any], graph: str) -> Compared:
    case, threads, isa = record["case"], record["threads"], record.get("isa", head["isa"])
    try:
        found = memest.estimate(
            memest.loads(graph),
            mode="infer",
            runtime="onnxruntime",
            machine=memest.Cpu(isa=isa, threads=threads),
            ort_external=not has_weights(case),
        )
        return Compared(case=case, isa=isa, threads=threads, **_figures(found, record))
    except MemestError as e:
        return Compared(case=case, isa=isa, threads=threads, refused=str(e))


def _figures(found: Any, record: dict[str, Any]) -> dict[str, Any]:
    stream: Stream = found.timeline
    measured = record["stream"]
    given: dict[str, Any] = {
        "stream": normalized([e.delta for e in stream.events]) == normalized(measured["deltas"]),
        "peak": (most_alive(stream), measured["peak"]),
        "block": (pattern_block(stream), measured["block"]),
    }
    if record.get("arena"):
        given["regions"] = (dict(found.figures.besides)["arena"].bytes, sum(map(sum, record["arena"])))
    if record.get("resident"):
        p = found.process
        given["process"] = (p.bytes, record["resident"]["runs"][-1], p.low, p.high)
    return given


def table(found: Iterable[Compared]) -> str:
    """The README's lines."""
    every = list(found)
    return "\n".join(
        [
            f"| {' | '.join(COLUMNS)} |",
            "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|",
            *(
                _line(*key, [c for c in every if (c.isa, c.threads) == key])
                for key in sorted({(c.isa, c.threads) for c in every}, reverse=True)
            ),
        ]
    )


def _line(isa: str, threads: int, found: list[Compared]) -> str:
    known = [c for c in found if not c.refused]
    errors = _errors(known)
    shares = (_share([c for c in found if c.refused or measured(c)], test) for measured, test in _tests())
    cells = [len(found), isa, threads, len(found) - len(known), *shares]
    return (
        "| "
        + " | ".join(map(str, [*cells, f"{statistics.median(errors):.1%}" if errors else "", f"{max(errors):.1%}" if errors else ""]))
        + " |"
    )


def _share(found: list[Compared], test: Test) -> str:
    """How many pass; nothing where no one could."""
    known = [c for c in found if not c.refused]
    return f"{sum(map(test, known))} ({sum(map(test, known)) / len(found):.1%})" if known else ""


def _tests() -> Iterator[tuple[Test, Test]]:
    """Whether it was measured, and whether it is equal."""
    yield lambda c: True, lambda c: c.stream
    yield lambda c: True, lambda c: c.peak[0] == c.peak[1]
    yield lambda c: True, lambda c: c.block[0] == c.block[1]
    yield lambda c: bool(c.regions[1]), lambda c: c.regions[0] == c.regions[1]


def _errors(found: Iterable[Compared]) -> list[float]:
    """Of large processes whose weights lie outside the file."""
    return [abs(c.error) for c in found if c.process[1] >= LARGE and not c.inside]


def failures(found: list[Compared]) -> list[str]:
    """What is claimed and does not hold."""
    problems = []
    equal = sum(c.equal for c in found)
    if equal < EQUAL * len(found):
        problems.append(f"onnxruntime: {equal} of {len(found)} results are equal, {EQUAL:.0%} are claimed")
    measured = [c for c in found if c.process[1]]
    within = sum(c.process[2] <= c.process[1] <= c.process[3] for c in measured)
    if within < WITHIN * len(measured):
        problems.append(f"onnxruntime: {within} of {len(measured)} processes lie within their range, {WITHIN:.0%} are claimed")
    errors = _errors(found)
    if errors and statistics.median(errors) > MEDIAN:
        problems.append(f"onnxruntime: the median error of the process is {statistics.median(errors):.1%}, {MEDIAN:.0%} is claimed")
    return problems
