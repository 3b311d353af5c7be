"""A torch module as a layer graph: its forward runs once on meta tensors, and every call it makes is written down.

Nothing is computed and the module is left as it was. What a step would see of gradients is what is seen here: the forward of a training
graph runs with gradients on, that of an inference graph under ``no_grad``. Contexts around the call of ``from_torch`` do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import nn

from memest.errors import GraphError, MemestError, UnsupportedError, UsageError, did_you_mean
from memest.network.graph import Graph, Layer
from memest.ops.table import operator_named
from memest.sizes.conditions import reduced
from memest.sizes.dims import Guard, resolve
from memest.sizes.interpreter import Lock
from memest.sources.assumptions import Assumptions
from memest.sources.importers.torch.assuming.asking import asked_at_once
from memest.sources.importers.torch.contexts.watching import prepared
from memest.sources.importers.torch.exported import NOT_TRAINING, Exported
from memest.sources.importers.torch.inputs import ModuleCall
from memest.sources.importers.torch.recording.elsewhere import Elsewhere
from memest.sources.importers.torch.recording.likeness import alike, where_they_part
from memest.sources.importers.torch.recording.modes import blind
from memest.sources.importers.torch.recording.recorder import Recorder
from memest.sources.importers.torch.recording.repeats import Repeats
from memest.sources.importers.torch.recording.sizes import MOST_RECORDED, described_where
from memest.sources.importers.torch.refusals import AS_TAKEN, of_their_code
from memest.sources.importers.torch.tensors.keeping import Kept, no_collection
from memest.sources.importers.torch.tensors.numbers import STAND_INS
from memest.sources.importers.torch.tensors.observers import give_sizes
from memest.sources.importers.torch.tensors.releasing import release
from memest.sources.importers.torch.tensors.state import Before, as_it_was
from memest.sources.importers.torch.wrappers import unwrapped

ALONE = "the network was recorded for {} alone; leave mode={!r} out of from_torch to record both"

_ONE_AT_A_TIME = Lock()  # a recording has hooks on every module of the process, and lends its module other parameters
MODES = ("train", "infer")


def from_torch(
    module: nn.Module, example: Any, *, name: str | None = None, mode: str | None = None, assume: Mapping[str, Any] | None = None
) -> Graph:
    """The graph of ``module`` as called with ``example``: a shape, a tensor, a list of arguments, or a mapping of them by name. An argument
    may be a structure of tensors and shapes (lists, tuples, dicts): each is an input, called by its way in (``images.1``); numbers, texts
    and None are given as they are. An input given by its shape has the floating dtype of the module's parameters.

    The first dim of every example is the batch ``N``; dims from the third on are spatial and become symbols (``H``, ``W``), so the
    graph can be estimated at other sizes. ``mode="train"`` records the forward of a training step (gradients on, the modules in
    ``train()`` or ``eval()`` as they stand), ``mode="infer"`` that of ``eval()`` under ``no_grad``. Left out, a module in training mode
    gives both, and one in eval mode is recorded as it stands. Where only one of the two can be recorded, the other is refused when it
    is asked for. ``assume`` states how many elements masks pick and the like (``memest.sources.assumptions``).
    DataParallel, DistributedDataParallel and compiled modules are unwrapped, which the graph's notes say.

    Raises UnsupportedError for what has no rule, GraphError for an exception of the module's own code, UsageError for a ``module`` or
    an ``example`` that is none; each names the module's path and the line of its code.

    Threads that record wait for one another. The module itself must not run in another thread meanwhile; any other may.
    """
    if mode is not None and mode not in MODES:
        raise UsageError(f"unknown mode {mode!r}; use 'train' or 'infer'{did_you_mean(str(mode), MODES)}")
    assumptions = Assumptions(assume)
    module, notes = unwrapped(module)
    if isinstance(module, Exported):
        example, name = module.example(example), name or module.program.name
    try:
        with no_collection():
            called = name or type(module).__name__
            graph = asked_at_once(assumptions, lambda stated: _recorded(module, example, called, mode, stated))
    except Exception as e:
        if isinstance(e, GraphError) and any(sign in str(e) for sign in (AS_TAKEN, "forward() ")):
            raise GraphError(f"{e}; {ModuleCall(module, example).told}") from None
        theirs = of_their_code(e, name or type(module).__name__)
        if theirs is None:
            raise
        raise theirs from None
    assumptions.check_used()
    return graph.with_(notes=(*notes, *graph.notes)) if notes else graph


def _recorded(module: nn.Module, example: Any, name: str, mode: str | None, assumptions: Assumptions) -> Graph:
    """The graph of one mode or of both."""
    recordings = _Recordings(module, ModuleCall(module, example), name, assumptions)

    def training() -> Recorder:
        return recordings.steady(gradients=True)

    def inference(like: Recorder | None = None) -> Recorder:
        with _in_eval_mode(module):
            return recordings.steady(gradients=False, like=like)

    if isinstance(module, Exported) and not module.program.trainable:
        with _ONE_AT_A_TIME, prepared():
            try:
                return _refusing(inference().graph, "train", f"{module.path}: {NOT_TRAINING}")
            except UnsupportedError as e:
                raise UnsupportedError(f"{e}; {NOT_TRAINING}") from None
    with _ONE_AT_A_TIME, prepared():
        if mode == "train":
            return _refusing(training().graph, "infer", ALONE.format("training", "train"))
        if mode == "infer":
            return _refusing(inference().graph, "train", ALONE.format("inference", "infer"))
        if module.training:
            return _both(training, inference)
        alone = inference()
        return _both(training, lambda _: alone) if alone.asked_for_gradients else alone.graph


def _refusing(graph: Graph, what: str, reason: str) -> Graph:
    """The graph, with one more thing that it cannot be played in."""
    return graph.with_(refused=(*graph.refused, (what, reason)))


def _both(training: Callable[[], Recorder], inference: Callable[[Recorder | None], Recorder]) -> Graph:
    """The training graph with that of inference; where one cannot be recorded, the other with the reason."""
    try:
        recorder = training()
    except MemestError as e:
        try:
            alone = inference(None).graph
        except MemestError:
            raise e from None
        return _refusing(alone, "train", str(e))
    graph = recorder.graph
    try:
        other = inference(recorder).graph
    except MemestError as e:
        return _refusing(graph, "infer", str(e))
    return graph if _are_one(graph, other) else graph.with_(inference=other)


def _are_one(graph: Graph, other: Graph) -> bool:
    """Whether a training graph says what that of inference does."""
    if not all(getattr(other, f) == getattr(graph, f) for f in ("outputs", "parameters", "on_host", "refused")):
        return False
    return other.layers == tuple(map(_follows_mode, graph.layers)) and _implied(other.guards, graph)


def _implied(guards: Sequence[Guard], graph: Graph) -> bool:
    """Whether the conditions of the graph say as much."""
    others, sizes = [g for g in guards if g not in graph.guards], dict(graph.examples)
    return not others or reduced((*graph.guards, *others), sizes) == reduced(graph.guards, sizes)


def _follows_mode(layer: Layer) -> Layer:
    """The layer as its eval twin is recorded: a flag that follows the mode is false there, and gradients are off everywhere."""
    layer = layer if layer.grad else replace(layer, grad=True)
    row = operator_named(layer.op)
    follows = any(a.name == "training" and a.default is None for a in row.attributes)
    if not follows or "training" in dict(layer.attributes):
        return layer
    position = [a.name for a in row.attributes]
    items = sorted([*layer.attributes, ("training", False)], key=lambda item: position.index(item[0]))
    return replace(layer, attributes=tuple(items))


@contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    """``module.eval()``, taken back with whatever else it changed."""
    with as_it_was(module):
        module.eval()
        yield


class _Recordings:
    """Forwards of a module on these inputs, written down; each knows the calls of those before."""

    def __init__(self, module: nn.Module, call: ModuleCall, name: str, assumptions: Assumptions) -> None:
        self._module, self._call, self._name, self._assumptions = module, call, name, assumptions
        self._repeats = Repeats()
        self._made: list[Recorder] = []
        self._modules = list(module.modules())
        self.impossible = False  # the last one ended where an operator cannot run at these sizes

    def steady(self, *, gradients: bool, like: Recorder | None = None) -> Recorder:
        """One forward, after which nobody holds a tensor of it (see :meth:`_steady`). Where its code was told sizes, it is looked at other
        sizes whether it is the same there, unless one ``like`` it says."""
        try:
            return self._described(gradients, like)
        finally:
            self._release()

    def at_this_size(self) -> Recorder:
        """One forward without gradients, that counts; at no other size is it looked at."""
        try:
            with as_it_was(self._module) as before:
                return self._steady(False, before)
        finally:
            self._release()

    def _release(self) -> None:
        self._let_go()
        for recorder in self._made:
            recorder.forget()
        self._made.clear()

    def _let_go(self) -> None:
        """Nobody holds a tensor of the recordings any more."""
        for recorder in self._made:
            recorder.let_go()
        release([recorder.live for recorder in self._made], self._modules)

    def _described(self, gradients: bool, like: Recorder | None) -> Recorder:
        with as_it_was(self._module) as before:
            recorder = self._steady(gradients, before)
            calls = tuple(self._made)
            if not any(call.sizes_told for call in calls):
                return recorder
            graph, taken = recorder.graph, {e: found for call in calls for e, found in call.taken.numbers.items()}
            if like is not None and not any(call.kept for call in calls) and self._goes_with(recorder, like):
                return recorder
            again = before if len(calls) > 1 else None  # it remembers something
            sure = all(call.can_be_followed for call in calls)
            if sure:
                recorder.graph = described_where(graph, lambda sizes: self._agrees(calls, sizes, again), taken)
                sure = recorder.graph is graph or not (again or recorder.assumed.asked or before.changed())
        if not sure:
            self._release()
            recorder.graph = described_where(graph, lambda sizes: self._same_graph(graph, gradients, sizes), taken, MOST_RECORDED)
        return recorder

    def _goes_with(self, recorder: Recorder, like: Recorder) -> bool:
        """Whether the sizes at which a forward is the same are known by one in training: both are one, and nothing goes by the mode."""
        return (
            not (like.asked_for_gradients or recorder.asked_for_gradients) and _are_one(like.graph, recorder.graph) and blind(self._modules)
        )

    def _agrees(self, calls: Sequence[Recorder], sizes: Mapping[str, int], before: Before | None) -> bool | None:
        """Whether the module's ``calls``, one after the other, are the same at other sizes. Where they find what calls ``before`` have set,
        that is taken back first."""
        if before is not None:
            before.put_back()
            self._let_go()
        kept: Sequence[Kept] = ()
        same: bool | None = True
        for first in calls:
            there = self._elsewhere(first, sizes, kept)
            kept = ()  # they die when the module lets go of them
            same = there.agrees(self._call)
            if same and first is not calls[-1]:
                kept = there.survivors.given_up(there.standing)
            elif not same:
                break
        return same

    def _elsewhere(self, first: Recorder, sizes: Mapping[str, int], kept: Sequence[Kept]) -> Elsewhere:
        """The same call at other sizes, which finds what is ``kept`` there."""
        arguments = self._module, self._name, first.gradients, self._repeats, kept, first.numbers.stand_in, self._assumptions
        there = Elsewhere(first, sizes, *arguments)
        there.numbers.move = first.numbers.move
        self._made.append(there)
        return there

    def _same_graph(self, graph: Graph, gradients: bool, sizes: Mapping[str, int]) -> bool | None:
        """The same where the module remembers something: by recording its calls there."""
        shapes = {i.name: resolve(i.shape, sizes) for i in graph.inputs}
        there = _Recordings(self._module, self._call.at(shapes), self._name, self._assumptions)
        try:
            with as_it_was(self._module) as before:
                other = there._steady(gradients, before).graph
        except MemestError:
            return None if there.impossible else False
        finally:
            there._release()
        return other.with_(guards=()) == graph.with_(guards=())

    def _steady(self, gradients: bool, before: Before) -> Recorder:
        """The call that counts, at one size. Where the module keeps tensors past its call (a cache, a hook's collection), or remembers
        something else that it may go by (a flag, a counter), it is the next one, which finds them. Where it reads numbers from tensors,
        more calls with other numbers must come to the same."""
        give_sizes(self._modules)
        recorder = self._one(gradients)
        if recorder.survivors.tensors:
            recorder = self._one(gradients, recorder.survivors.given_up())
            recorder.survivors.check_steady(recorder.standing, recorder.forms)
        elif before.changed():
            recorder, first = self._one(gradients), recorder
            if recorder.graph != first.graph:
                recorder = self._like_the_next(gradients, recorder)
        first_call = True
        for other in STAND_INS[1:] if recorder.numbers.read else ():
            last, recorder = recorder, self._one(gradients, recorder.survivors.given_up(recorder.standing), other)
            graph = alike(recorder.graph, last.graph)
            if graph is None and first_call:  # what it sets, all others find
                last, recorder = recorder, self._one(gradients, recorder.survivors.given_up(recorder.standing))
                graph = alike(recorder.graph, last.graph)
            first_call = False
            if graph is None:
                raise UnsupportedError(f"{recorder.numbers.place}: no rule for {recorder.numbers.undecided}")
            recorder.graph = graph
        return recorder

    def _like_the_next(self, gradients: bool, before: Recorder) -> Recorder:
        """A call that is like ``before``, or like another next to it, but for numbers that count: those computed with, and where windows
        lie."""
        recorder = self._one(gradients)
        graph = alike(recorder.graph, before.graph)
        if graph is None:
            before, recorder = self._one(gradients, move=True), self._one(gradients, move=True)
            graph = alike(recorder.graph, before.graph)
        if graph is None:
            place = where_they_part(recorder.graph, before.graph).line
            raise UnsupportedError(
                f"{self._name}{f' ({place})' * bool(place)}: forward runs otherwise at every call (an attribute that counts or remembers):"
                " no step is like the next"
            )
        recorder.graph = graph
        return recorder

    def _one(self, gradients: bool, standing: Sequence[Kept] = (), stand_in: float = STAND_INS[0], *, move: bool = False) -> Recorder:
        recorder = Recorder(self._module, self._name, gradients, self._repeats, standing, stand_in, self._assumptions)
        recorder.numbers.move = move
        if isinstance(self._module, Exported):
            recorder.fixed = self._module.fixed
        self.impossible = False
        del standing  # they die when the module lets go of them
        self._made.append(recorder)
        try:
            recorder.record(self._call.inputs, self._call)
        except GraphError as e:
            self.impossible = recorder.impossible
            if not recorder.numbers.read:
                raise
            if stand_in == STAND_INS[0]:
                where = f"a number was read from a tensor ({recorder.numbers.place}), which nobody knows before anything runs"
                raise UnsupportedError(f"{e}; {where}: let nothing depend on it, or state it: {recorder.numbers.statement}") from None
            raise UnsupportedError(f"{recorder.numbers.place}: no rule for {recorder.numbers.undecided}") from None
        return recorder
