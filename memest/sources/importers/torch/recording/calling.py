"""The calls of torch that a forward makes: which are answered at once, which are made of others, which are rows."""

from __future__ import annotations

import sys
import types
from typing import Any

import torch

from memest.errors import MemestError, UnsupportedError
from memest.sizes.dims import Guard, recording
from memest.sources.importers.torch.calls.complex import check_complex
from memest.sources.importers.torch.calls.composed import BODIES
from memest.sources.importers.torch.calls.plain import WHOLE, Call, Request
from memest.sources.importers.torch.calls.queries import PASSIVE
from memest.sources.importers.torch.calls.table import CALLS
from memest.sources.importers.torch.calls.values import depends_on_values
from memest.sources.importers.torch.contexts.switching import gradients_on
from memest.sources.importers.torch.contexts.watching import attention_switches, check_autograd
from memest.sources.importers.torch.functions import full_name, name_of, without_dispatch
from memest.sources.importers.torch.recording.answering import Answering
from memest.sources.importers.torch.recording.handed import dies_inside, hides, with_forgotten
from memest.sources.importers.torch.recording.repeats import Form
from memest.sources.importers.torch.recording.trace import Asked, Step, Trace, answered, asked, complete
from memest.sources.importers.torch.refusals import reason_against
from memest.sources.importers.torch.tensors.described import leaves
from memest.sources.importers.torch.tensors.places import asked_host, counts, place_of

UNSEEN = ("torch._refs", "torch._decomp", "torch._prims", "torch._meta_registrations")


class Calling(Answering):
    """Sees every call."""

    def __torch_function__(self, func: Any, types_: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            return self._seen(func, args, kwargs or {})
        except UnsupportedError as e:
            self.failure = self.failure or e
            raise

    def _seen(self, func: Any, args: Any, kwargs: Any) -> Any:
        if sys._getframe(2).f_globals.get("__name__", "").startswith(UNSEEN):
            raise self.refusal("a compiled function: give its Python code")  # torch takes its operators apart on meta
        name = name_of(func)
        if name in self.watched:
            answer = self.watched[name](func, args, kwargs)
            if answer is not NotImplemented:
                return answer
        if name in PASSIVE:
            return self._passive(name, func, args, kwargs)
        if name not in CALLS:
            reason = reason_against(func)
            if reason is not None:
                place = self._place()
                line = place.rpartition(" (")[2].removesuffix(")") if place.endswith(")") else "FILE.py:LINE"
                raise UnsupportedError(f"{place}: {reason.replace('FILE.py:LINE', line)}")
        if isinstance(func, types.FunctionType) and name not in WHOLE and func not in self.entered:
            return self._enter(func, args, kwargs)
        if name in BODIES:
            composed = self._composed(name, args, kwargs)
            if composed is not NotImplemented:
                return composed
        binding = CALLS.get(name)
        if binding is not None:
            return self._call(name, binding, func, args, kwargs)
        if isinstance(func, torch._ops.OpOverloadPacket) and not any(True for _ in leaves((args, kwargs))):
            answer = func(*args, **kwargs)  # what an extension is asked as it is loaded: its version
            if not any(True for _ in leaves(answer)):
                return answer
        raise self.refusal(full_name(func))

    def _composed(self, name: str, args: Any, kwargs: Any) -> Any:
        """What a call comes to that is made of others; it says itself what it has no rule for, and here, where that stands."""
        try:
            with self:
                return BODIES[name](*args, **kwargs)
        except UnsupportedError as e:
            if self.failure is not None:  # one of the others said so
                raise
            raise e.at(self._place()) from None

    def _enter(self, func: types.FunctionType, args: Any, kwargs: Any) -> Any:
        """Run a Python-level torch function so that the calls in it are seen (should it meet itself, that is the compiled one)."""
        gone = dies_inside(func, args)
        if gone is not None:
            raise self.refusal(f"{func.__name__} of a {gone} that has no name, which torch lets go of inside: write {gone} = … before it")
        kwargs = with_forgotten(func, kwargs)
        with self:
            return self._run_body(func, args, kwargs)

    def enter_function(self, function: types.FunctionType, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The same of a function that has not handed itself on yet; NotImplemented where it is more than a body."""
        if function in self.entered or not self._is_body(function):
            return NotImplemented
        return self._run_body(function, args, kwargs)

    def _is_body(self, function: types.FunctionType) -> bool:
        """Whether a function of torch is recorded by the calls in it, whatever its arguments."""
        found = self._bodies.get(function)
        if found is None:
            name = name_of(function)
            apart = name in self.watched or name in PASSIVE or name in WHOLE or hides(function)
            found = self._bodies[function] = not apart and (name in CALLS or reason_against(function) is None)
        return found

    def _run_body(self, func: types.FunctionType, args: Any, kwargs: Any) -> Any:
        """The calls in it; this mode is on."""
        with torch._C.DisableTorchFunction():
            what, start = asked(self.live, func, complete(args, kwargs, None))[0], len(self.trace)
        self.entered.append(func)
        try:
            result = without_dispatch(func)(*args, **kwargs)
        finally:
            self.entered.remove(func)
        self._came_to(what, self.trace[start:], result)
        return result

    def _came_to(self, what: Asked, steps: Trace, result: Any) -> None:
        """A function of torch has run: where it came to one call and gives what that gave, the two are one."""
        step = steps[0] if len(steps) == 1 else None
        if isinstance(step, Step) and step.layer is not None and isinstance(result, torch.Tensor) and what.of_known:
            entry = self.live.found(result)
            if entry is not None and (entry.names[-1],) == step.layer.outputs:
                self.trace[-1] = step._replace(outer=what)

    def besides(self, name: str) -> Any:
        """What a call of this name goes by, beside its arguments."""
        asked = None if self.asked_dtype is None else self.asked_dtype()
        besides: Any = (asked, attention_switches()) if "attention" in name else asked
        if self.contexts.casts_to is not None:
            besides = (besides, self.contexts.casts_to)
        return (besides, "anywhere") if self.numbers.anywhere else besides

    def _call(self, name: str, binding: Call, func: Any, args: Any, kwargs: Any) -> Any:
        apart = counts(name, args, kwargs, self.live)
        whole = complete(args, kwargs, self.besides(name))
        plain = not (apart or depends_on_values(name, args) or self.checkpoints.policy is not None)
        form = None if not plain else self.repeats.form(self.live, func, binding, whole, len(args))
        what, tensors = asked(self.live, func, whole, form)
        written = len(self.layers)
        produced = self._answered(name, binding, form, func, args, kwargs, apart)
        layer = self.layers[-1] if len(self.layers) > written else None
        self.trace.append(Step(what) if layer is None else answered(self.live, what, tensors, layer, produced))
        return produced

    def _answered(self, name: str, binding: Call, form: Form | None, func: Any, args: Any, kwargs: Any, apart: bool) -> Any:
        """What the call gives; a layer is written down where it is one."""
        known = self.repeats.known(form, self.module.training)
        if form is not None and known is not None:
            self.asked_dtype = None
            self.guards.update(known.guards)
            check_autograd(self, self.gradients, self.contexts.casts_to is not None)
            return self._repeated(known, form)
        guards: dict[Guard, None] = {}
        request = self._request(func, binding, args, kwargs, guards)
        if request is None:
            return func(*args, **kwargs)
        check_autograd(self, self.gradients, self.contexts.casts_to is not None)
        host = apart and self._on_host(name, request, args, kwargs)
        return self._layer(request, form, guards, func, args if request.args is None else request.args, kwargs, host)

    def _on_host(self, name: str, request: Request, args: Any, kwargs: Any) -> bool:
        """Whether the results of a call lie on the host when the network runs on a card; what it moves is written into the request."""
        reads = [self.live.known(t) for t in leaves(request.tensors)]
        flows = gradients_on() and bool(reads) and reads[0].grad
        if request.op == "getitem" and not reads[0].host and any(e.host for e in reads[1:]):
            if not all(e.host for e in reads[1:]):
                self.refuse_card("index tensors on the card and on the host")
            request.attributes["host"] = True
            return False
        with recording(None):
            found = place_of(name, request.op, reads, asked_host(name, args, kwargs, self.live))
        if found.refused:
            self.refuse_card(found.refused)
        copies = request.op == "copy_"
        if found.moves and copies and flows and not reads[1].grad and reads[0].value.spec == reads[1].value.spec:
            return found.host  # nothing but the bytes go across, and zeros come back
        if found.moves:
            if flows or (copies and gradients_on() and reads[1].grad):
                self.refuse_card("a gradient that flows through the host")
            request.op, request.tensors = ("copy_across_", request.tensors) if copies else ("to_device", [*request.tensors, None][:2])
            device = "host" if found.host else "card"
            request.attributes |= {"device": device, "non_blocking": kwargs.get("non_blocking") is True}
        return found.host

    def _request(self, func: Any, binding: Call, args: Any, kwargs: Any, guards: dict[Guard, None]) -> Request | None:
        """The row to record; the sizes that are compared for that go to ``guards``."""
        try:
            with recording(guards):
                made = binding(name_of(func), args, kwargs, self)
            check_complex(made)
            return made
        except MemestError as e:
            raise e.at(self._place()) from None
        except LookupError:  # an argument that the row needs, and this form of the call does without
            reason = reason_against(func)
            raise UnsupportedError(f"{self._place()}: {reason or f'no rule for this form of {full_name(func)}'}") from None
        finally:
            self.asked_dtype = None
            self.guards.update(guards)

    def source_of(self, dtype: Any) -> torch.Tensor | None:
        """The tensor that gave its dtype to the call being recorded: the last one asked for it since the call before."""
        asked = self.asked_dtype() if self.asked_dtype is not None else None
        return asked if asked is not None and asked.dtype == dtype and self.live.found(asked) is not None else None
