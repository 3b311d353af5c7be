"""What to change so that a step fits a budget: every candidate alone, ranked by the bytes it saves, and a combination that fits.

>>> advice = advise(graph, "12GiB", input_shape=(16, 3, 224, 224), optimizer="adam")
>>> advice.fits, [o.changes for o in advice.combined]

Every number is an estimate of the real combination; nothing is added up. The combination is found by a search
(``memest.planning.combining``): cheap kinds of change first, then few changes, then gentle ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from memest import asked
from memest.errors import MemestError
from memest.estimate import Estimate, InputShape, estimate
from memest.graph import Graph
from memest.planning.advice import Choice, Kind, Situation, choices
from memest.planning.axes import batch_symbol
from memest.planning.checkpoints import recomputed_share
from memest.planning.combining import Path, Trials, combine, keywords
from memest.planning.fit import fit

FIT_KEYWORDS = ("mode", "optimizer", "loss", "dtype", "levers", "cpu")


@dataclass(frozen=True, kw_only=True)
class Option:
    """Changes as a user writes them (levers, or SETTING=VALUE), the kind of their price, the price in words, the estimate with them, and
    the bytes by which they lower the peak: that of the step as it is, or in a path that of the option before (negative: they raise it)."""

    changes: tuple[str, ...]
    kind: Kind
    price: str
    estimate: Estimate
    saved_bytes: int

    @property
    def peak_bytes(self) -> int:
        """The peak with the changes."""
        return self.estimate.peak_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A candidate that this step does not allow, and why."""

    change: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Advice:
    """``start`` is the step as it is, ``alone`` each change by itself (largest saving first), ``combined`` the path of changes to the step
    that is advised, each lowering the peak further; it is empty when the step fits as it is. Where nothing fits it leads to the least
    peak found. ``keywords`` are those of ``estimate`` at its end. ``refused`` are the candidates that cannot be pulled here.

    ``largest_batch`` fits as the step is, ``largest_batch_combined`` with the path's changes (of a rank, where there are several); None
    when it was not asked for or is not known, 0 when not one sample fits."""

    budget_bytes: int
    start: Estimate
    alone: tuple[Option, ...]
    combined: tuple[Option, ...]
    keywords: dict[str, Any]
    refused: tuple[Refusal, ...]
    largest_batch: int | None = None
    largest_batch_combined: int | None = None

    @property
    def reached(self) -> Estimate:
        """The estimate at the end of the path."""
        return self.combined[-1].estimate if self.combined else self.start

    @property
    def fits(self) -> bool:
        """True when the step fits, as it is or with the path's changes."""
        return self.reached.peak_bytes <= self.budget_bytes

    @property
    def missing_bytes(self) -> int:
        """How far the end of the path is from the budget; 0 when it fits."""
        return max(0, self.reached.peak_bytes - self.budget_bytes)


def advise(graph: Graph, budget: int | str, *, input_shape: InputShape | None = None, largest_batch: bool = False, **step: Any) -> Advice:
    """What to change so that a step of ``graph`` needs at most ``budget`` (bytes, or text with a unit such as ``12GiB``).

    ``input_shape`` and ``step`` are the keywords of :func:`memest.estimate`; levers among them stay pulled. ``largest_batch`` asks for
    the largest batches too. Raises UsageError for a budget that is no size, and what ``estimate`` raises for the step as it is.
    """
    graph = asked.graph(graph, "advise")
    limit = asked.budget(budget)
    step = asked.settings(graph, step)
    start = estimate(graph, input_shape=input_shape, **step)
    situation = Situation(graph=graph, shapes=start.input_shapes, sizes=start.sizes, step=step, limit=limit)
    proposed, refusals = choices(situation)
    refused = [Refusal(change=name, reason=reason) for name, reason in refusals]
    trials = Trials(situation)
    alone: list[Option] = []
    for choice in proposed:
        found = trials.at((choice,))
        if isinstance(found, MemestError):
            refused.append(Refusal(change=choice.change.text, reason=str(found)))
        else:
            alone += _options(trials, (choice,))
    path = combine(trials, proposed, limit)
    advice = Advice(
        budget_bytes=limit,
        start=start,
        alone=tuple(sorted(alone, key=lambda o: -o.saved_bytes)),
        combined=tuple(_options(trials, path)),
        keywords=keywords(situation, path),
        refused=tuple(refused),
    )
    return _with_batches(advice, situation, path) if largest_batch else advice


def _options(trials: Trials, path: Path) -> list[Option]:
    """The path, each change with the estimate after it."""
    found: list[Option] = []
    before = trials.at(())
    for n, choice in enumerate(path, start=1):
        after = trials.at(path[:n])
        assert isinstance(before, Estimate) and isinstance(after, Estimate)
        saved = before.peak_bytes - after.peak_bytes
        found.append(
            Option(
                changes=(choice.change.text,), kind=choice.candidate.kind, price=_price(choice, after), estimate=after, saved_bytes=saved
            )
        )
        before = after
    return found


def _price(choice: Choice, after: Estimate) -> str:
    share = recomputed_share(after) if choice.candidate.lever == "checkpoint" else None
    return choice.price if share is None else f"{choice.price}: {100 * share:.1f} % of the forward's operations"


def _with_batches(advice: Advice, situation: Situation, path: Path) -> Advice:
    now = _largest_batch(situation, ())
    return replace(advice, largest_batch=now, largest_batch_combined=_largest_batch(situation, path) if path else None)


def _largest_batch(situation: Situation, path: Path) -> int | None:
    """None where the batch is a number, where a keyword has a value that ``fit`` does not know, or where slices make a step's events
    depend on the batch, so that ``fit`` has no bound."""
    first, step = batch_symbol(situation.graph), keywords(situation, path)
    sliced = any(text.startswith("micro_batch") for text in step["levers"])
    if first is None or sliced or step.get("hold_output") or step.get("first_step"):
        return None
    sizes = {**situation.sizes, **{s: n for c in path for s, n in c.change.sizes}}
    given: dict[str, Any] = {name: step[name] for name in FIT_KEYWORDS if name in step}
    given.update({s: n for s, n in sizes.items() if s != first})
    try:
        found = fit(situation.graph, situation.limit, "batch", **given)
    except MemestError:
        return None
    return found.value or 0
