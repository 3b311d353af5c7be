"""Hooks on the network's parameters: what they do with a gradient, recorded before the forward runs.

A hook of ``Tensor.register_hook`` gets the gradient that comes; one of ``register_post_accumulate_grad_hook`` the parameter when its
gradient is there, and may step an optimizer and let go of the gradient: that needs a whole step.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from memest.errors import UnsupportedError
from memest.network.graph import Backward, Layer, LeafHook
from memest.runtimes.torch.autograd import Machine
from memest.runtimes.torch.ledger import Value
from memest.sources.importers.torch.contexts import late
from memest.sources.importers.torch.contexts.late import Late
from memest.sources.importers.torch.contexts.switching import Switches, backward_mode
from memest.sources.importers.torch.tensors.described import twin
from memest.sources.importers.torch.tensors.live import LiveTensors
from memest.sources.importers.torch.tensors.state import Owned


class Recorder(Protocol):
    """What is asked of the recorder."""

    live: LiveTensors
    machine: Machine
    switches: Switches

    def apart(self) -> AbstractContextManager[list[Layer]]:
        """Calls that run at another time."""

    def refusal(self, what: str) -> UnsupportedError:
        """The error that says that ``what`` has no rule, with the place."""


class Hooked(NamedTuple):
    """A hook on a real parameter, by its path."""

    path: str
    parameter: torch.Tensor
    after: bool
    function: Callable[[Any], Any]


def hooks_on(owned: Owned) -> list[Hooked]:
    """The hooks of trained parameters, in the order in which they run."""
    found: list[Hooked] = []
    with torch._C.DisableTorchFunction():
        for path, p in owned.tensors:
            if isinstance(p, nn.Parameter) and p.requires_grad:
                found += [Hooked(path, p, False, f) for f in (p._backward_hooks or {}).values()]
                found += [Hooked(path, p, True, f) for f in (p._post_accumulate_grad_hooks or {}).values()]
    return found


def waiting(recorder: late.Recorder, found: Late, hook: Hooked) -> LeafHook:
    """A hook that gets the gradient that comes, recorded when the engine comes to it."""
    entry = recorder.live.known(hook.parameter)
    leaf, spec = entry.names[0], entry.value.spec
    gradient = f"{recorder.live.take(f'{leaf}.hook')}.gradient"
    nothing = Backward(saved=(), kept=(), gradients=(gradient,), layers=(), results=(None,), differentiable=(True,), materialized=False)
    run = hook.function
    found.wait(gradient, lambda: late.run_now(recorder, [(gradient, spec)], lambda given: [run(*given)], nothing, holds=False))
    return LeafHook(parameter=leaf, after=False, backward=nothing)


def recorded(recorder: Recorder, hook: Hooked, standing: dict[str, torch.Tensor] | None = None) -> LeafHook:
    """What ``hook`` does. ``standing`` are the gradients that can be read of their tensors, by name (None: that is of a step alone)."""
    live = recorder.live
    entry = live.known(hook.parameter)
    leaf = entry.names[0]
    name = live.take(f"{leaf}.hook")
    gradient, given = f"{name}.gradient", twin(hook.parameter)
    if hook.after and standing is None:
        raise UnsupportedError(
            f"parameter {hook.path!r}: no rule for register_post_accumulate_grad_hook (an optimizer in backward) in a module alone: give"
            " the whole step to memest.step"
        )
    with recorder.apart() as layers, backward_mode():
        live.follow(given, gradient, Value(entry.value.spec, recorder.machine.ledger.resident(0, "", gradient)), grad=False)
        if hook.after and standing is not None:
            before = standing.get(leaf)
            standing[leaf] = given
            hook.function(hook.parameter)
            standing.pop(leaf, None)
            standing.update({} if before is None else {leaf: before})
            found = None
        else:
            found = hook.function(given)
        result = None if found is None else live.known(found).names[-1]
        played = tuple([replace(layer, drops=tuple(gone)) for layer, gone in zip(layers, live.drops, strict=True)])
        del given, found
    live.check_gone(played, [gradient], f"a hook on the parameter {hook.path!r}")
    own = {p.name for p in live.parameters}
    known = {gradient, *own, *(n for layer in played for n in layer.outputs)}
    if any(n not in known for layer in played for n in layer.reads):
        raise recorder.refusal(
            f"the hook on the parameter {hook.path!r}, which reads a tensor of elsewhere:"
            " give the whole step to memest.step, or let it read its gradient alone"
        )
    made = Backward(saved=(), kept=(), gradients=(gradient,), layers=played, results=(result,), differentiable=(True,), materialized=False)
    return LeafHook(parameter=leaf, after=hook.after, backward=recorder.switches.told(made))
