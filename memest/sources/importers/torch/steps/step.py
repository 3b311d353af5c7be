"""A user's own training step as a graph: the function runs on meta tensors, as it stands, until one step is like the next.

Modules, optimizers and tensors are found where the function finds them (``surroundings``). Nothing is computed, and everything is left as
it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from memest.errors import MemestError, ShapeError, UsageError, kind_of
from memest.network.graph import Graph
from memest.sizes.dims import resolve
from memest.sources.assumptions import Assumptions
from memest.sources.importers.torch.network import _ONE_AT_A_TIME
from memest.sources.importers.torch.recording.sizes import MOST_RECORDED, described_where
from memest.sources.importers.torch.steps.branching import decided, same
from memest.sources.importers.torch.steps.calls import Call, name_of
from memest.sources.importers.torch.steps.lightning import is_lightning, trained
from memest.sources.importers.torch.steps.steady import Question, steady


def from_step(
    function: Any,
    examples: Sequence[Any] = (),
    *,
    name: str | None = None,
    cleared: bool = False,
    assume: Mapping[str, Any] | None = None,
) -> Graph:
    """The graph of one call ``function(*examples)`` in the midst of training: what the steps before left stands at its beginning. An
    example is a shape, a tensor, or a sequence or mapping of them; whatever else stands there is given as it is. ``cleared``: somebody sets
    all gradients to None before each call. ``assume`` states how many elements masks pick and the like (``memest.sources.assumptions``). A
    LightningModule is trained by its ``training_step`` on a batch, the one example.

    Raises UnsupportedError for what has no rule, GraphError for an exception of the function's own code, UsageError for what is no function
    or where no step is like the next; each names the line."""
    if is_lightning(function):
        called = name or type(function).__name__
        return trained(function, lambda step: from_step(step, examples, name=called, cleared=cleared, assume=assume))
    if not callable(function) or isinstance(function, type | nn.Module):
        raise UsageError(f"step takes a function that trains one step, or a LightningModule, got {kind_of(function)}")
    assumptions = Assumptions(assume)
    call = Call(function, examples)
    called = name or name_of(function)
    with _ONE_AT_A_TIME:
        found = call.surroundings()
        call.examples.settle(found.modules.values())
        question, (graph, taken, _) = decided(Question(called, call, found, cleared, assumptions))
        if taken is not None:
            graph = described_where(graph, partial(_same_graph, question, graph), taken, MOST_RECORDED)
    assumptions.check_used()
    return graph


def _same_graph(question: Question, graph: Graph, sizes: Mapping[str, int]) -> bool | None:
    """Whether the step is the same at other sizes, by recording its calls there; None where an operator cannot run there."""
    there = question.call.at({i.name: resolve(i.shape, sizes) for i in graph.inputs})
    try:
        other = steady(question._replace(call=there, found=there.surroundings(), look=False)).graph
    except ShapeError:
        return None
    except MemestError:
        return False
    return same(_freely(other), _freely(graph))


def _freely(graph: Graph) -> Graph:
    """The graph without its conditions."""
    return graph.with_(guards=(), beginning=None if graph.beginning is None else graph.beginning.with_(guards=()))
<<<<<<< HEAD
=======


def _steady(
    name: str, call: _Call, found: Surroundings, cleared: bool, assumptions: Assumptions, *, look: bool = True
) -> tuple[Graph, Taken | None]:
    """Steps are recorded until one leaves what it found and is like the one before; that is the step, and the first its beginning. At
    which sizes it is the same is looked for, but for steps that remember something from call to call and those that no other run can be
    held against: they give the sizes they took."""
    repeats = Repeats()
    texts: dict[tuple[str, int], str] = {}
    graphs: list[Graph] = []
    before: State | None = None
    kept: list[Kept] = []
    keeping: list[LiveTensors] = []
    with ExitStack() as over, found.as_they_were() as changed:
        over.callback(release, keeping)
        alike = 0
        for number in range(MOST):
            given, stand_in = len(kept), STAND_INS[number % len(STAND_INS)]
            recorder = StepRecorder(_Root(call, found), name, repeats, found, before, kept, stand_in, texts, assumptions)
            kept = []
            _recorded(recorder, call)
            if recorder.survivors.tensors:
                keeping.append(recorder.live)
                over.callback(recorder.survivors.forget)
            graphs.append(recorder.graph)
            left = recorder.state._replace(gradients=()) if cleared else recorder.state
            settled = left == (before or State())
            alike = alike + 1 if len(graphs) > 1 and graphs[-1] == graphs[-2] else 0
            needed = ROUNDS if changed() else len(STAND_INS) - 1 if recorder.numbers.read else min(number, 1)
            if settled and alike >= needed:
                first, last = graphs[0], graphs[-1]
                graph = last if first == last else last.with_(beginning=first)
                taken = recorder.taken.numbers
                if not (look and recorder.sizes_told):
                    return graph, None
                if given or not recorder.can_be_followed:
                    return graph, taken
                where = described_where(graph, partial(_agrees, recorder, call, before, texts, assumptions), taken)
                return (graph, taken) if where is not graph and changed() else (where, None)
            if number > 2 and not alike:
                break
            before = left
            kept = recorder.survivors.given_up()
    changing = (
        "no call is like the one before: a counter, a queue's pointer or a random number of Python's, which sizes or the arithmetic"
        " go by (let it be a tensor, or a constant for this call), gradients that come and go, a list of tensors that grows (keep numbers:"
        " loss.item()); let the function be a whole round, such as all the batches whose gradients are added up"
    )
    if settled and recorder.numbers.read:
        raise UnsupportedError(f"{recorder.numbers.place}: no rule for {recorder.numbers.undecided}. If nothing depends on it, {changing}")
    raise UnsupportedError(f"{name}: {changing}")


def _agrees(
    first: StepRecorder, call: _Call, before: State | None, texts: Any, assumptions: Assumptions, sizes: Mapping[str, int]
) -> bool | None:
    """Whether the step does the same at other sizes."""
    root = _Root(call, first.found)
    arguments = root, first.name, first.repeats, first.found, before, (), first.numbers.stand_in, texts, assumptions
    elsewhere = StepElsewhere(first, sizes, *arguments)
    _prepare(elsewhere)
    return elsewhere.agrees(lambda inputs: root(**inputs))


def _recorded(recorder: StepRecorder, call: _Call) -> None:
    root = _prepare(recorder)
    recorder.record(call.examples.inputs, lambda inputs: root(**inputs))


def _prepare(recorder: StepRecorder) -> _Root:
    root = recorder.module
    assert isinstance(root, _Root)
    root.recorder = recorder
    for only in root.only:
        recorder.paths[id(only)] = ""
        recorder.modules.append(only)
    return root


class _Root(nn.Module):
    """The modules of a step as one, and the call of the function as its forward. Of one module alone the names are as they are."""

    recorder: StepRecorder

    def __init__(self, call: _Call, found: Surroundings) -> None:
        super().__init__()
        self._call = call
        self.only: tuple[nn.Module, ...] = ()
        if len(found.modules) == 1:
            (module,) = found.modules.values()
            self.__dict__["only"] = (module,)
            self.__dict__.update(_modules=module._modules, _parameters=module._parameters, _buffers=module._buffers)
            return
        for name, module in found.modules.items():
            self._modules[name.replace(".", "_")] = module

    def forward(self, **inputs: torch.Tensor) -> Any:
        """One call of the function."""
        with instead(self.recorder.updates, self.recorder.grads.engine):
            self.recorder.begin(inputs, self._call.examples.wanting)
            result = self._call(inputs)
            self.recorder.end()
        return result


class _Call:
    """The function with its examples."""

    def __init__(self, function: Any, examples: Sequence[Any]) -> None:
        self.examples = Examples()
        self._function = function
        self._arguments = [self.examples.taken(n, e) for n, e in zip(_argument_names(function, len(examples)), examples, strict=True)]

    def surroundings(self) -> Surroundings:
        """What the function works with besides."""
        return Surroundings(self._function, self.examples.others)

    def at(self, shapes: Mapping[str, tuple[int, ...]]) -> _Call:
        """The same call with inputs of these shapes."""
        other = copy(self)
        other.examples = copy(self.examples)
        other.examples.inputs = resized(self.examples.inputs, shapes)
        return other

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> Any:
        """The function called with these in the places of its examples' tensors."""
        return self._function(*filled(self._arguments, inputs))


def _argument_names(function: Any, count: int) -> list[str]:
    """The names of the function's first arguments; UsageError where it does not take so many."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return [f"input{i or ''}" for i in range(count)]
    names: list[str] = []
    for p in parameters:
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
            names.append(p.name)
        elif p.kind is p.VAR_POSITIONAL:
            names += [f"{p.name}{i}" for i in range(count - len(names))]
    needed = sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    if not needed <= count <= len(names):
        takes = str(needed) if needed == len(names) else f"{needed} to {len(names)}"
        raise UsageError(f"{_name_of(function)} takes {takes} arguments ({', '.join(names) or 'none'}), {count} given")
    return names[:count]


def _name_of(function: Any) -> str:
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__name__", None) or type(function).__name__)
>>>>>>> speed
