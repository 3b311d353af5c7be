"""Custom autograd functions (``torch.autograd.Function``), recorded: forward as it runs, and the backward of what a gradient flows through.

The forward's calls are written down as they are made, without gradients. Then backward is called with meta gradients, and what it does is
written down apart: it is played where the engine runs it. What the context holds between the two is part of the layer.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Protocol

import torch
from torch.autograd.function import FunctionCtx, _SingleLevelFunction, once_differentiable

from memest.errors import GraphError, UnsupportedError
from memest.network.graph import Backward, Casting, Layer, LeafHook
from memest.runtimes.torch.autograd import Machine
from memest.runtimes.torch.ledger import Value
from memest.runtimes.torch.step.run import Run
from memest.sources.importers.torch.contexts.counters import with_counters
from memest.sources.importers.torch.contexts.late import Late, run_now
from memest.sources.importers.torch.contexts.packing import Packings
from memest.sources.importers.torch.contexts.switching import Switches, backward_mode
from memest.sources.importers.torch.refusals import defined_at
from memest.sources.importers.torch.tensors.described import leaves, twin
from memest.sources.importers.torch.tensors.live import LiveTensors, Tracked


class Recorder(Protocol):
    """What is asked of the recorder."""

    live: LiveTensors
    layers: list[Layer]
    machine: Machine
    checkpoint: str | None
    hooks: tuple[LeafHook, ...]
    packings: Packings
    switches: Switches

    @property
    def late(self) -> Late | None:
        """The hooks that wait for the engine, where they do here."""

    def shadow(self) -> Run | None:
        """The run that plays all layers as they come, where there is one."""

    def differentiates(self) -> None:
        """This recording is held against no other call by call."""

    @property
    def castings(self) -> tuple[Casting, ...]:
        """What contexts of autocast say here."""

    def apart(self) -> AbstractContextManager[list[Layer]]:
        """Calls that run at another time: their layers, and in ``live.drops`` what dies after each."""

    def add(self, layer: Layer) -> None:
        """Write a layer down."""

    def path(self) -> str:
        """That of the module that runs."""

    def refusal(self, what: str) -> UnsupportedError:
        """The error that says that ``what`` has no rule, with the place."""


class Context(FunctionCtx):
    """What a function gets as ``ctx``."""

    to_save: Sequence[Any] = ()
    dirty_tensors: Sequence[Any] = ()
    non_differentiable: Sequence[Any] = ()
    materialize_grads = True
    unpacked = False

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What ``save_for_backward`` was given."""
        self.unpacked = True
        return tuple(self.to_save)

    saved_variables = saved_tensors  # its old name


def saved_by(context: Context) -> list[torch.Tensor]:
    """The tensors that ``save_for_backward`` was given. (No method: its name could be an attribute of a user.)"""
    return [t for t in context.to_save if t is not None]


def held_by(context: Context) -> list[torch.Tensor]:
    """The tensors among its attributes, each once."""
    own = {k: v for k, v in vars(context).items() if k not in _TORCHS}
    return list({id(t): t for t in leaves(own)}.values())


_TORCHS = frozenset(
    {"to_save", "saved_for_forward", "dirty_tensors", "non_differentiable", "materialize_grads", "needs_input_grad", "unpacked"}
)


@dataclass(frozen=True)
class Applied:
    """A forward that has run: its context, what it returned, the tensors in that, and which arguments are tensors."""

    context: Context
    result: Any
    outputs: list[torch.Tensor]
    tensors: list[bool]

    @property
    def differentiable(self) -> tuple[bool, ...]:
        """Which outputs get the function's node."""
        without = {id(t) for t in self.context.non_differentiable}
        return tuple([t.is_floating_point() and id(t) not in without for t in self.outputs])


def run_forward(function: Any, arguments: tuple[Any, ...], needs: tuple[bool, ...]) -> Applied:
    """``function`` with the gradients that it ``needs``, one flag an argument: its own calls are made without them. An argument that it
    returns as it is, without having written into it, becomes a view."""
    context = Context(needs)
    with torch.no_grad():
        if function.setup_context is _SingleLevelFunction.setup_context:
            result = function.forward(context, *arguments)
        else:
            result = function.forward(*arguments)
            function.setup_context(context, arguments, result)
        given = result if isinstance(result, tuple) else (result,)
        written = {id(t) for t in context.dirty_tensors}
        own = {id(t) for t in arguments if isinstance(t, torch.Tensor)} - written
        if any(id(t) in own for t in given):
            given = tuple([t.detach() if id(t) in own else t for t in given])
            result = given if isinstance(result, tuple) else given[0]
    tensors = [isinstance(t, torch.Tensor) for t in arguments]
    return Applied(context, result, [t for t in given if isinstance(t, torch.Tensor)], tensors)


def end_function(recorder: Recorder, function: Any, applied: Applied, inputs: Sequence[torch.Tensor], *, begins: str | None = None) -> None:
    """The layer that ends a custom function, with its backward, for the tensors among its arguments. ``begins`` is the first layer of its
    forward where that matters."""
    live, title = recorder.live, _titled(function)
    if any(live.known(t).value.base is not None for t in applied.context.dirty_tensors):
        raise recorder.refusal(f"{title}, which writes into a view: give it a clone")
    name = live.take(f"{recorder.path()}.{function.__name__}".lstrip("."))
    outputs, arguments = [live.known(t) for t in applied.outputs], [live.known(t) for t in inputs]
    backward = _backward(recorder, name, function, applied, outputs)
    strangers = [_stranger(b, [p.name for p in live.parameters]) for b in (backward, *backward.others)]
    stranger = next((n for n in strangers if n is not None), None)
    if stranger is not None:
        raise recorder.refusal(f"{title}, whose backward reads {stranger!r} past its context: keep that by save_for_backward")
    names = tuple([f"{name}.{i}" for i in range(len(outputs))])
    recorder.add(
        Layer(
            name=name,
            op="autograd_function",
            tensors=(tuple([e.names[-1] for e in outputs]), tuple([e.names[-1] for e in arguments])),
            attributes=(("once", True),) if _once(function) else (),
            outputs=names,
            checkpoint=recorder.checkpoint,
            autocast=recorder.castings,
            backward=replace(backward, begins=begins),
            packing=recorder.packings.of([live.known(t).value.spec for t in saved_by(applied.context)]),
        )
    )
    for entry, output, differentiable in zip(outputs, names, backward.differentiable, strict=True):
        live.again(entry, output, entry.value, differentiable)


def _backward(recorder: Recorder, name: str, function: Any, applied: Applied, outputs: Sequence[Tracked]) -> Backward:
    """What the function does in backward, called with gradients that lie as its outputs do. Where it asks for gradients as they come, what
    it does without some of them, too."""
    others: list[Backward] = []
    hanging = [i for i, hangs in enumerate(applied.differentiable) if hangs]
    if not applied.context.materialize_grads:
        never = frozenset(range(len(outputs))) - frozenset(hanging)
        most = len(hanging) if len(hanging) <= _MOST_APART and not getattr(function, "all_come", False) else 0
        for count in range(1, most + 1):
            for missing in combinations(hanging, count):
                with suppress(*_ITS_OWN):  # a backward that cannot be without them is not asked to
                    others.append(_one_backward(recorder, name, function, applied, outputs, never | frozenset(missing)))
    else:
        never = frozenset()
    try:
        usual = _one_backward(recorder, name, function, applied, outputs, never)
    except (GraphError, *_ITS_OWN) as e:  # the engine may never come to it
        usual = _raising(recorder, name, applied, never, str(e) if isinstance(e, GraphError) else f"{type(e).__name__}: {e}")
    return replace(usual, others=tuple(others))


def _raising(recorder: Recorder, name: str, applied: Applied, missing: frozenset[int], error: str) -> Backward:
    """A backward whose own code raises an ``error``."""
    live, context = recorder.live, applied.context
    saved, kept = (tuple([live.known(t).names[-1] for t in held]) for held in (saved_by(context), held_by(context)))
    return Backward(
        saved=saved,
        kept=kept,
        gradients=tuple([None if i in missing else live.take(f"{name}.gradient{i or ''}") for i in range(len(applied.outputs))]),
        layers=(),
        results=(None,) * sum(applied.tensors),
        differentiable=applied.differentiable,
        materialized=context.materialize_grads,
        raises=error,
    )


_MOST_APART = 3
_ITS_OWN = (AttributeError, TypeError, ValueError, RuntimeError, AssertionError)


def _again(live: LiveTensors, applied: Applied) -> Applied:
    """The same for one run of backward: what that does to the context and to lists on it is nobody else's, and tensors of which it lets go
    die there, whoever has them still while the forward is recorded."""
    made: dict[int, torch.Tensor] = {}
    context = copy.copy(applied.context)
    for key, value in vars(context).items():
        if key not in _TORCHS:
            setattr(context, key, _stand_in(live, value, made))
    return replace(applied, context=context)


def _stand_in(live: LiveTensors, value: Any, made: dict[int, torch.Tensor]) -> Any:
    """The same, with tensors of their own in it where they are not the network's."""
    if type(value) in (list, tuple, set):
        return type(value)([_stand_in(live, v, made) for v in value])
    if type(value) is dict:
        return {key: _stand_in(live, v, made) for key, v in value.items()}
    entry = live.found(value) if isinstance(value, torch.Tensor) else None
    if entry is None or any(p.name == entry.names[0] for p in live.parameters):
        return value
    if id(value) not in made:
        made[id(value)] = t = twin(value)
        live.follow(t, entry.names[-1], entry.value, entry.grad, inference=entry.inference)
    return made[id(value)]


def _one_backward(
    recorder: Recorder, name: str, function: Any, applied: Applied, outputs: Sequence[Tracked], missing: frozenset[int]
) -> Backward:
    """Backward without the gradients that are ``missing``."""
    live, context = recorder.live, applied.context
    saved, kept = ([live.known(t).names[-1] for t in held] for held in (saved_by(context), held_by(context)))
    gradients = [None if i in missing else twin(t) for i, t in enumerate(applied.outputs)]
    differentiable = applied.differentiable
    names = tuple([None if i in missing else live.take(f"{name}.gradient{i or ''}") for i in range(len(outputs))])
    with recorder.apart() as layers:
        for t, n, output in zip(gradients, names, outputs, strict=True):
            if t is not None and n is not None:
                live.follow(t, n, Value(output.value.spec, recorder.machine.ledger.resident(0, "", n)), grad=False)
        applied = _again(live, applied)
        found = _run_backward(function, applied, gradients)
        results = [r for r, is_tensor in zip(found, applied.tensors, strict=True) if is_tensor]
        given = tuple([None if r is None else live.known(r).names[-1] for r in results])
        played = run_later(layers, live)
        if any(live.known(t).names[-1] not in kept for t in held_by(applied.context)):
            raise recorder.refusal(f"{_titled(function)}, whose backward puts a tensor on its context: keep it in forward")
        unpacks = applied.context.unpacked or not saved
        del found, gradients, results, t, applied
    live.check_gone(played, names, _titled(function, " with a backward"))
    made = Backward(
        saved=tuple(saved),
        kept=tuple(kept),
        gradients=names,
        layers=played,
        results=given,
        differentiable=differentiable,
        materialized=context.materialize_grads,
        unpacks=unpacks,
    )
    return recorder.switches.told(made)


def _titled(function: Any, more: str = "") -> str:
    """What a function is in the words of who wrote it: torch's own around a module with hooks is those hooks."""
    title: str = getattr(function, "title", "")
    return title or f"the custom autograd function {function.__name__}{more}"


def run_later(layers: Sequence[Layer], live: LiveTensors) -> tuple[Layer, ...]:
    """Calls that run at another time, each with what it lets go of."""
    own = {p.name for p in live.parameters}
    return tuple([replace(layer, drops=tuple(gone)) for layer, gone in with_counters(layers, live.drops, own)])


class Handle:
    """What the registration of a tensor's hook gives; ``name`` is that of its layer."""

    def __init__(self, recorder: Recorder, name: str) -> None:
        self._recorder, self._name = recorder, name
        self.id = id(self)

    def remove(self) -> None:
        """The hook is taken off: it does nothing, unless a backward ran meanwhile."""
        layers = self._recorder.layers
        at = next((i for i, layer in enumerate(layers) if layer.name == self._name), None)
        if at is None:
            raise self._recorder.refusal(
                "taking a tensor's hook off where it was not put on (another function's backward, a hook): take it off after the step"
            )
        if self._recorder.late is not None:
            self._recorder.late.forget(self._name)
        found = layers[at].backward
        if found is not None and not any(layer.op in ("backward", "autograd_grad") for layer in layers[at:]):
            layers[at] = replace(layers[at], backward=replace(found, kept=(), layers=(), results=(None,)))

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def hook(recorder: Recorder, t: torch.Tensor, function: Any) -> str:
    """The layer of ``t.register_hook(function)``: what it does with a gradient when backward comes by. Tensors that the function captures
    live as long as the hook, which is as long as what made ``t`` can run backward. Gives the layer's name."""
    live, entry = recorder.live, recorder.live.known(t)
    if not entry.grad:
        raise GraphError("cannot register a hook on a tensor that doesn't require gradient")
    if entry.value.base is None and any(p.name == entry.names[0] for p in live.parameters):
        raise recorder.refusal("Tensor.register_hook on a parameter inside forward: it stays from step to step; register it once, outside")
    name, late = live.take(f"{recorder.path()}.register_hook".lstrip(".")), recorder.late
    gradient, spec = f"{name}.gradient", entry.value.spec
    if late is not None:
        backward = Backward(
            saved=(), kept=(), gradients=(gradient,), layers=(), results=(None,), differentiable=(True,), materialized=False
        )
        t.__dict__.setdefault(HOOKS, []).append(function)  # it lives as long as the tensor does
        late.wait(name, lambda: run_now(recorder, [(gradient, spec)], lambda given: [function(*given)], backward, holds=True))
    else:
        backward = _hook_now(recorder, entry, t, function, gradient)
    recorder.add(
        Layer(
            name=name,
            op="register_hook",
            tensors=(entry.names[-1],),
            outputs=(name,),
            checkpoint=recorder.checkpoint,
            autocast=recorder.castings,
            backward=backward,
        )
    )
    live.again(entry, name, entry.value, False)
    return name


def _hook_now(recorder: Recorder, entry: Tracked, t: torch.Tensor, function: Any, gradient: str) -> Backward:
    """What a hook does with the ``gradient`` of that name, when it is put on."""
    live, given = recorder.live, twin(t)
    with recorder.apart() as layers:
        live.follow(given, gradient, Value(entry.value.spec, recorder.machine.ledger.resident(0, "", gradient)), grad=False)
        with backward_mode():
            found = function(given)
        result = None if found is None else live.known(found).names[-1]
        played = run_later(layers, live)
        del found, given
    live.check_gone(played, [gradient], f"a tensor's hook{defined_at(function)}")
    made = {gradient, *(p.name for p in live.parameters), *(n for layer in played for n in layer.outputs)}
    captured = dict.fromkeys(n for n in (*(n for layer in played for n in layer.reads), result) if n is not None and n not in made)
    backward = Backward(
        saved=(), kept=tuple(captured), gradients=(gradient,), layers=played, results=(result,), differentiable=(True,), materialized=False
    )
    return recorder.switches.told(backward)


HOOKS = "_memest_hooks"
_ONCE = once_differentiable(saved_by).__code__


def _once(function: Any) -> bool:
    """Whether its backward is marked ``once_differentiable``."""
    return getattr(function.backward, "__code__", None) is _ONCE


def _stranger(backward: Backward, own: Sequence[str]) -> str | None:
    """A value that backward reads, and that neither its context nor the network keeps for it."""
    known = {*backward.saved, *backward.kept, *backward.gradients, *own, *(n for layer in backward.layers for n in layer.outputs)}
    read = (*(n for layer in backward.layers for n in layer.reads), *backward.results)
    return next((n for n in read if n is not None and n not in known), None)


def _run_backward(function: Any, applied: Applied, gradients: Sequence[torch.Tensor | None]) -> list[Any]:
    """What ``function.backward`` gives for the arguments, tensors or None; UnsupportedError where torch would raise."""
    left, count = iter(gradients), len(applied.tensors)
    returned = applied.result if isinstance(applied.result, tuple) else (applied.result,)
    given = [next(left) if isinstance(t, torch.Tensor) else None for t in returned]
    with backward_mode():
        found = function.backward(applied.context, *given)
    results = list(found) if isinstance(found, tuple | list) else [found]
    if len(results) > count and all(r is None for r in results[count:]):
        results = results[:count]
    if len(results) != count:
        raise UnsupportedError(f"{function.__name__}.backward returned {len(results)} gradients for the {count} arguments of apply")
    return results
