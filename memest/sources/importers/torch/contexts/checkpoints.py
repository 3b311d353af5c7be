"""Calls of ``torch.utils.checkpoint`` while a forward is recorded: which layers each wraps, what it is given, and what stands in what."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import torch

from memest.errors import UnsupportedError
from memest.network.dtypes import DIFFERENTIABLE
from memest.network.graph import USUAL, Checkpoint, Layer
from memest.runtimes.torch.autograd import Machine
from memest.runtimes.torch.ledger import Value
from memest.runtimes.torch.step.run import Run
from memest.sources.importers.torch.contexts.packing import Packings
from memest.sources.importers.torch.contexts.selecting import Policy
from memest.sources.importers.torch.contexts.switching import Switches, backward_mode
from memest.sources.importers.torch.tensors.described import leaves, twin
from memest.sources.importers.torch.tensors.live import LiveTensors
from memest.sources.importers.torch.tensors.places import NOT_YET

EARLY_STOP = "_enable_checkpoint_early_stop"
"""Where torch has what ``set_checkpoint_early_stop`` says (None: nothing)."""
INSIDE = "not modelled on torch-cuda; use the hooks inside of it"


class Recorder(Protocol):
    """What is asked of the recorder."""

    name: str
    live: LiveTensors
    layers: list[Layer]
    machine: Machine
    checkpoint: str | None
    packings: Packings
    switches: Switches

    def differentiates(self) -> None:
        """This recording is held against no other call by call."""

    def add(self, layer: Layer) -> None:
        """Write a layer down."""

    def shadow(self) -> Run | None:
        """The run that plays all layers as they come, of a step."""

    def path(self) -> str:
        """That of the module that runs."""

    def refusal(self, what: str) -> UnsupportedError:
        """The error that says that ``what`` has no rule, with the place."""

    def refuse_card(self, what: str, why: str) -> None:
        """On a card the network stops here."""


class Call(NamedTuple):
    """A call under way: its first layer, and the names of the tensors that it was given, plainly and inside of other arguments; of the
    network's ``own`` it was given some plainly."""

    name: str
    start: int
    given: tuple[str, ...]
    held: tuple[str, ...]
    own: tuple[str, ...]
    policy: Policy | None


class Checkpoints:
    """The calls of one recording. ``found`` are those that are not made in the usual way, by name."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._under_way: list[Call] = []
        self._early_stop = getattr(torch.utils.checkpoint, EARLY_STOP, None)  # as it is outside of the recording
        self._unsure = self._twice = False
        self.found: dict[str, Checkpoint] = {}

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Calls that run at another time stand in none of these."""
        outer, self._under_way = self._under_way, []
        try:
            with self._later():
                yield
        finally:
            self._under_way = outer

    @contextmanager
    def _later(self, *, twice: bool = False) -> Iterator[None]:
        """What runs in backward (``twice``: in forward, too): ``set_checkpoint_early_stop`` is no more in force there; of a step it is not
        known how far it goes."""
        module, before = torch.utils.checkpoint, getattr(torch.utils.checkpoint, EARLY_STOP, None)
        outer = self._unsure, self._twice
        if before is self._early_stop:
            yield
            return
        self._unsure, self._twice = self._recorder.shadow() is not None, twice
        setattr(module, EARLY_STOP, self._early_stop)
        try:
            yield
        finally:
            setattr(module, EARLY_STOP, before)
            self._unsure, self._twice = outer

    @property
    def policy(self) -> Policy | None:
        """That of the selective checkpoint that calls stand in here."""
        return next((c.policy for c in reversed(self._under_way) if c.policy is not None), None)

    def begin(self, arguments: Sequence[Any], named: Any, made: Checkpoint, policy: Callable[..., Any] | None = None) -> None:
        """The layers from here on run again in backward. The ``policy`` is that of a selective one."""
        recorder = self._recorder
        if policy is not None and self.policy is not None:
            raise recorder.refusal("a selective checkpoint (context_fn) inside another: leave context_fn out of the inner one")
        if policy is not None:
            recorder.refuse_card("a selective checkpoint (context_fn)", NOT_YET)
            recorder.differentiates()
        if self._twice and recorder.switches.said[-1:] == [True] and not made.reentrant:
            raise recorder.refusal(
                "torch.utils.checkpoint where gradients are turned on in a reentrant one, under set_checkpoint_early_stop: put"
                " that inside of it"
            )
        if self._unsure and not made.reentrant:
            raise recorder.refusal(
                "torch.utils.checkpoint in what runs in backward, under set_checkpoint_early_stop inside a step: put that around the step"
            )
        asked = None if policy is None else Policy(recorder, policy)
        outer = recorder.checkpoint
        name = recorder.live.take(f"{outer or recorder.path() or recorder.name}.checkpoint")
        given = [a for a in arguments if isinstance(a, torch.Tensor)]
        held = [t for t in leaves((arguments, named)) if not any(t is g for g in given)]
        packed = recorder.packings.of([e.value.spec for t in given if (e := recorder.live.found(t)) is not None]) if made.grad else ()
        if any(p.packed or p.unpacked for p in packed):
            recorder.refuse_card("torch.utils.checkpoint under saved_tensors_hooks", INSIDE)
        recorder.packings.stack.append(None if made.grad else recorder.packings.pair)  # one that keeps nothing leaves them in force
        self._under_way.append(Call(name, len(recorder.layers), self._names(given), self._names(held), self._own(given), asked))
        recorder.checkpoint = name
        recorder.switches.seen(name)
        made = replace(made, inside=outer, packing=packed)
        if packed and not made.reentrant:
            names = tuple([recorder.live.known(t).names[-1] for t in given])
            if len(set(names)) < len(names):
                raise recorder.refusal("torch.utils.checkpoint with one tensor given twice, under saved_tensors_hooks: give it once")
            made = replace(made, arguments=names)
        elif outer is not None and not made.reentrant:
            made = replace(made, arguments=self._under_way[-1].given)
        if made != USUAL:
            self.found[name] = made

    def end(self) -> None:
        """Until here."""
        recorder = self._recorder
        call = self._under_way.pop()
        recorder.packings.stack.pop()
        if len(recorder.layers) == call.start:
            raise recorder.refusal("torch.utils.checkpoint around a function that calls nothing: call it without")
        made = self.found.get(call.name, USUAL)
        read = {name for layer in recorder.layers[call.start :] for name in layer.reads}
        besides = tuple([n for n in (*call.given, *call.held) if n not in read and n not in made.arguments])
        if besides and made.inside is not None:
            raise recorder.refusal(
                "torch.utils.checkpoint inside another, given a list with a tensor that it does not use: leave that one out"
            )
        captured = () if made.reentrant else self._captured(call)
        looked = made.inside is None and not made.reentrant and not made.packing
        besides += call.own if looked else ()  # torch looks who writes to them
        if besides or captured:
            self.found[call.name] = replace(made, arguments=(*made.arguments, *besides), captured=captured)
        recorder.checkpoint = made.inside

    def reentrant(self, function: Any, preserve: bool, arguments: Sequence[Any], needs: Sequence[bool]) -> Any:
        """``torch.utils.checkpoint`` with ``use_reentrant=True``: where no argument requires a gradient, nothing in it does."""
        given = [t for t in arguments if isinstance(t, torch.Tensor)]
        names = tuple([self._recorder.live.known(t).names[-1] for t in given])
        if any(needs) and len(set(names)) < len(names):
            raise self._recorder.refusal(
                "torch.utils.checkpoint (reentrant) with one tensor given twice: give it once, or use_reentrant=False"
            )
        made = Checkpoint(reentrant=True, preserve_rng_state=bool(preserve), arguments=names, grad=torch.is_grad_enabled() and any(needs))
        self.begin(given, (), made)
        with self._recorder.switches.anew(), backward_mode(made.grad), self._later(twice=True) if made.grad else nullcontext():
            result = function(*arguments)
        result = self._given_back(result, given, any(needs))
        self._check_captured(names)
        self._returns(result)
        self.end()
        return result

    def _given_back(self, result: Any, given: Sequence[torch.Tensor], needs: bool) -> Any:
        """What a reentrant one returns: an argument that its function returns as it is becomes another tensor (a view with the history of
        the checkpoint, or, where it has none, an alias without any); one that it wrote into stays what it was taken for."""
        recorder, live = self._recorder, self._recorder.live
        before = self._under_way[-1].given

        def other(t: Any) -> Any:
            if not (isinstance(t, torch.Tensor) and any(t is g for g in given)):
                return t
            entry = live.known(t)
            name = entry.names[-1]
            if name not in before or not (needs or entry.grad):
                return t
            recorder.refuse_card("torch.utils.checkpoint (reentrant) whose function returns an argument as it is", NOT_YET)
            again = live.take(f"{recorder.path()}.given_back".lstrip("."))
            recorder.add(Layer(name=again, op="given_back", tensors=(name,), outputs=(again,), grad=needs, checkpoint=recorder.checkpoint))
            if not t.is_floating_point():
                live.again(entry, again, entry.value, False)
                return t
            found = twin(t)
            live.follow(found, again, Value(entry.value.spec, recorder.machine.ledger.resident(0, "", again)), grad=needs)
            return found

        return tuple(map(other, result)) if isinstance(result, tuple) else other(result)

    def _returns(self, result: Any) -> None:
        """What the call returns of what its layers made: all that can gets the checkpoint's node, whatever happens inside."""
        call, live = self._under_way[-1], self._recorder.live
        made = {n for layer in self._recorder.layers[call.start :] for n in layer.outputs}
        returned = [t for t in (result if isinstance(result, tuple) else (result,)) if isinstance(t, torch.Tensor)]
        entries = [e for t in returned if (e := live.known(t)).names[-1] in made]
        names = dict.fromkeys([e.names[-1] for e in entries])
        inside = [n for layer in self._recorder.layers[call.start :] for n in (layer.name, layer.checkpoint) if n is not None]
        enabling = self._recorder.switches.enabling(dict.fromkeys(inside))
        found = self.found[call.name] = replace(self.found[call.name], results=tuple(names), enabling=enabling)
        own = {p.name for p in live.parameters}
        for entry in entries if found.grad else ():
            entry.grad = entry.grad or (entry.value.spec.dtype in DIFFERENTIABLE and entry.names[0] not in own)

    def _check_captured(self, given: Sequence[str]) -> None:
        """Refuse a reentrant checkpoint whose function reads a tensor that requires a gradient and is no argument: its backward would run
        through what made that, too."""
        recorder = self._recorder
        layers = recorder.layers[self._under_way[-1].start :]
        fine = {*given, *(n for layer in layers for n in layer.outputs), *(p.name for p in recorder.live.parameters)}
        others = {n for e in recorder.live.tracked.values() if e.grad for n in e.names} - fine
        if any(n in others for layer in layers for n in layer.reads):
            raise recorder.refusal("torch.utils.checkpoint (reentrant) around a function that captures a tensor: make it an argument")

    def _captured(self, call: Call) -> tuple[str, ...]:
        """What a call's layers read of what was there before, and it was not plainly given: torch does not look who writes to that."""
        layers, live = self._recorder.layers[call.start :], self._recorder.live
        own = {p.name for p in live.parameters}
        counts = "num_batches_tracked"  # of a batch norm, which writes to it itself
        later = {n for e in live.tracked.values() if e.names[0] in own and not e.names[0].endswith(counts) for n in e.names[1:]}
        own |= {n for e in live.tracked.values() if e.names[0].endswith(counts) for n in e.names}
        known = {*call.given, *call.own, *(own - later), *(n for layer in layers for n in layer.outputs)}
        return tuple(dict.fromkeys([n for layer in layers for n in layer.reads if n not in known]))

    def _names(self, tensors: Sequence[torch.Tensor]) -> tuple[str, ...]:
        """What they go by; of the network's own nothing is said."""
        live = self._recorder.live
        own = {p.name for p in live.parameters}
        entries = [live.found(t) for t in tensors]
        return tuple(dict.fromkeys([e.names[-1] for e in entries if e is not None and e.names[0] not in own]))

    def _own(self, tensors: Sequence[torch.Tensor]) -> tuple[str, ...]:
        """What those of the network's own go by."""
        live = self._recorder.live
        own = {p.name for p in live.parameters}
        entries = [live.found(t) for t in tensors]
        return tuple(dict.fromkeys([e.names[-1] for e in entries if e is not None and e.names[0] in own]))
