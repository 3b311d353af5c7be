"""From a graph to its memory: bind the input shape, play the step, read the peak.

>>> estimate(graph, input_shape=(2, 3, 224, 224), mode="train", optimizer="adam").peak_bytes
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from memest.errors import GraphError, UnsupportedError, UsageError, did_you_mean, one_of
from memest.estimate.inputs import InputShape, check_guards, input_shapes, usual_shapes
from memest.estimate.notes import notes
from memest.estimate.peak import CATEGORIES, Holding, Moment, held_at, moment_of
from memest.estimate.played import TheSteps
from memest.estimate.question import Question, Settings, question
from memest.estimate.summary import compiled, highest_event, summarize
from memest.machines.claims import FigureName, Source
from memest.machines.cpu import Cpu
from memest.machines.gpu import Gpu
from memest.machines.process import ProcessSettings
from memest.machines.target import TORCH_CPU
from memest.machines.versions import Torch
from memest.memory.figure import Figure, Figures
from memest.memory.live_sets import LiveSets, Summary
from memest.memory.stream import Event, Stream
from memest.network.binding import bind
from memest.network.conversion import dtype_of
from memest.network.graph import Graph, as_graph
from memest.network.tensor import Shape
from memest.runtimes.neighbours import sizes_that_run
from memest.runtimes.runtime import Runtime, Steps
from memest.runtimes.table import runtime_named, torch_behind
from memest.runtimes.torch.step import Recipe
from memest.shown import Shown, counted, short
from memest.sizes import asked
from memest.sizes.dims import resolve
from memest.sizes.remembering import Restated, Shelf

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from memest.estimate.formulas.formula import Formula
    from memest.machines.entry import Hardware
    from memest.machines.verdicts import Verdict
    from memest.memory.loading import Loading

MOST_FIGURES = 1_024


@dataclass(frozen=True, kw_only=True)
class Estimate(Restated, Shown):
    """The memory one step needs, in bytes. ``question`` is what was asked, ``played`` and ``recipe`` what was played for it.

    Three figures say how much: ``allocated`` (asked for and alive at once), ``reserved`` (what the allocator took for that) and
    ``process`` (what the operating system shows); each has ``bytes``, a range, a claim and a reason."""

    graph: str
    question: Question
    input_shapes: Mapping[str, Shape]
    dtype: str
    torch: Torch
    played: Graph
    sizes: Mapping[str, int]
    recipe: Recipe
    summary: Summary

    def __repr__(self) -> str:
        first, *others = ["x".join(map(str, shape)) for shape in self.input_shapes.values()] or ["no input"]
        shape = f"{first} and {counted(len(others), 'other input')}" if others else first
        return f"<Estimate {short(self.graph)}, {self.mode}, {shape}: {self.peak_bytes:,} bytes>"

    @cached_property
    def timeline(self) -> Stream:
        """Every storage and every event of the step, in order."""
        return self.steps.asked()

    @property
    def mode(self) -> str:
        """``train`` or ``infer``."""
        return self.question.mode

    @property
    def optimizer(self) -> str | None:
        """The optimizer as it was asked for; None in inference, and of a whole step, which has its own."""
        return self.question.optimizer if self.question.training and not self.played.step else None

    @property
    def loss(self) -> str | None:
        """The loss as it was asked for; None in inference, and of a whole step, which has its own."""
        return self.question.loss if self.question.training and not self.played.step else None

    @property
    def how(self) -> str:
        """What is done with the network, for a line in a report: ``training, adam, cross_entropy``."""
        if self.played.step:
            return "training step"
        return f"training, {self.optimizer}, {self.loss}" if self.mode == "train" else "inference"

    @property
    def levers(self) -> tuple[str, ...]:
        """The levers as they were asked for."""
        return self.question.levers

    @property
    def runtime(self) -> str:
        """Who runs the step: ``torch-cpu``."""
        return self.recipe.target.runtime

    @property
    def machine(self) -> Cpu | Gpu:
        """What it runs on."""
        return self.recipe.target.machine

    @property
    def cpu(self) -> Cpu:
        """The processor it runs on; UsageError on an accelerator."""
        return self.recipe.target.cpu

    @property
    def device(self) -> str:
        """torch's name for where it runs."""
        return "cpu" if isinstance(self.machine, Cpu) else "cuda"

    @property
    def where(self) -> str:
        """Whose memory it is, for a line in a report: ``torch 2.13 on cpu (avx512, 2 threads)``."""
        return self._runtime.describe(self.recipe.target)

    @cached_property
    def _runtime(self) -> Runtime:
        return runtime_named(self.runtime)

    @cached_property
    def figures(self) -> Figures:
        """``allocated``, ``reserved`` and ``process``; those of an allocator that is played are remembered on the graph."""
        if not self._runtime.replays:
            return self._figures()
        known: Shelf[Figures] = self.played.memo.shelf("figures", MOST_FIGURES)
        at = (self.recipe, tuple(self.sizes.values()))
        return known.get(at) or known.keep(at, self._figures())

    def _figures(self) -> Figures:
        return self._runtime.figures(self.requested_bytes, self.steps, self.recipe.target)

    @cached_property
    def steps(self) -> Steps:
        """The step asked about and the first one, each played when it is asked for."""
        return TheSteps(self.played, self.input_shapes, self.sizes, self.recipe)

    @property
    def replays(self) -> bool:
        """Whether an allocator is played, so that what is handed out is more than what is asked for."""
        return self._runtime.replays

    @property
    def allocated(self) -> Figure:
        """The most bytes handed out and alive at one moment."""
        return self.figures.allocated

    @property
    def reserved(self) -> Figure:
        """The most bytes the allocator took from the system."""
        return self.figures.reserved

    @cached_property
    def process(self) -> Figure:
        """What the operating system (or the driver) shows of the process; ``bytes`` is None where that is not modelled. Of torch on a CPU
        with glibc's malloc as it comes, and modelled when this is read, unless a malloc was asked for."""
        target = self.recipe.target
        if target.runtime != TORCH_CPU or target.process is not None:
            return self.figures.process
        return self._runtime.figures(self.requested_bytes, self.steps, replace(target, process=ProcessSettings())).process

    @cached_property
    def loaders(self) -> Loading | None:
        """What the data loader that feeds the step adds to the process, and the node's total; None where no loader was asked about."""
        loader = self.question.feeding
        if loader is None:
            return None
        from memest.estimate.feeding import fed_by, gradient_bytes

        gradients = gradient_bytes(self.played, self.sizes) if self.question.training else 0
        return fed_by(loader, self.timeline, self.summary.above_bytes, gradients, self.process, self.recipe.target)

    @property
    def outermost(self) -> tuple[FigureName, Figure]:
        """The figure nearest to what the machine holds that is known, and its name."""
        node = None if self.loaders is None else self.loaders.node
        return self.figures.outermost if node is None or node.bytes is None else ("node", node)

    @property
    def source(self) -> Source:
        """Whose bytes the figures are, for a verdict."""
        source = self._runtime.source
        return replace(source, card=self.machine.name) if source.accelerator and isinstance(self.machine, Gpu) else source

    @property
    def unregistered_bytes(self) -> int:
        """Bytes of the tensors that the network keeps as plain attributes, or that functions cache, where they come on top: every
        figure of torch on a CPU speaks of what is registered (parameters, buffers) and of the step; others, of all that stands."""
        if not self._runtime.registered_alone:
            return 0
        found: int = self.played.unregistered_bytes(self.sizes)
        return found

    @property
    def held_bytes(self) -> int:
        """What counts against a limit: the bytes of the outermost figure that is known, on a CPU those of the peak and of what is not
        registered."""
        _, found = self.outermost
        assert found.bytes is not None
        return found.bytes + self.unregistered_bytes

    def on(self, place: Hardware) -> Verdict:
        """Whether it fits there, by the outermost figure that is known, with its range."""
        from memest.machines.verdicts import verdict

        target = self.recipe.target
        if (target.engine is not None or target.process is not None) and place.kind == "accelerator":
            raise UsageError(f"runtime {self.runtime} runs on a processor, {place.name} is an accelerator; name a server, or a budget")
        figure, found = self.outermost
        more = self.unregistered_bytes
        low, high = (None if n is None else n + more for n in (found.low, found.high))
        return verdict(place, self.held_bytes, self.source, low_bytes=low, high_bytes=high, figure=figure)

    @property
    def standing_bytes(self) -> int:
        """Bytes there before the step: parameters, buffers, optimizer state, inputs, target."""
        return self.summary.standing_bytes

    @property
    def resident_bytes(self) -> int:
        """The old name of :attr:`standing_bytes`, for one release more."""
        warnings.warn("resident_bytes is called standing_bytes now, and goes with the next release", DeprecationWarning, stacklevel=2)
        return self.standing_bytes

    @property
    def requested_bytes(self) -> int:
        """The most bytes asked for and alive at one moment, before an allocator rounds them."""
        return self.summary.standing_bytes + self.summary.above_bytes

    @property
    def peak_bytes(self) -> int:
        """The most bytes alive at one moment: those of ``allocated``."""
        if not self._runtime.replays:
            return self.requested_bytes
        allocated = self.allocated.bytes
        assert allocated is not None
        return allocated

    @cached_property
    def _event(self) -> int:
        """The number of the event that reaches the peak (-1: nothing rises above what is resident)."""
        found = self.figures.event if self._runtime.replays else None
        return highest_event(self.timeline)[0] if found is None else found

    @property
    def moment(self) -> Moment:
        """When the peak is reached."""
        return moment_of(self.timeline, self._event)

    @cached_property
    def holdings(self) -> tuple[Holding, ...]:
        """What is alive at the peak, largest first."""
        return held_at(self.timeline, self._event)

    def by_category(self) -> dict[str, int]:
        """Bytes at the peak per category (categories with none are left out)."""
        totals = dict.fromkeys(CATEGORIES, 0)
        for h in self.holdings:
            totals[h.category] += h.nbytes
        return {c: n for c, n in totals.items() if n}

    def by_layer(self) -> dict[str, int]:
        """Bytes at the peak per layer (a parameter's under its own name), largest first."""
        totals: dict[str, int] = {}
        for h in self.holdings:
            totals[h.layer] = totals.get(h.layer, 0) + h.nbytes
        return dict(sorted(totals.items(), key=lambda item: -item[1]))

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of the numbers: what the graph says of itself, which of several outputs the loss takes, a loss that cannot teach it,
        what the runtime says of its target, and where they speak of another torch than the one at hand."""
        prediction = self.timeline.values.get(self.played.outputs[0]) if self.recipe.loss is not None else None
        said = notes(self.played, self.recipe, self.optimizer, self.loss, self.unregistered_bytes, prediction)
        return (*said, *self._runtime.notes(self.recipe.target), *self.torch.notes)

    @property
    def loss_output(self) -> str | None:
        """The output that the loss takes (the first of several it is taken over); None in inference. Others die before it is computed."""
        return self.played.outputs[0] if self.loss else None

    @property
    def events(self) -> tuple[Event, ...]:
        """The stream of allocations and releases, in order."""
        return self.timeline.events

    @cached_property
    def live_sets(self) -> LiveSets:
        """The step compiled: what is alive at each moment that could be the peak, as formulas of the sizes. It holds at these sizes and
        wherever its conditions do; UnsupportedError where the step has no such form."""
        program = compiled(self.played, self.input_shapes, self.sizes, self.recipe)
        if program is None:
            raise UnsupportedError(f"{self.graph}: no formula says what its step holds at these sizes; please report it")
        return program

    def formula(self) -> Formula:
        """The peak and its parts as sympy expressions of the graph's named sizes, in bytes."""
        from memest.estimate.formulas.formula import Formula

        return Formula(estimate=self)

    def at(self, **sizes: int) -> Estimate:
        """The same step at other values of the graph's named sizes; those left out stay. Raises UsageError as :func:`estimate` does."""
        for name, n in sizes.items():
            if name not in self.sizes:
                raise UsageError(
                    f"{self.graph} has no size {name!r}{did_you_mean(name, self.sizes)}; it has {', '.join(self.sizes) or 'none'}"
                )
            if isinstance(n, bool) or not isinstance(n, int) or n < 1:
                raise UsageError(f"size {name}: sizes are positive integers, got {n!r}")
        given = {**self.sizes, **sizes}
        shapes: dict[str, Shape] = {i.name: resolve(i.shape, given) for i in self.played.inputs}
        bound = bind(self.played.inputs, shapes)
        check_guards(self.played, bound)
        return replace(self, input_shapes=shapes, sizes=bound, summary=summarize(TheSteps(self.played, shapes, bound, self.recipe)))

    def to_dict(self, *names: str) -> dict[str, Any]:
        """Everything a report needs, as plain data; or of it what ``names`` name, and nothing else is computed."""
        told = self._told()
        for name in names:
            if name not in told:
                raise UsageError(f"an estimate has no field {name!r}{one_of(name, told)}")
        return {name: tell() for name, tell in told.items() if not names or name in names}

    def _told(self) -> dict[str, Callable[[], Any]]:
        """How each field of a report comes about."""
        return {
            "graph": lambda: self.graph,
            "mode": lambda: self.mode,
            "optimizer": lambda: self.optimizer,
            "loss": lambda: self.loss,
            "loss_output": lambda: self.loss_output,
            "runtime": lambda: self.runtime,
            "device": lambda: self.device,
            "dtype": lambda: self.dtype,
            "levers": lambda: list(self.levers),
            **self._machine(),
            "torch": lambda: self.torch.to_dict(),
            "notes": lambda: list(self.notes),
            "input_shapes": lambda: {name: list(shape) for name, shape in self.input_shapes.items()},
            "peak_bytes": lambda: self.peak_bytes,
            "standing_bytes": lambda: self.standing_bytes,
            "resident_bytes": lambda: self.standing_bytes,
            "unregistered_bytes": lambda: self.unregistered_bytes,
            "allocated": lambda: self.allocated.to_dict(),
            "reserved": lambda: self.reserved.to_dict(),
            "process": lambda: self.figures.process.to_dict(),
            **{name: figure.to_dict for name, figure in self.figures.besides},
            **({} if self.loaders is None else {"loaders": self.loaders.to_dict}),
            "moment": lambda: asdict(self.moment),
            "by_category": self.by_category,
            "by_layer": self.by_layer,
        }

    def _machine(self) -> dict[str, Callable[[], Any]]:
        machine = self.machine
        if isinstance(machine, Cpu):
            return {"cpu": lambda: {"isa": machine.isa, "threads": machine.threads}}
        return {"card": lambda: machine.name, "requested_bytes": lambda: self.requested_bytes}


def estimate(graph: Graph, *, input_shape: InputShape | None = None, **settings: Unpack[Settings]) -> Estimate:
    """The memory that one step of ``graph`` needs.

    ``input_shape`` includes the batch: one shape, a list of shapes or a mapping for several inputs; it may be left out when the
    graph's own dims are all numbers. ``settings`` are those of :class:`memest.estimate.question.Question`:

    ``mode`` is ``train`` (zero_grad, forward, loss, backward, optimizer step) or ``infer`` (one call under no_grad whose output is kept).
    ``optimizer`` and ``loss`` are names with options (``adamw:foreach=true``). ``hold_output`` keeps ``out = model(x)`` and the loss in
    variables through backward. ``first_step`` is the step in which the optimizer's state appears. ``dtype`` converts the network and its
    inputs first, as ``model.to(dtype)`` does (left out: as described). ``levers`` are texts such as ``channels_last`` (see
    memest.levers). ``runtime`` says who runs it (``torch-cpu``; ``device="cpu"`` is short for that), ``machine`` on what: a described
    processor (``memest.Cpu(…)``; this machine's when left out) or a name of the catalogue. ``torch`` is the version whose kernels are
    played, such as ``2.14`` (left out: the one the graph was recorded with, else the newest modelled).
    Torch's own dtypes, losses and optimizers (classes, and instances with their settings) are taken for the names they stand for.
    Raises GraphError, UsageError or UnsupportedError, each naming the place.
    """
    graph = as_graph(graph, "estimate")
    return answer(graph, question(graph, settings, "estimate"), asked.shapes(input_shape))


def answer(graph: Graph, question: Question, given: InputShape | None) -> Estimate:
    """The estimate that ``question`` asks for, at the shapes ``given``; see :func:`estimate`."""
    job = question.job(graph)
    shapes = input_shapes(job.graph, usual_shapes(graph, question.mode, question.runtime) if given is None else given)
    sizes = bind(job.graph.inputs, shapes)
    check_guards(job.graph, sizes)
    recipe = job.at(shapes, sizes)
    steps = TheSteps(job.graph, shapes, sizes, recipe)
    try:
        summary = summarize(steps)
    except GraphError as e:
        better = sizes_that_run(job.graph, sizes, recipe)
        raise (e if better is None else type(e)(f"{e}; {better}")) from None
    found = Estimate(
        graph=graph.name,
        question=question,
        input_shapes=shapes,
        dtype=question.dtype or dtype_of(job.graph),
        torch=torch_behind(recipe.target, graph.torch),
        played=job.graph,
        sizes=sizes,
        recipe=recipe,
        summary=summary,
    )
    found.__dict__["steps"] = steps
    return found
