"""The step that is like the next: calls are recorded one after the other until nothing is new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

from memest.errors import GraphError, UnsupportedError
from memest.memory.stream import Event
from memest.network.graph import Graph
from memest.sources.assumptions import Assumptions
from memest.sources.importers.torch.recording.likeness import Parting, alike, played_alike, where_they_part
from memest.sources.importers.torch.recording.luck import Luck
from memest.sources.importers.torch.recording.recorder import DREW
from memest.sources.importers.torch.recording.repeats import Repeats
from memest.sources.importers.torch.recording.sizes import Taken, described_where
from memest.sources.importers.torch.steps.calls import Call, Root
from memest.sources.importers.torch.steps.elsewhere import StepElsewhere
from memest.sources.importers.torch.steps.histories import Histories
from memest.sources.importers.torch.steps.lbfgs import begun, fill
from memest.sources.importers.torch.steps.own_optimizers import Own
from memest.sources.importers.torch.steps.recorder import State, StepRecorder
from memest.sources.importers.torch.surroundings import Surroundings
from memest.sources.importers.torch.tensors.keeping import Kept
from memest.sources.importers.torch.tensors.live import LiveTensors
from memest.sources.importers.torch.tensors.numbers import STAND_INS
from memest.sources.importers.torch.tensors.releasing import release

ROUNDS = 8
"""Where the user's own numbers change from call to call, or Python's random ones, so many calls in a row have to be alike after the
first."""
MOST = ROUNDS + 4

DREW_ALIKE = f"the step draws random numbers of Python's or numpy's: {ROUNDS + 1} calls, each with its own, came to the same"


class Answer(NamedTuple):
    """The step. ``taken`` are the sizes it took, where it is not known at which others it is the same; ``played`` is what asking for it
    at the sizes of the example comes to, and before that the first step."""

    graph: Graph
    taken: Taken | None
    played: tuple[Sequence[Event], ...]


class Question(NamedTuple):
    """A step that is looked at: its name, the call, what it works with, whether somebody clears the gradients before each call, and what
    is assumed. ``look`` says that the sizes at which it is the same are asked for."""

    name: str
    call: Call
    found: Surroundings
    cleared: bool
    assumptions: Assumptions
    look: bool = True


class _Restless(Exception):  # noqa: N818 - it ends a search, which may begin anew
    """No call was like the one before; ``moves`` says that windows lay elsewhere, ``by_number`` that a number read may be why."""

    def __init__(self, refusal: UnsupportedError, *, moves: bool, by_number: bool) -> None:
        super().__init__(str(refusal))
        self.refusal, self.moves, self.by_number = refusal, moves, by_number


def steady(question: Question) -> Answer:
    """Steps are recorded until one leaves what it found and is like the one before; that is the step, and the first its beginning. At
    which sizes it is the same is looked for, but for steps that remember something from call to call and those that no other run can be
    held against: they give the sizes they took. UnsupportedError where no step is like the next."""
    moves, stand_ins = False, tuple(STAND_INS)
    by_number: UnsupportedError | None = None
    while True:
        try:
            answer = _searched(question, moves, stand_ins)
        except _Restless as restless:
            if restless.moves and not moves:
                moves = True
            elif restless.by_number:  # or it is restless without other numbers, too
                stand_ins, by_number = STAND_INS[:1], restless.refusal
            else:
                raise restless.refusal from None
        else:
            if by_number is None:
                return answer
            raise by_number
        question = question._replace(found=question.call.surroundings())


def _searched(question: Question, move: bool, stand_ins: tuple[float, ...]) -> Answer:
    """The search. ``move`` says that windows lie where numbers of Python's say, which change; ``stand_ins`` are numbers that tensors hold,
    call by call."""
    name, call, found, cleared, assumptions, look = question
    repeats = Repeats()
    texts: dict[tuple[str, int], str] = {}
    before: State | None = None
    kept: list[Kept] = []
    keeping: list[LiveTensors] = []
    first = last = merged = None
    played: list[list[Event]] = []
    parted: Parting | None = None
    growing = ""
    with ExitStack() as over, found.as_they_were() as changed:
        over.callback(release, keeping)
        over.callback(Luck.now().put_back)
        histories = Histories(found.tables)
        kept += begun(found.optimizers.values())
        own = Own(found.optimizers)
        same = 0
        patience = ROUNDS if own else 2  # such count, and change their way early
        for number in range(MOST + patience):
            given, stand_in = len(kept), stand_ins[number % len(stand_ins)]
            recorder = StepRecorder(Root(call, found), name, repeats, found, before, kept, stand_in, texts, assumptions)
            recorder.numbers.move = move
            kept = []
            _record(recorder, call)
            if recorder.survivors.tensors:
                keeping.append(recorder.live)
                over.callback(recorder.survivors.forget)
            graph = recorder.graph
            left = recorder.state._replace(gradients=()) if cleared else recorder.state
            settled = left == (before or State())
            events = recorder.played.ledger.events
            if last is not None:
                merged = last if graph == last else alike(graph, last)
                if merged is None or (graph != last and not played_alike(events, played[-1])):
                    parted, merged = where_they_part(graph, last), None
            same = same + 1 if merged is not None else 0
            first, last = first or graph, merged or graph
            played = [*played[:1], events]
            changes = changed() or recorder.drew or own.count()
            needed = ROUNDS if changes else len(stand_ins) - 1 if recorder.numbers.read else min(number, 1)
            if settled and same >= needed:
                graph = alike(last, first) or last.with_(beginning=first)
                if recorder.drew:
                    graph = graph.with_(notes=tuple(DREW_ALIKE if note == DREW else note for note in graph.notes))
                taken = recorder.taken.numbers
                if not (look and recorder.sizes_told):
                    return Answer(graph, None, tuple(played))
                if given or not recorder.can_be_followed:
                    return Answer(graph, taken, tuple(played))
                where = described_where(graph, partial(_agrees, recorder, call, before, texts, assumptions), taken)
                free = where is graph or not (changes or recorder.assumed.asked)
                return Answer(where, None, tuple(played)) if free else Answer(graph, taken, tuple(played))
            if number > patience and not same:
                break
            growing = _newest(recorder) if len(left.kept) > len((before or State()).kept) else ""
            before = left
            kept = recorder.survivors.given_up()
            histories.after_a_call(kept)
            fill(found.optimizers.values(), kept)
    by_number = settled and recorder.numbers.read > 0 and len(stand_ins) > 1
    moves = parted is not None and not {"getitem", "setitem"}.isdisjoint(parted.ops)
    refusal = _refusal(recorder, growing, parted.line if parted else "", by_number)
    raise _Restless(refusal, moves=changes and moves, by_number=changes and by_number)


def _newest(recorder: StepRecorder) -> str:
    """What the newest of the tensors is that a call leaves, and where it is made."""
    if not recorder.survivors.tensors:
        return ""
    name = recorder.live.known(recorder.survivors.tensors[-1]).names[0]
    layer = next((layer.name for layer in recorder.layers if name in layer.outputs), name)
    line = recorder.lines.get(layer)
    return f"{layer!r} ({line})" if line else repr(layer)


def _refusal(recorder: StepRecorder, growing: str, line: str, by_number: bool) -> UnsupportedError:
    """Why no step is like the next, and what to do about it."""
    if by_number:
        return UnsupportedError(f"{recorder.numbers.place}: no rule for {recorder.numbers.undecided}")
    if growing:
        return UnsupportedError(
            f"{recorder.name}: no call is like the one before: each keeps another tensor, such as {growing} (a list that grows); keep"
            " numbers: loss.item(), or empty the list in the step"
        )
    place = f"{recorder.name} ({line})" if line else recorder.name
    if recorder.drew:
        return UnsupportedError(
            f"{place}: no call is like the one before: what runs here, or its sizes, goes by random numbers of Python's; begin the step"
            " with random.seed(0) and numpy.random.seed(0), and each call draws the same"
        )
    return UnsupportedError(
        f"{place}: no call is like the one before: what runs here, or its sizes, goes by a counter, a flag or a list of Python's, or by"
        " gradients that come and go; let it be constant for this call, or let the function be a whole round, such as all the batches whose"
        " gradients are added up"
    )


def _agrees(
    first: StepRecorder, call: Call, before: State | None, texts: Any, assumptions: Assumptions, sizes: Mapping[str, int]
) -> bool | None:
    """Whether the step does the same at other sizes."""
    root = Root(call, first.found)
    arguments = root, first.name, first.repeats, first.found, before, (), first.numbers.stand_in, texts, assumptions
    elsewhere = StepElsewhere(first, sizes, *arguments)
    _prepare(elsewhere)
    return elsewhere.agrees(lambda inputs: root(**inputs))


def _record(recorder: StepRecorder, call: Call) -> None:
    """One call."""
    root = _prepare(recorder)
    try:
        recorder.record(call.examples.inputs, lambda inputs: root(**inputs))
    except GraphError as e:
        if not recorder.numbers.plain:
            raise
        raise UnsupportedError(
            f"{e}; a number was read from a tensor ({recorder.numbers.place}), which nobody knows before anything runs: let nothing depend"
            f" on it, or state it: {recorder.numbers.statement}"
        ) from None


def _prepare(recorder: StepRecorder) -> Root:
    root = recorder.module
    assert isinstance(root, Root)
    root.recorder = recorder
    for only in root.only:
        recorder.paths[id(only)] = ""
        recorder.modules.append(only)
    return root
