"""Hooks of a whole step, recorded when the engine comes to them: only then do they put what they keep where they keep it.

What a hook keeps of what it is given or makes (a list, an attribute) is a tensor of the step from then on; what it replaces dies there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

from memest.errors import UnsupportedError
from memest.network.graph import Backward, Layer, LeafHook
from memest.network.tensor import Spec
from memest.runtimes.torch.autograd import Machine
from memest.runtimes.torch.ledger import Value
from memest.runtimes.torch.step.run import Run
from memest.sources.importers.torch.contexts.counters import with_counters
from memest.sources.importers.torch.contexts.switching import Switches, backward_mode
from memest.sources.importers.torch.tensors.described import like
from memest.sources.importers.torch.tensors.live import LiveTensors


class Recorder(Protocol):
    """What is asked of the recorder."""

    live: LiveTensors
    layers: list[Layer]
    hooks: tuple[LeafHook, ...]
    machine: Machine
    switches: Switches

    def apart(self) -> AbstractContextManager[list[Layer]]:
        """Calls that run at another time."""

    def shadow(self) -> Run | None:
        """The run that plays all layers as they come."""

    def differentiates(self) -> None:
        """This recording is held against no other call by call."""

    def refusal(self, what: str) -> UnsupportedError:
        """The error that says that ``what`` has no rule, with the place."""


Record = Callable[[], Backward]
"""Runs the user's hook and says what it did."""


class Late:
    """The hooks of one recording that wait for the engine, by the names of their layers (of those on parameters: of their gradient)."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._waiting: dict[str, Record] = {}
        self._ran: set[str] = set()

    def wait(self, name: str, record: Record) -> None:
        """The engine may come to the hook ``name``: then ``record`` it."""
        self._recorder.differentiates()
        self._waiting[name] = record

    def lends(self, name: str) -> None:
        """What the function ``name`` gives is kept for a hook."""
        run = self._recorder.shadow()
        assert run is not None
        run.lending |= {name}

    def forget(self, name: str) -> None:
        """It is taken off."""
        self._waiting.pop(name, None)

    def done(self) -> None:
        """A backward is over that keeps nothing for another one: what ran in it runs no more."""
        over = self._ran & self._waiting.keys()
        for name in over - {str(hook.backward.gradients[0]) for hook in self._recorder.hooks}:  # those on parameters stay
            del self._waiting[name]

    def __call__(self, name: str, backward: Backward) -> Backward:
        """What it does now; ``backward`` is what is known of it without."""
        record = self._waiting.get(name)
        if record is None:
            return backward
        made = record()
        self._note(name, made)
        self._ran.add(name)
        return made

    def _note(self, name: str, made: Backward) -> None:
        """It is written down where it stands: the first time, or one time more."""

        def noted(before: Backward | None) -> Backward:
            assert before is not None
            return replace(before, again=(*before.again, made)) if name in self._ran else made

        recorder = self._recorder
        at = next((i for i, layer in enumerate(recorder.layers) if layer.name == name), None)
        if at is not None:
            recorder.layers[at] = replace(recorder.layers[at], backward=noted(recorder.layers[at].backward))
            return
        on = next(i for i, hook in enumerate(recorder.hooks) if hook.backward.gradients[0] == name)
        hook = recorder.hooks[on]
        recorder.hooks = (*recorder.hooks[:on], replace(hook, backward=noted(hook.backward)), *recorder.hooks[on + 1 :])


def run_now(
    recorder: Recorder, given: Sequence[tuple[str, Spec]], run: Callable[[Sequence[Any]], Sequence[Any]], known: Backward, *, holds: bool
) -> Backward:
    """What a hook does with the tensors ``given``, by name, and the gradients that ``run`` gives of them: ``known`` with that. ``holds``:
    what it reads besides lives as long as it does."""
    live = recorder.live
    again = {name: live.take(name) for name, _ in given if name in live.specs}
    known = replace(
        known,
        gradients=tuple([again.get(str(name), name) for name in known.gradients]),
        lent=tuple([again.get(name, name) for name in known.lent]),
    )
    given = [(again.get(name, name), spec) for name, spec in given]
    stood = {n for e in live.tracked.values() for n in e.names}
    with recorder.apart() as layers, backward_mode():
        tensors = [like(spec) for _, spec in given]
        for t, (name, spec) in zip(tensors, given, strict=True):
            live.follow(t, name, Value(spec, recorder.machine.ledger.resident(0, "", name)), grad=False)
        results = run(tensors)
        names = tuple([None if r is None else live.known(r).names[-1] for r in results])
        early = list(live.early)
        own = {p.name for p in live.parameters}
        played = tuple([replace(layer, drops=tuple(gone)) for layer, gone in with_counters(layers, live.drops, own)])
        del results, tensors, t
    made = {name for name, _ in given} | {n for layer in played for n in layer.outputs}
    gone = dict.fromkeys(n for n in (*early, *(n for layer in played for n in layer.drops)) if n in stood)
    stays = _staying(live, made)
    read = [n for n in (*(n for layer in played for n in layer.reads), *names) if n is not None and n not in made | own]
    kept = tuple(dict.fromkeys(read)) if holds else ()
    backward = replace(known, layers=played, results=names, kept=kept, stays=stays, drops=tuple(gone))
    return recorder.switches.told(backward)


def _staying(live: LiveTensors, made: set[str]) -> tuple[str, ...]:
    """Those among what a hook was given or ``made`` that somebody keeps, each by one name from now on."""
    entries = [e for e in live.tracked.values() if e.names[0] in made]
    for entry in entries:
        entry.names[:] = entry.names[-1:]
    return tuple([entry.names[0] for entry in entries])
