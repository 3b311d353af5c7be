"""The largest that fits: how far sizes can grow within a budget of bytes, or within a machine's memory.

The bytes of the counted tensors never fall when a size grows, so they bound the search from above; below that bound every value is
asked exactly, because what a library's kernel holds may fall again. Where an allocator is played, no fewer bytes are held than are asked
for: from the largest that the counted tensors allow the search goes down, and plays the allocator at each size it tries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import lcm, prod
from typing import Any, overload

import numpy as np

from memest.errors import MemestError, UsageError, did_you_mean, kind_of
from memest.estimate.estimate import Estimate, answer
from memest.estimate.question import KEYWORDS, Job, apart, question
from memest.machines.claims import Claim, FigureName, Source, claim_on
from memest.machines.entry import Hardware
from memest.machines.verdicts import Verdict, place_of
from memest.machines.versions import Torch
from memest.memory.live_sets import LiveSets
from memest.network.graph import Graph, as_graph
from memest.planning.axes import batch_symbol, groups_of, pinned_sizes, symbols_in_order
from memest.planning.grids import grid
from memest.planning.peaks import TRYING, peaks, piece_at
from memest.planning.progress import tell
from memest.planning.spread import SEVERAL, each
from memest.runtimes.table import runtime_named, torch_behind
from memest.shown import counted
from memest.sizes import asked
from memest.sizes.units import format_bytes

LARGEST = 2**31 - 1
FIRST_TRIED = 512
WINDOW = 1024
FRONT = 256


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The largest sizes whose bytes fit ``budget_bytes``, the memory of ``place``, with the peak there, and the next larger with theirs
    (None: none is larger). Where nothing fits, ``sizes`` is None and ``smallest`` is the estimate of the smallest configuration, which
    says what binds. ``claim`` says whose bytes these are and what is missing; ``torch`` which torch they speak of. ``figure`` says which of
    a step's figures is held against the limit; where it is modelled it lies from ``low_bytes`` to ``high_bytes`` at ``sizes``.

    ``step`` is what the varied sizes are multiples of. With several free variables ``front`` holds one fit for each pair of sizes of
    which none can grow without another shrinking, and this fit is its first."""

    place: Hardware
    budget_bytes: int
    torch: Torch
    varied: tuple[tuple[str, ...], ...]
    step: tuple[int, ...]
    sizes: Mapping[str, int] | None
    peak_bytes: int | None
    next_sizes: Mapping[str, int] | None
    next_bytes: int | None
    smallest: Estimate | None
    source: Source
    figure: FigureName = "allocated"
    low_bytes: int | None = None
    high_bytes: int | None = None
    front: tuple[Fit, ...] = ()

    def __repr__(self) -> str:
        budget = format_bytes(self.budget_bytes)
        if self.sizes is None or self.peak_bytes is None:
            return f"<Fit: nothing fits {budget}>"
        found = ", ".join(f"{'='.join(group)}={self.sizes[group[0]]:,}" for group in self.varied)
        others = f", the first of {counted(len(self.front), 'pair')}" if self.front else ""
        return f"<Fit: {found} needs {format_bytes(self.peak_bytes)} of {budget}{others}>"

    @property
    def claim(self) -> Claim:
        """Whose bytes are held against the place, and what of the place's own is missing."""
        return claim_on(self.place.kind, self.source, name=self.place.name, figure=self.figure)

    @property
    def bytes_fit(self) -> bool:
        """True when the bytes of some configuration fit."""
        return self.sizes is not None

    @property
    def depends(self) -> bool:
        """True when the sizes found fit by what is expected, and may not by the most that could be; or where nothing fits, the other way
        round for the smallest."""
        if self.bytes_fit:
            return self.high_bytes is not None and self.high_bytes > self.budget_bytes
        return self.smallest is not None and self.smallest.on(self.place).depends

    @property
    def fits(self) -> bool | None:
        """Whether some configuration fits; None where these bytes do not say it, as on an accelerator for which they were not played, or
        where it depends."""
        return self.claim.fits(None if self.depends else self.bytes_fit)

    @property
    def notes(self) -> tuple[str, ...]:
        """Whose bytes are compared, and where they speak of another torch than the one at hand."""
        return (self.claim.note, *self.torch.notes)

    @property
    def value(self) -> int | None:
        """The size found for the first of the varied names."""
        return None if self.sizes is None else self.sizes[self.varied[0][0]]


@overload
def fit(
    graph: Graph,
    budget: int | str | Hardware,
    vary: str | Sequence[str] = ...,
    *,
    batch: int | None = ...,
    step: int | None = ...,
    executor: Executor | None = ...,
    **settings_and_sizes: Any,
) -> Fit: ...
@overload
def fit(
    graph: Sequence[Graph],
    budget: int | str | Hardware,
    vary: str | Sequence[str] = ...,
    *,
    batch: int | None = ...,
    step: int | None = ...,
    executor: Executor | None = ...,
    **settings_and_sizes: Any,
) -> tuple[Fit, ...]: ...
@overload
def fit(
    graph: Mapping[str, Graph],
    budget: int | str | Hardware,
    vary: str | Sequence[str] = ...,
    *,
    batch: int | None = ...,
    step: int | None = ...,
    executor: Executor | None = ...,
    **settings_and_sizes: Any,
) -> dict[str, Fit]: ...
def fit(
    graph: Graph | Sequence[Graph] | Mapping[str, Graph],
    budget: int | str | Hardware,
    vary: str | Sequence[str] = "batch",
    *,
    batch: int | None = None,
    step: int | None = None,
    executor: Executor | None = None,
    **settings_and_sizes: Any,
) -> Any:
    """The largest value of ``vary`` whose step needs at most ``budget``: bytes, text with a unit such as ``24GiB``, or hardware
    (all its memory together; on an accelerator, of a step that was not played for it, torch CPU's bytes say nothing, and ``fits`` is
    None). Where an allocator is played, it is played at the answer and its neighbour.

    ``vary`` names ``batch``, a size of the graph, or sizes that grow together (``H=W=D``); several of these give the Pareto front.
    All other sizes are given by name (``batch=2, H=224``), and so are the settings of :func:`memest.estimate`. Sizes the network cannot
    run at are left out; ``step`` makes the varied sizes multiples of a number of one's own (the batch only where nothing else varies).
    Of several graphs, in a sequence or by name, there is a :class:`Fit` each, in a tuple or by name; an ``executor`` of concurrent.futures,
    or Dask's, spreads them. Raises UsageError for a budget without a unit, and for unknown or missing sizes.
    """
    place = place_of(budget)
    settings, sizes = apart(settings_and_sizes)
    if executor is not None or isinstance(graph, SEVERAL):
        one = partial(fit, budget=place, vary=vary, batch=batch, step=step, **settings, **sizes)
        return each(graph, one, executor, "fit")
    graph = as_graph(graph, "fit")
    asking = question(graph, settings, "fit")
    job = asking.job(graph)
    groups = groups_of(graph, _vary(vary))
    step = None if step is None else asked.size(step, "step")
    if job.recipe.micro_batch is not None and any(batch_symbol(graph) in group for group in groups):
        raise UsageError("micro_batch runs another number of passes for every batch: fit the size of its slices, as the batch, without it")
    fixed = _fixed(graph, groups, batch, sizes)

    def estimated(at: Mapping[str, int]) -> Estimate:
        shapes = {i.name: tuple(d if isinstance(d, int) else d.evaluate(at) for d in i.shape) for i in graph.inputs}
        return answer(graph, asking, shapes)

    search = _Search(job, groups, fixed, place, torch_behind(job.recipe.target, graph.torch), step, estimated)
    found = search.front()
    if not found:
        return search.nothing(estimated(search.smallest()))
    return found[0] if len(groups) == 1 else replace(found[0], front=tuple(found))


def _vary(vary: Any) -> list[str]:
    found = [vary] if isinstance(vary, str) else list(vary) if isinstance(vary, list | tuple) else []
    if not found or not all(isinstance(v, str) for v in found):
        raise UsageError(f"vary names a size, such as 'batch' or 'H=W', or is a list of names, got {kind_of(vary)}")
    return found


class _Search:
    """One question: the job, what varies, what is fixed, and the place with its limit."""

    def __init__(
        self,
        job: Job,
        groups: Sequence[tuple[str, ...]],
        fixed: Mapping[str, int],
        place: Hardware,
        torch: Torch,
        step: int | None,
        estimated: Callable[[Mapping[str, int]], Estimate],
    ) -> None:
        self.runtime, self.estimated = runtime_named(job.recipe.target.runtime), estimated
        self.played = self.runtime.replays or job.recipe.target.process is not None
        self.job, self.groups, self.fixed = job, tuple(groups), dict(fixed)
        self.place, self.limit, self.torch = place, place.usable_bytes, torch
        self.first, self.steps, self.live = self._start(step)

    def _start(self, step: int | None) -> tuple[dict[str, int], tuple[int, ...], LiveSets]:
        """The smallest sizes the network runs at, what each varied size has to be a multiple of, and the compiled step for large ones."""
        live, error = self._first_live(step or 1)
        multiples = live.conditions.multiple
        own = [1 if len(self.groups) > 1 and batch_symbol(self.job.graph) in group else step or 1 for group in self.groups]
        steps = tuple(lcm(n, *(multiples.get(s, 1) for s in group)) for n, group in zip(own, self.groups, strict=True))
        large = {s: -(-FIRST_TRIED // n) * n for group, n in zip(self.groups, steps, strict=True) for s in group}
        piece = piece_at(self.job, {**self.fixed, **large})
        main = piece.live or live
        for scale in range(1, FIRST_TRIED + 1):
            at = {s: scale * n for group, n in zip(self.groups, steps, strict=True) for s in group}
            if self._runs({**self.fixed, **at}):
                return at, steps, main
        raise error or UsageError("no size was found at which the network runs")

    def _first_live(self, step: int) -> tuple[LiveSets, MemestError | None]:
        """The compiled step at the first of growing sizes that the network runs at."""
        error: MemestError | None = None
        tried = dict.fromkeys([*(2**e for e in range(6, 11)), *range(1, 65), *(96, 160, 192, 224, 240, 299, 320, 384)])
        for size in tried:
            at = {s: -(-size // step) * step for group in self.groups for s in group}
            piece = piece_at(self.job, {**self.fixed, **at})
            if piece.live is not None:
                return piece.live, error
            error = error or piece.error
        raise UsageError(f"{self.job.graph.name} runs at none of the sizes tried, up to {max(tried)}: {error}")

    def smallest(self) -> dict[str, int]:
        """All sizes of the smallest configuration."""
        return {**self.fixed, **self.first}

    def front(self) -> list[Fit]:
        """The fits of which none can grow without another size shrinking, by growing size of the later groups."""
        if len(self.groups) == 1:
            found = self._largest({}, 0)
            return [] if found is None else [found]
        others = [self._range(g) for g in range(1, len(self.groups))]
        fits: list[Fit] = []
        for n, values in enumerate(product(*others)):
            tell("sizes of the front", n, prod(map(len, others)))
            at = {s: v for group, v in zip(self.groups[1:], values, strict=True) for s in group}
            found = self._largest(at, 0)
            if found is not None:
                fits.append(found)
        return [f for f in fits if not any(_exceeds(g, f, self.groups) for g in fits)]

    def _range(self, number: int) -> list[int]:
        """Values of a later group up to the largest that fits with the others at their smallest."""
        others = {s: n for s, n in self.first.items() if s not in self.groups[number]}
        found = self._largest(others, number)
        if found is None or found.sizes is None:
            return []
        least, step, most = self.first[self.groups[number][0]], self.steps[number], found.sizes[self.groups[number][0]]
        count = (most - least) // step + 1
        stride = step * max(1, -(-count // FRONT))
        return list(range(most, least - 1, -stride))[::-1]

    def _largest(self, given: Mapping[str, int], number: int) -> Fit | None:
        """The largest value of one group with all other sizes given; None where none fits."""
        group, step = self.groups[number], self.steps[number]
        rest = {**self.fixed, **{s: n for s, n in self.first.items() if s not in group}, **given}
        least = self.first[group[0]] // step
        end = self._too_much(rest, group, step, least)
        if self.played:
            runs = (n for n in range(end - 1, least - 1, -1) if self._runs({**rest, **dict.fromkeys(group, n * step)}))
            most = next(runs, None)
            return None if most is None else self._replayed(rest, group, step, most, least)
        while end > least:
            tell(TRYING)
            start = max(least, end - WINDOW)
            values = np.arange(start, end, dtype=np.int64) * step
            others = {s: np.full(len(values), rest[s], dtype=np.int64) for s in self.live.symbols if s not in group}
            answer = peaks(self.job, grid([{**others, **dict.fromkeys(group, values)}]))
            held = answer.peak + self._besides({**rest, **dict.fromkeys(group, values)})
            good = np.flatnonzero((answer.peak >= 0) & (held <= self.limit))
            if len(good):
                return self._found(rest, group, step, int(values[good[-1]]), int(held[good[-1]]))
            end = start
        return None

    def _runs(self, sizes: Mapping[str, int]) -> bool:
        """Whether the network runs at these sizes."""
        return piece_at(self.job, sizes).live is not None

    def _too_much(self, rest: Mapping[str, int], group: tuple[str, ...], step: int, least: int) -> int:
        """A multiple of the step from which on the counted tensors alone exceed the limit (or sizes end)."""
        most = LARGEST // step
        low, high = least - 1, least
        while high < most and self._counted(rest, group, high * step) <= self.limit:
            low, high = high, min(2 * high + 1, most)
        while high - low > 1:
            middle = (low + high) // 2
            if self._counted(rest, group, middle * step) <= self.limit:
                low = middle
            else:
                high = middle
        return high

    def _besides(self, sizes: Mapping[str, Any]) -> Any:
        """Bytes of what comes on top of the peak, at sizes or at columns of them."""
        return self.job.graph.unregistered_bytes(sizes) if self.runtime.registered_alone else 0

    def _counted(self, rest: Mapping[str, int], group: tuple[str, ...], value: int) -> int:
        return self.live.counted({**rest, **dict.fromkeys(group, value)})

    def _replayed(self, rest: Mapping[str, int], group: tuple[str, ...], step: int, most: int, least: int) -> Fit | None:
        """The largest multiple of ``step`` up to ``most``, what the counted tensors allow, that fits by what the allocator makes of it;
        None where none does. It fits and the next larger does not: that no larger one does follows where more is never less."""

        def at(n: int) -> Verdict | None:
            tell(TRYING)
            try:
                return self.estimated({**rest, **dict.fromkeys(group, n * step)}).on(self.place)
            except MemestError:
                return None

        bad, n = most + 1, most
        found = at(n)
        while found is None or not found.bytes_fit:
            if n == least:
                return None
            bad, scaled = n, n - 1 if found is None else n * self.limit // found.peak_bytes
            n = max(least, min(scaled, n - 1))
            found = at(n)
        while bad - n > 1:
            middle = (bad + n) // 2
            other = at(middle)
            if other is None or not other.bytes_fit:
                bad = middle
            else:
                n, found = middle, other
        return self._found(rest, group, step, n * step, found.peak_bytes, found)

    def _found(
        self, rest: Mapping[str, int], group: tuple[str, ...], step: int, value: int, peak: int, verdict: Verdict | None = None
    ) -> Fit:
        after, needs = self._next(rest, group, step, value)
        if verdict is not None and after is not None:
            needs = self.estimated(after).held_bytes
        at = {**rest, **dict.fromkeys(group, value)}
        return self._result(sizes=self._named(at), peak_bytes=peak, next_sizes=self._named(after), next_bytes=needs, verdict=verdict)

    def _next(self, rest: Mapping[str, int], group: tuple[str, ...], step: int, value: int) -> tuple[dict[str, int] | None, int | None]:
        for larger in range(value + step, min(value + 64 * step, LARGEST), step):
            at = {**rest, **dict.fromkeys(group, larger)}
            if self.played:
                if self._runs(at):
                    return at, None
                continue
            answer = peaks(self.job, grid([{s: np.array([at[s]], dtype=np.int64) for s in self.live.symbols}]))
            if answer.peak[0] >= 0:
                return at, int(answer.peak[0]) + self._besides(at)
        return None, None

    def nothing(self, smallest: Estimate) -> Fit:
        """The answer where nothing fits."""
        return self._result(smallest=smallest, verdict=smallest.on(self.place) if self.played else None)

    def _named(self, at: Mapping[str, int] | None) -> dict[str, int] | None:
        """Sizes by the names that users know."""
        first = batch_symbol(self.job.graph)
        return None if at is None else {"batch" if s == first else s: n for s, n in at.items()}

    def _result(
        self,
        *,
        sizes: Mapping[str, int] | None = None,
        peak_bytes: int | None = None,
        next_sizes: Mapping[str, int] | None = None,
        next_bytes: int | None = None,
        smallest: Estimate | None = None,
        verdict: Verdict | None = None,
    ) -> Fit:
        first = batch_symbol(self.job.graph)
        found = Fit(
            place=self.place,
            budget_bytes=self.limit,
            torch=self.torch,
            varied=tuple(tuple("batch" if s == first else s for s in group) for group in self.groups),
            step=self.steps,
            sizes=sizes,
            peak_bytes=peak_bytes,
            next_sizes=next_sizes,
            next_bytes=next_bytes,
            smallest=smallest,
            source=self.runtime.source,
        )
        if verdict is None:
            return found
        low, high = (None, None) if sizes is None else (verdict.low_bytes, verdict.high_bytes)
        return replace(found, source=verdict.source, figure=verdict.figure, low_bytes=low, high_bytes=high)


def _exceeds(a: Fit, b: Fit, groups: Sequence[tuple[str, ...]]) -> bool:
    """True when ``a`` is at least as large in every group and larger in one."""
    assert a.sizes is not None and b.sizes is not None
    ours, theirs = ([f.sizes[g[0]] for g in a.varied] for f in (a, b) if f.sizes is not None)
    return ours != theirs and all(x >= y for x, y in zip(ours, theirs, strict=True))


def _fixed(graph: Graph, groups: Sequence[tuple[str, ...]], batch: int | None, sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes that do not vary; UsageError when one is missing, unknown or given although it varies."""
    known, first = symbols_in_order(graph), batch_symbol(graph)
    given = dict(sizes)
    if batch is not None:
        if first is None:
            raise UsageError("the graph's batch is a number; leave batch out")
        given[first] = batch
    varied = {s for group in groups for s in group}
    for name, value in list(given.items()):
        title = "batch" if name == first else name
        if name not in known:
            raise UsageError(f"the graph has no size {name!r}{did_you_mean(name, (*known, *KEYWORDS))}; it has {', '.join(known)}")
        if name in varied:
            raise UsageError(f"{title} varies, so it cannot be given too")
        given[name] = asked.size(value, title)
    given = {**{s: n for s, n in pinned_sizes(graph).items() if s not in varied}, **given}
    missing = ["batch" if s == first else s for s in known if s not in varied and s not in given]
    if missing:
        raise UsageError(f"give {', '.join(f'{m}=…' for m in missing)}, or let it vary")
    return given
