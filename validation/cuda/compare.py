"""Predictions for CUDA against stored results, each for the card, torch and cuDNN it was measured on; no CUDA build of torch is needed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from memest.errors import MemestError
from memest.estimate.estimate import Estimate, estimate
from memest.libraries.cudnn import library
from memest.machines.cuda import shipped_with
from memest.machines.target import Target
from memest.machines.versions import text_of
from memest.network.graph import Graph
from memest.sources import models
from validation.cuda.calls import Call
from validation.cuda.networks import Network
from validation.cuda.storing import stored
from validation.cuda.sure import expected
from validation.cuda.targets import target_of
from validation.rows import normalized


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One case: whether the streams are equal, and the peaks (predicted, measured) where a whole step was measured; why there is no
    prediction, where there is none; whether the prediction is ``sure``, that is, claimed to be exact, and whether the cuDNN it was measured
    with was there to be ``asked``."""

    group: str
    case: str
    where: str
    equal: bool
    allocated: tuple[int, int] | None = None
    reserved: tuple[int, int] | None = None
    refused: str = ""
    sure: bool = True
    asked: bool = False

    def __str__(self) -> str:
        said = "equal" if self.equal else "refused" if self.refused else "differs"
        pairs = (("allocated", self.allocated), ("reserved", self.reserved))
        peaks = "".join(f"  {what} {pair[0]:,} of {pair[1]:,}" for what, pair in pairs if pair is not None)
        return f"{said}  {self.where}  {self.case}{peaks}  {self.refused}".rstrip()


def compare(only: str = "") -> list[Compared]:
    """Every stored result that is wanted (a group, or part of a case's name) and still current."""
    from validation.cuda import networks, parallel

    steps = (c for group, cases in (("networks", networks.cases()), ("parallel", parallel.cases())) for c in _steps(group, cases, only))
    found = [*_rows(only), *_operators(only), *_optimizers(only), *steps]
    return sorted(found, key=lambda c: (c.where, c.group, c.case))


def where(head: dict[str, Any]) -> str:
    """Under what was measured, in a few words."""
    return f"{head['oracle']} {head['card']}, torch {head['torch'].partition('+')[0]}"


def _wanted(group: str, case: str, only: str) -> bool:
    return only in ("", group) or only in case


def _compared(group: str, head: dict[str, Any], record: dict[str, Any], events: Any) -> Compared:
    """``events()`` predicts."""
    given: dict[str, Any] = {"group": group, "case": record["case"], "where": where(head)}
    try:
        deltas = [e.delta for e in expected(events())]
    except MemestError as error:
        return Compared(**given, equal=False, refused=str(error))
    return Compared(**given, equal=normalized(deltas) == normalized(record["deltas"]))


def _rows(only: str) -> Iterator[Compared]:
    from validation.cuda.rows import check_rows

    for head, records in stored("rows"):
        for c in check_rows(target_of(head), [r for r in records if _wanted("rows", r["case"], only)]):
            yield Compared(group="rows", case=c.name, where=where(head), equal=c.equal, refused=c.refused)


def _operators(only: str) -> Iterator[Compared]:
    from validation.cuda.operators import calls
    from validation.cuda.predicting import predict_call

    now = {c.name: c for c in calls()}
    for head, records in stored("operators"):
        for r in records:
            call = now.get(r["case"])
            if call is not None and current(call, r) and _wanted("operators", call.name, only):
                yield _compared(
                    "operators", head, r, partial(predict_call, call, target_of(head, benchmark=call.benchmark, enabled=call.cudnn))
                )


def current(case: Call | Network, record: dict[str, Any]) -> bool:
    """Whether a result is of the case as it is now, and torch did not refuse it."""
    return "error" not in record and _plain(record["settings"]) == _plain(case.settings)


def _plain(value: Any) -> Any:
    """Tuples and lists alike, as JSON has them."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _optimizers(only: str) -> Iterator[Compared]:
    from validation.cuda.optimizers import predict_update, updates

    now = {u.name: u for u in updates()}
    for head, records in stored("optimizers"):
        for r in records:
            update = now.get(r["case"])
            if update is not None and "error" not in r and _wanted("optimizers", update.name, only):
                yield _compared("optimizers", head, r, partial(predict_update, update, target_of(head)))


def _steps(group: str, cases: Iterable[Network], only: str) -> Iterator[Compared]:
    results = [(head, {r["case"]: r for r in records}) for head, records in stored(group)]
    for case in cases:  # a network's graph is recorded once for all cards
        for head, records in results:
            record = records.get(case.name)
            if record is not None and current(case, record) and _wanted(group, case.name, only):
                yield _step(group, head, case, record)


def _step(group: str, head: dict[str, Any], case: Network, record: dict[str, Any]) -> Compared:
    target = target_of(head)
    asked = library.installed() == target.settings.cudnn
    given: dict[str, Any] = {"group": group, "case": case.name, "where": where(head), "asked": asked}
    try:
        found = predict_network(case, target)
    except MemestError as error:
        return Compared(**given, equal=False, refused=str(error))
    allocated, reserved = found.allocated, found.reserved
    return Compared(
        **given,
        equal=normalized([e.delta for e in expected(found.events)]) == normalized(record["deltas"]),
        allocated=None if allocated is None or allocated.bytes is None else (allocated.bytes, record["peak"]),
        reserved=None if reserved is None or reserved.bytes is None else (reserved.bytes, record["reserved"]),
        sure=allocated.claim == "exact",
    )


def predict_network(case: Network, target: Target) -> Estimate:
    """memest's estimate of the third step."""
    options: dict[str, Any] = {"optimizer": case.optimizer, "loss": case.loss} if case.mode == "train" else {}
    where: dict[str, Any] = {
        "runtime": target.runtime, "machine": target.machine, "torch": text_of(target.version),
        "cudnn": text_of(target.settings.cudnn or shipped_with(target.version)),
    }  # fmt: skip
    graph = _graph(case.model, case.shape, case.mode) if case.external else models.build(case.model)
    return estimate(graph, input_shape=case.shape, mode=case.mode, levers=case.levers, **options, **where)


@lru_cache(2)
def _graph(model: str, shape: tuple[int, ...], mode: str) -> Graph:
    from memest.sources.importers.torch.loading import build
    from memest.sources.importers.torch.network import from_torch

    return from_torch(build(model).train(mode == "train"), shape, mode=mode)


STEPS = ("networks", "parallel")  # groups of whole steps
EXACT, WORST = 0.95, 0.005  # of allocated
RESERVED_EXACT, RESERVED_WORST = 0.90, 0.03


def failures(found: list[Compared]) -> list[str]:
    """Claims about whole steps that do not hold, one line each. Where cuDNN cannot be asked, that is of steps that are claimed to be exact:
    the others are modelled, and say so."""
    steps = [c for c in found if c.group in STEPS and (c.sure or c.asked)]
    if not steps:
        return ["no results are stored; run: python -m validation measure --runtime torch-cuda"]
    problems: list[str] = []
    claims = (
        ("allocated", [c.allocated for c in steps], EXACT, WORST),
        ("reserved", [c.reserved for c in steps], RESERVED_EXACT, RESERVED_WORST),
    )
    for what, pairs, exact, worst in claims:
        share = sum(pair is not None and pair[0] == pair[1] for pair in pairs) / len(steps)
        if share < exact:
            problems.append(f"{what}: {100 * share:.1f} % of {len(steps)} steps are equal, {100 * exact:g} % are claimed")
        for c, pair in zip(steps, pairs, strict=True):
            if pair is not None and abs(pair[0] - pair[1]) > worst * pair[1]:
                problems.append(f"{c.case} ({c.where}): {what} {pair[0]:,}, measured {pair[1]:,}: more than {100 * worst:g} % apart")
    return problems


# tables ------------------------------------------------------------------------------------------------------------------


def table(found: Iterable[Compared]) -> str:
    """A line a group and place; shares of all that was measured, what is refused among it."""
    lines = [
        "| cases | measured on | cases | not predicted | streams equal | allocated equal | worst | reserved equal | median | worst |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    groups: dict[tuple[str, str], list[Compared]] = {}
    for c in found:
        groups.setdefault((c.group, c.where), []).append(c)
    for (group, place), members in sorted(groups.items()):
        refused = sum(bool(c.refused) for c in members)
        cells = [_share(sum(c.equal for c in members), len(members))]
        cells += _figures([c.allocated for c in members if c.allocated], median=False)
        cells += _figures([c.reserved for c in members if c.reserved], median=True)
        lines.append(f"| {group} | {place} | {len(members)} | {refused} | {' | '.join(cells)} |")
    return "\n".join(lines)


def equal_steps(found: Iterable[Compared]) -> str:
    """How many of the networks' steps are equal in what is allocated, as the README says it."""
    pairs = [c.allocated for c in found if c.group == "networks"]
    return f"{sum(pair is not None and pair[0] == pair[1] for pair in pairs)} of {len(pairs)}"


def _figures(pairs: list[tuple[int, int]], *, median: bool) -> list[str]:
    if not pairs:
        return ["", "", ""] if median else ["", ""]
    errors = [abs(p - m) / m for p, m in pairs]
    middle = [f"{100 * statistics.median(errors):.2f} %"] if median else []
    return [_share(sum(p == m for p, m in pairs), len(pairs)), *middle, f"{100 * max(errors):.2f} %"]


def _share(part: int, whole: int) -> str:
    return f"{part} ({100 * part / whole:.1f} %)"
