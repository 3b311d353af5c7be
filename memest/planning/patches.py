"""The largest patch that fits, in the proportions of another: what nnU-Net's planner asks of a constant, asked of the step's own bytes.

Patches stand in a row, each larger than the one before by one axis, the one that is shortest beside the reference, by what the network
makes its sizes multiples of (its strides). The planner walks such a row from above, shortening the axis that is longest beside the median
image (nnunetv2 2.8.1, experiment_planning/experiment_planners/default_experiment_planner.py: get_plans_for_configuration); unlike there,
the network stays as it is: a deeper one is another configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import lcm
from typing import Any

from memest.errors import MemestError, UsageError
from memest.estimate.estimate import Estimate, answer
from memest.estimate.question import Question, apart, question
from memest.machines.entry import Hardware
from memest.machines.verdicts import Verdict, place_of
from memest.network.graph import Graph, as_graph
from memest.planning.axes import batch_symbol, symbols_in_order
from memest.planning.fit import Fit
from memest.planning.peaks import piece_at
from memest.planning.progress import tell
from memest.runtimes.table import torch_behind
from memest.sizes import asked

LARGEST = 2**20
MORE_ASKED = 2  # patches behind one that does not fit: a kernel's scratch may be smaller there


def fit_patch(
    graph: Graph, budget: int | str | Hardware, *, batch: int | None = None, step: int | None = None, **settings_and_sizes: Any
) -> Fit:
    """The largest patch whose step fits ``budget`` (as in :func:`memest.fit`), in the proportions of the sizes given by name
    (``D=128, H=128, W=128``) or, for nnU-Net's plans, of the planned patch, and no longer than the median image. ``batch`` left out is
    the planned one. Raises UsageError for sizes that are missing or unknown."""
    graph = as_graph(graph, "fit_patch")
    place = place_of(budget)
    settings, sizes = apart(settings_and_sizes)
    asking = question(graph, settings, "fit_patch")
    reference = _reference(graph, asking, batch, sizes)
    return _Row(graph, asking, place, reference, 1 if step is None else asked.size(step, "step")).fit()


def _reference(graph: Graph, asking: Question, batch: int | None, given: Mapping[str, Any]) -> dict[str, int]:
    """All sizes to begin with."""
    known, first = symbols_in_order(graph), batch_symbol(graph)
    found: dict[str, int] = {} if graph.usual is None else dict(graph.usual.way(asking.mode, asking.runtime).sizes)
    for name, value in {**given, **({} if batch is None else {str(first): batch})}.items():
        if name not in known:
            raise UsageError(f"the graph has no size {name!r}; it has {', '.join(known)}")
        found[name] = asked.size(value, "batch" if name == first else name)
    missing = ["batch" if s == first else s for s in known if s not in found]
    if missing:
        raise UsageError(f"give {', '.join(f'{m}=…' for m in missing)}: the batch, and a patch for the proportions")
    return {s: found[s] for s in known}


class _Row:
    """The row of patches, and what is known of it."""

    def __init__(self, graph: Graph, asking: Question, place: Hardware, reference: Mapping[str, int], step: int) -> None:
        self.graph, self.asking, self.place, self.reference = graph, asking, place, dict(reference)
        self.job = asking.job(graph)
        self.axes = tuple(s for s in reference if s != batch_symbol(graph))
        if not self.axes:
            raise UsageError(f"{graph.name} has no sizes but the batch; fit that")
        live = piece_at(self.job, self.reference).live
        multiples = {} if live is None else live.conditions.multiple
        self.steps = tuple(lcm(step, multiples.get(axis, 1)) for axis in self.axes)
        most = {} if graph.usual is None else dict(graph.usual.way(asking.mode, asking.runtime).most)
        self.most = tuple(-(-most.get(axis, LARGEST) // n) * n for axis, n in zip(self.axes, self.steps, strict=True))
        self.patches = [self.steps]
        self.known: dict[int, Estimate | None] = {}

    def fit(self) -> Fit:
        """The largest of the row that fits."""
        low, high = self._bounds()
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._fits(middle) else (low, middle)
        for n in range(low + 1 + MORE_ASKED, low + 1, -1):
            if low >= 0 and self._fits(n):
                low = n
                break
        return self._result(low)

    def _bounds(self) -> tuple[int, int]:
        """Numbers of a patch that fits (-1: none) and of one behind it that does not."""
        n = 0
        while self._there(n + 1) and all(p <= self.reference[a] for p, a in zip(self.patches[n + 1], self.axes, strict=True)):
            n += 1
        reach = 1
        if self._fits(n):
            while self._fits(n + reach):
                n, reach = n + reach, 2 * reach
            return n, n + reach
        while n >= 0 and not self._fits(n):
            n, reach, before = max(n - reach, -1), 2 * reach, n
        return n, before

    def _there(self, n: int) -> bool:
        """Whether the row has a patch number ``n``."""
        while len(self.patches) <= n:
            last = self.patches[-1]
            open_axes = [i for i in range(len(last)) if last[i] < self.most[i]]
            if not open_axes:
                return False
            grown = min(open_axes, key=lambda i: last[i] / self.reference[self.axes[i]])
            self.patches.append(tuple(p + self.steps[i] if i == grown else p for i, p in enumerate(last)))
        return n >= 0

    def _estimate(self, n: int) -> Estimate | None:
        """That of a patch; None where the network does not run at it."""
        if n not in self.known:
            tell(f"patch {'x'.join(map(str, self.patches[n]))}")
            at = {**self.reference, **dict(zip(self.axes, self.patches[n], strict=True))}
            shapes = {i.name: tuple(d if isinstance(d, int) else d.evaluate(at) for d in i.shape) for i in self.graph.inputs}
            try:
                self.known[n] = answer(self.graph, self.asking, shapes)
            except MemestError:
                self.known[n] = None
        return self.known[n]

    def _fits(self, n: int) -> bool:
        found = self._verdict(n)
        return found is not None and found.bytes_fit

    def _verdict(self, n: int) -> Verdict | None:
        found = self._estimate(n) if self._there(n) else None
        return None if found is None else found.on(self.place)

    def _result(self, n: int) -> Fit:
        after = self._estimate(n + 1) if self._there(n + 1) else None
        verdict = self._verdict(n) if n >= 0 else None
        least = None
        if verdict is None:
            least = next((e for i in range(64) if self._there(i) and (e := self._estimate(i)) is not None), None)
            if least is None:
                raise UsageError(f"{self.graph.name} runs at none of the patches tried, up to {'x'.join(map(str, self.patches[-1]))}")
        shown = verdict or (least.on(self.place) if least is not None else None)
        assert shown is not None
        exact = shown.low_bytes == shown.high_bytes
        return Fit(
            place=self.place,
            budget_bytes=self.place.usable_bytes,
            torch=torch_behind(self.job.recipe.target, self.graph.torch),
            varied=tuple((axis,) for axis in self.axes),
            step=self.steps,
            sizes=None if verdict is None else self._named(n),
            peak_bytes=None if verdict is None else verdict.peak_bytes,
            next_sizes=self._named(n + 1) if verdict is not None and after is not None else None,
            next_bytes=after.held_bytes if verdict is not None and after is not None else None,
            smallest=least,
            source=shown.source,
            figure=shown.figure,
            low_bytes=None if exact or verdict is None else verdict.low_bytes,
            high_bytes=None if exact or verdict is None else verdict.high_bytes,
        )

    def _named(self, n: int) -> dict[str, int]:
        first = batch_symbol(self.graph)
        at = {**self.reference, **dict(zip(self.axes, self.patches[n], strict=True))}
        return {"batch" if s == first else s: size for s, size in at.items()}
