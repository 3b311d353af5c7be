"""What to change so that a step fits a budget: every candidate alone, ranked by the bytes it saves, and a combination that fits.

>>> advice = advise(graph, "12GiB", input_shape=(16, 3, 224, 224), optimizer="adam")
>>> advice.fits, [o.changes for o in advice.combined]

Every number is an estimate of the real combination; nothing is added up. The combination is found by a search
(``memest.planning.combining``): cheap kinds of change first, then few changes, then gentle ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, overload

from memest.errors import MemestError
from memest.estimate.estimate import Estimate, answer
from memest.estimate.inputs import InputShape
from memest.estimate.question import NAMES, Settings, question
from memest.machines.claims import Claim
from memest.machines.entry import Hardware
from memest.machines.verdicts import Verdict, place_of
from memest.network.graph import Graph, as_graph
from memest.planning.advice import Choice, Kind, Situation, choices
from memest.planning.axes import batch_symbol
from memest.planning.checkpoints import recomputed_share
from memest.planning.combining import Path, Trials, combine, keywords
from memest.planning.fit import fit
from memest.planning.progress import tell
from memest.planning.spread import SEVERAL, each
from memest.shown import counted, short
from memest.sizes import asked
from memest.sizes.units import format_bytes

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True, kw_only=True)
class Option:
    """Changes as a user writes them (levers, or SETTING=VALUE), the kind of their price, the price in words, the estimate with them, and
    the bytes by which they lower the peak: that of the step as it is, or in a path that of the option before (negative: they raise it).
    ``name`` is the row of the table of candidates they are from: other changes of that row are weaker or stronger forms of it."""

    name: str
    changes: tuple[str, ...]
    kind: Kind
    price: str
    estimate: Estimate
    saved_bytes: int

    def __repr__(self) -> str:
        return f"<Option {short(', '.join(self.changes))}: {self.peak_bytes:,} bytes>"

    @property
    def peak_bytes(self) -> int:
        """The peak with the changes."""
        return self.estimate.held_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A candidate that this step does not allow, and why."""

    change: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Advice:
    """``place`` is where the step has to fit, ``budget_bytes`` its memory; ``claim`` says whose bytes are held against it and what is
    missing. ``start`` is the step as it is, ``alone`` each change by itself (largest saving first), ``combined`` the path of changes to
    the step that is advised, each lowering the peak further; it is empty when the step fits as it is. Where nothing fits it leads to the
    least peak found. ``keywords`` are those of ``estimate`` at its end. ``refused`` are the candidates that cannot be pulled here.

    ``largest_batch`` fits as the step is, ``largest_batch_combined`` with the path's changes (of a rank, where there are several); None
    when it was not asked for or is not known, 0 when not one sample fits."""

    place: Hardware
    budget_bytes: int
    start: Estimate
    alone: tuple[Option, ...]
    combined: tuple[Option, ...]
    keywords: dict[str, Any]
    refused: tuple[Refusal, ...]
    largest_batch: int | None = None
    largest_batch_combined: int | None = None

    def __repr__(self) -> str:
        budget, peak = format_bytes(self.budget_bytes), format_bytes(self.reached.held_bytes)
        verdict = {True: "fits", None: "may fit", False: "does not fit"}[self.fits]
        return f"<Advice: {peak} {verdict} {budget} with {counted(len(self.combined), 'change')}; {len(self.alone):,} tried>"

    @property
    def reached(self) -> Estimate:
        """The estimate at the end of the path."""
        return self.combined[-1].estimate if self.combined else self.start

    @property
    def verdict(self) -> Verdict:
        """The step as it is, or with the path's changes, held against the place."""
        return self.reached.on(self.place)

    @property
    def claim(self) -> Claim:
        """Whose bytes are held against the place, and what of the place's own is missing."""
        return self.verdict.claim

    @property
    def bytes_fit(self) -> bool:
        """True when the step's bytes fit, as it is or with the path's changes."""
        return self.reached.held_bytes <= self.budget_bytes

    @property
    def fits(self) -> bool | None:
        """Whether the step fits, as it is or with the path's changes; None where these bytes do not say it, as on an accelerator for which
        they were not played, or where it depends."""
        return self.verdict.fits

    @property
    def notes(self) -> tuple[str, ...]:
        """Whose bytes are compared, and where they speak of another torch than the one at hand."""
        return (self.claim.note, *self.start.notes)

    @property
    def missing_bytes(self) -> int:
        """How far the end of the path is from the budget; 0 when it fits."""
        return max(0, self.reached.held_bytes - self.budget_bytes)


@overload
def advise(
    graph: Graph,
    budget: int | str | Hardware,
    *,
    input_shape: InputShape | None = ...,
    largest_batch: bool = ...,
    executor: Executor | None = ...,
    **settings: Unpack[Settings],
) -> Advice: ...
@overload
def advise(
    graph: Sequence[Graph],
    budget: int | str | Hardware,
    *,
    input_shape: InputShape | None = ...,
    largest_batch: bool = ...,
    executor: Executor | None = ...,
    **settings: Unpack[Settings],
) -> tuple[Advice, ...]: ...
@overload
def advise(
    graph: Mapping[str, Graph],
    budget: int | str | Hardware,
    *,
    input_shape: InputShape | None = ...,
    largest_batch: bool = ...,
    executor: Executor | None = ...,
    **settings: Unpack[Settings],
) -> dict[str, Advice]: ...
def advise(
    graph: Graph | Sequence[Graph] | Mapping[str, Graph],
    budget: int | str | Hardware,
    *,
    input_shape: InputShape | None = None,
    largest_batch: bool = False,
    executor: Executor | None = None,
    **settings: Unpack[Settings],
) -> Any:
    """What to change so that a step of ``graph`` needs at most ``budget``: bytes, text with a unit such as ``12GiB``, or hardware (all its
    memory together; on an accelerator, of a step that was not played for it, torch CPU's bytes say nothing, and ``fits`` is None).

    ``input_shape`` and ``settings`` are the keywords of :func:`memest.estimate`; levers among them stay pulled. ``largest_batch`` asks for
    the largest batches too. Of several graphs, in a sequence or by name, there is an :class:`Advice` each; an ``executor`` of
    concurrent.futures, or Dask's, spreads them. Raises UsageError for a budget that is no size, and what ``estimate`` raises for the step
    as it is.
    """
    place = place_of(budget)
    if executor is not None or isinstance(graph, SEVERAL):
        one = partial(advise, budget=place, input_shape=input_shape, largest_batch=largest_batch, **settings)
        return each(graph, one, executor, "advise")
    graph = as_graph(graph, "advise")
    limit = place.usable_bytes
    asking = question(graph, settings, "advise")
    start = answer(graph, asking, asked.shapes(input_shape))
    situation = Situation(
        graph=graph,
        shapes=start.input_shapes,
        sizes=start.sizes,
        step=asking.asked(),
        limit=limit,
        besides=start.held_bytes - start.requested_bytes,
    )
    proposed, refusals = choices(situation)
    refused = [Refusal(change=name, reason=reason) for name, reason in refusals]
    trials = Trials(situation)
    alone: list[Option] = []
    for n, choice in enumerate(proposed):
        tell("changes, alone", n, len(proposed))
        found = trials.at((choice,))
        if isinstance(found, MemestError):
            refused.append(Refusal(change=choice.change.text, reason=str(found)))
        else:
            alone += _options(trials, (choice,))
    tell("changes, alone", len(proposed), len(proposed))
    path = combine(trials, proposed, limit)
    advice = Advice(
        place=place,
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
        saved = before.held_bytes - after.held_bytes
        found.append(
            Option(
                name=choice.candidate.name,
                changes=(choice.change.text,),
                kind=choice.candidate.kind,
                price=_price(choice, after),
                estimate=after,
                saved_bytes=saved,
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
    """None where the batch is a number, or where slices make a step's events depend on the batch, so that ``fit`` has no bound."""
    first, step = batch_symbol(situation.graph), keywords(situation, path)
    sliced = any(text.startswith("micro_batch") for text in step["levers"])
    if first is None or sliced:
        return None
    sizes = {**situation.sizes, **{s: n for c in path for s, n in c.change.sizes}}
    given: dict[str, Any] = {name: step[name] for name in NAMES if name in step}
    given.update({s: n for s, n in sizes.items() if s != first})
    try:
        found = fit(situation.graph, situation.limit, "batch", **given)
    except MemestError:
        return None
    return found.value or 0
