"""Predictions against stored results, each as the torch it was measured on: the accuracy table, the claims, and where a stream first
differs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from memest.estimate.estimate import Estimate, estimate
from memest.machines.cpu import Cpu
from memest.network.graph import Graph
from validation.cases import BY_NAME, CASES, Case
from validation.distributed import as_rank
from validation.measure import RESULTS, SCHEMA
from validation.streams import differing

EXACT_SHARE = 0.95
WORST = 0.002
TOLERANCES = {"parallel": 0.01}  # groups with a tolerance of their own: gloo's threads release in their own time


@dataclass(frozen=True)
class Comparison:
    """One case: measured and predicted peak, and (where the stream was stored) the allocations without partner."""

    case: Case
    machine: str
    measured: int
    predicted: int
    unmatched: int | None
    seconds: float

    @property
    def difference(self) -> int:
        """Predicted minus measured bytes."""
        return self.predicted - self.measured

    @property
    def share(self) -> float:
        """Relative error of the peak."""
        return abs(self.difference) / self.measured

    @property
    def tolerance(self) -> float:
        """The share that is claimed."""
        return TOLERANCES.get(self.case.group, WORST)


_GRAPHS: dict[tuple[Any, ...], Graph] = {}


def graph_of(case: Case) -> Graph:
    """The graph memest sees for a case: imported, or built in."""
    external = ":" in case.model and "." in case.model.partition(":")[0]
    key = (case.model, case.mode if external else "", case.shape if external else (), case.channels_last)
    if key not in _GRAPHS:
        if external:
            _GRAPHS.clear()
        _GRAPHS[key] = _imported(case) if external else _built_in(case.model)
    return _GRAPHS[key]


def _built_in(model: str) -> Graph:
    from memest.sources import models

    return models.build(model)


def _imported(case: Case) -> Graph:
    import torch

    from memest.sources.importers.torch.loading import build
    from memest.sources.importers.torch.network import from_torch

    module = build(case.model)
    module.train(case.mode == "train")
    example = torch.empty(case.shape, device="meta")
    if case.channels_last:
        layout = torch.channels_last if len(case.shape) == 4 else torch.channels_last_3d
        module = module.to(memory_format=layout)
        example = example.contiguous(memory_format=layout)
    return from_torch(module, example)


def predict(case: Case, cpu: Cpu, torch: str, levers: Sequence[str] | None = None) -> Estimate:
    """memest's estimate of a case on a described processor, for a release of torch (``levers``: in place of the case's own)."""
    training = {"optimizer": case.optimizer, "loss": case.loss, "hold_output": case.hold_output, "first_step": case.first_step}
    options: dict[str, Any] = training if case.mode == "train" else {}
    pulled = case.levers if levers is None else levers
    where: dict[str, Any] = {"machine": cpu, "torch": torch}
    return estimate(graph_of(case), input_shape=case.shape, mode=case.mode, dtype=case.dtype, levers=pulled, **where, **options)


def stored(machine: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(machine, result) of every stored result, in a stable order; stale ones and ones of another schema are left out."""
    folders = [RESULTS / machine] if machine else sorted(p for p in RESULTS.iterdir() if p.is_dir())
    for folder in folders:
        for path in sorted(folder.glob("*.json")):
            result = json.loads(path.read_text(encoding="utf-8"))
            case = BY_NAME.get(path.stem)
            if case is not None and result["schema"] == SCHEMA and result["digest"] == case.digest:
                yield folder.name, result


def compare(only: str = "") -> list[Comparison]:
    """Every stored result against its prediction."""
    found: list[Comparison] = []
    for machine, result in stored():
        case = BY_NAME[name_of(result)]
        if only and only not in case.name and only != case.group:
            continue
        if "ranks" in result:
            found.extend(_ranks(case, machine, result))
            continue
        start = time.perf_counter()
        predicted = predict(case, Cpu(**result["cpu"]), result["torch"])
        unmatched = differing([s.delta for s in predicted.events], result["stream"]) if "stream" in result else None
        found.append(Comparison(case, machine, result["peak_bytes"], predicted.peak_bytes, unmatched, time.perf_counter() - start))
    return found


def _ranks(case: Case, machine: str, result: dict[str, Any]) -> Iterator[Comparison]:
    for rank, measured in enumerate(result["ranks"]):
        start = time.perf_counter()
        predicted = predict(case, Cpu(**result["cpu"]), result["torch"], as_rank(case, rank))
        yield Comparison(case, machine, measured["peak_bytes"], predicted.peak_bytes, None, time.perf_counter() - start)


def name_of(result: dict[str, Any]) -> str:
    """The case that a result was measured for."""
    fields = {**result["case"], "shape": tuple(result["case"]["shape"]), "levers": tuple(result["case"].get("levers", ()))}
    return Case(**fields).name


def table(comparisons: Iterable[Comparison]) -> str:
    """The accuracy table of the README: one line a group."""
    lines = ["| cases | measured | exact to the byte | worst difference | claimed | streams equal |", "|---|---:|---:|---:|---:|---:|"]
    groups: dict[str, list[Comparison]] = {}
    for c in comparisons:
        groups.setdefault(c.case.group, []).append(c)
    for name, members in groups.items():
        lines.append(_row(name, members))
    everything = [c for members in groups.values() for c in members]
    if everything:
        lines.append(_row("**all**", everything))
    return "\n".join(lines)


def _row(name: str, members: list[Comparison]) -> str:
    exact = sum(c.difference == 0 for c in members)
    worst = max(c.share for c in members)
    streams = [c for c in members if c.unmatched is not None]
    equal = f"{sum(c.unmatched == 0 for c in streams)} of {len(streams)}" if streams else "–"  # noqa: RUF001
    claimed = max(c.tolerance for c in members)
    return (
        f"| {name} | {len(members)} | {exact} ({100 * exact / len(members):.1f} %) | {100 * worst:.3f} % | {100 * claimed:g} % | {equal} |"
    )


def failures(comparisons: list[Comparison]) -> list[str]:
    """Claims that do not hold, one line each."""
    if not comparisons:
        return ["no results are stored; run: python -m validation measure"]
    found: list[str] = []
    exact = sum(c.difference == 0 for c in comparisons) / len(comparisons)
    if exact < EXACT_SHARE:
        found.append(f"{100 * exact:.1f} % of the peaks are exact, {100 * EXACT_SHARE:.0f} % are claimed")
    for c in comparisons:
        if c.share > c.tolerance:
            found.append(f"{c.case.name}: the peak differs by {100 * c.share:.2f} %, at most {100 * c.tolerance} % is claimed")
    found += [f"{c.case.name}: {c.unmatched} allocations of the stream differ" for c in comparisons if c.unmatched]
    return found


def missing() -> list[str]:
    """Cases without a current result on any machine."""
    have = {name_of(r) for _, r in stored()}
    return [c.name for c in CASES if c.name not in have]
