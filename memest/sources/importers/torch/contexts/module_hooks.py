"""Hooks of modules that run in backward: ``register_full_backward_hook`` and ``register_full_backward_pre_hook``.

torch puts a function that changes nothing around the module's inputs and another around its outputs. The gradients of the outputs are kept
from the one to the other, where the hooks see them with those of the inputs: what a hook does is written down with these functions.

Source: torch/utils/hooks.py (BackwardHook), torch/nn/modules/_functions.py (BackwardHookFunction).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import nn
from torch.autograd.function import _SingleLevelFunction
from torch.utils.hooks import BackwardHook

from memest.errors import UnsupportedError
from memest.network.graph import BACKWARD_HOOK, Layer, LeafHook
from memest.network.tensor import Spec
from memest.runtimes.torch.autograd import Machine
from memest.runtimes.torch.ledger import Value
from memest.runtimes.torch.step.run import Run
from memest.sources.importers.torch.contexts.late import Late, run_now
from memest.sources.importers.torch.contexts.switching import Switches, backward_mode
from memest.sources.importers.torch.refusals import defined_at
from memest.sources.importers.torch.tensors.described import like
from memest.sources.importers.torch.tensors.live import LiveTensors


class Recorder(Protocol):
    """What is asked of the recorder."""

    live: LiveTensors
    layers: list[Layer]
    hooks: tuple[LeafHook, ...]
    machine: Machine
    switches: Switches

    @property
    def late(self) -> Late | None:
        """The hooks that wait for the engine, where they do here."""

    def shadow(self) -> Run | None:
        """The run that plays all layers as they come, where there is one."""

    def differentiates(self) -> None:
        """This recording is held against no other call by call."""

    def apart(self) -> AbstractContextManager[list[Layer]]:
        """Calls that run at another time."""

    def apply(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        """The result of ``function.apply(*arguments)``."""

    def enter_module(self, module: nn.Module) -> None:
        """``module`` is called."""

    def leave_module(self, module: nn.Module) -> None:
        """``module`` returns."""

    def refusal(self, what: str) -> UnsupportedError:
        """The error that says that ``what`` has no rule, with the place."""


@contextmanager
def telling(listener: Callable[[], Recorder | None]) -> Iterator[None]:
    """The hooks of modules that are called are told to this thread's ``listener``."""
    before, after = BackwardHook.setup_input_hook, BackwardHook.setup_output_hook

    def inputs(self: Any, args: Any) -> Any:
        told = listener()
        return before(self, args) if told is None else _around_inputs(told, self, args)

    def outputs(self: Any, result: Any) -> Any:
        told = listener()
        return after(self, result) if told is None else _around_outputs(told, self, result)

    BackwardHook.setup_input_hook, BackwardHook.setup_output_hook = inputs, outputs
    try:
        yield
    finally:
        BackwardHook.setup_input_hook, BackwardHook.setup_output_hook = before, after


class _Around:
    """The function around tensors: ``run`` gets their gradients and gives those that go on. ``all_come``: what it does where one does not
    come is not recorded. ``title`` is what it is to the user."""

    setup_context = staticmethod(_SingleLevelFunction.setup_context)
    __name__ = BACKWARD_HOOK

    def __init__(self, run: Callable[[Sequence[Any]], Sequence[Any]], title: str, *, all_come: bool = False) -> None:
        self._run, self.title, self.all_come = run, title, all_come

    def forward(self, ctx: Any, *tensors: Any) -> Any:
        """The tensors as they are."""
        ctx.mark_non_differentiable(*[t for t in tensors if not t.requires_grad])
        ctx.set_materialize_grads(not self.all_come)
        return tensors

    def backward(self, ctx: Any, *gradients: Any) -> Any:
        """The gradients that go on."""
        return tuple(self._run(gradients))


def _title(hook: Any) -> str:
    """The hooks, and where they are written."""
    return f"a full backward hook of a module{''.join(map(defined_at, (*hook.user_hooks, *hook.user_pre_hooks)))}"


def _places(args: Sequence[Any]) -> list[int]:
    """Where the tensors are, if a gradient reaches any."""
    found = [i for i, a in enumerate(args) if isinstance(a, torch.Tensor)]
    return found if torch.is_grad_enabled() and any(args[i].requires_grad for i in found) else []


def _with(args: Any, places: Sequence[int], tensors: Sequence[Any]) -> tuple[Any, ...]:
    given = dict(zip(places, tensors, strict=True))
    return tuple([given.get(i, a) for i, a in enumerate(args)])


def _around_inputs(recorder: Recorder, hook: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    places = _places(args)
    hook.n_inputs, hook.input_tensors_index = len(args), places or None
    if not places:
        return args
    made = recorder.apply(_Around(lambda gradients: gradients, _title(hook)), tuple([args[i] for i in places]))
    hook.memest_inputs = recorder.layers[-1].name, [recorder.live.known(t).value.spec for t in made]
    return _with(args, places, made)


def _around_outputs(recorder: Recorder, hook: Any, result: Any) -> Any:
    args = result if isinstance(result, tuple) else (result,)
    places = _places(args)
    hook.n_outputs, hook.output_tensors_index = len(args), places or None
    if not places:
        return result

    def run(gradients: Sequence[Any]) -> Sequence[Any]:
        whole = hook._pack_with_none(places, gradients, hook.n_outputs)
        for pre_hook in hook.user_pre_hooks:
            whole = pre_hook(hook.module, whole) or whole
        if hook.input_tensors_index is None:
            for user_hook in hook.user_hooks:
                user_hook(hook.module, (None,) * hook.n_inputs, whole)
        return [whole[i] for i in places]

    recorder.enter_module(hook.module)  # it has returned, but this is still its own
    late = recorder.late
    try:
        around = _Around(run if late is None else _nothing, _title(hook), all_come=True)
        made = recorder.apply(around, tuple([args[i] for i in places]))
    finally:
        recorder.leave_module(hook.module)
    specs = [recorder.live.known(t).value.spec for t in made]
    if late is not None:
        _wait(recorder, late, run, specs)
    if hook.input_tensors_index is not None:
        _join(recorder, hook, len(args), places, specs)
    return _with(args, places, made) if isinstance(result, tuple) else made[0]


def _nothing(gradients: Sequence[Any]) -> Sequence[Any]:
    """The gradients as they are."""
    return gradients


def _wait(recorder: Recorder, late: Late, run: Callable[[Sequence[Any]], Sequence[Any]], specs: Sequence[Spec]) -> None:
    """The last layer is the function around the outputs: what ``run`` does is recorded when the engine comes to it."""
    layer = recorder.layers[-1]
    known = layer.backward
    assert known is not None
    given = [(name, spec) for name, spec in zip(known.gradients, specs, strict=True) if name is not None]
    late.wait(layer.name, lambda: run_now(recorder, given, run, known, holds=False))


def _join(recorder: Recorder, hook: Any, count: int, places: Sequence[int], specs: Sequence[Spec]) -> None:
    """The hooks run around the inputs, with the gradients that the function around the outputs, the last layer, keeps for them."""
    live, lender = recorder.live, recorder.layers[-1]
    name, of_inputs = hook.memest_inputs
    at = next((i for i, layer in enumerate(recorder.layers) if layer.name == name), None)
    if at is None or lender.backward is None:
        raise recorder.refusal("a full backward hook of a module that is called inside a custom function or a hook: take the hook off")
    outer = recorder.layers[at]
    backward = outer.backward
    assert backward is not None
    come = [i for i, r in enumerate(lender.backward.results) if r is not None]
    places, specs = [places[i] for i in come], [specs[i] for i in come]
    lent = tuple([f"{lender.name}.lent{i or ''}" for i in come])
    joined = replace(backward, lender=lender.name, lent=lent)

    def run(tensors: Sequence[Any]) -> Sequence[Any]:
        assert hook.input_tensors_index is not None
        whole = hook._pack_with_none(hook.input_tensors_index, tensors[: len(of_inputs)], hook.n_inputs)
        seen = hook._pack_with_none(places, tensors[len(of_inputs) :], count)
        for user_hook in hook.user_hooks:
            whole = user_hook(hook.module, whole, seen) or whole
        return [whole[i] for i in hook.input_tensors_index]

    if recorder.late is not None:
        come_in = [*zip(map(str, backward.gradients), of_inputs, strict=True), *zip(lent, specs, strict=True)]
        recorder.late.wait(outer.name, lambda: run_now(recorder, come_in, run, joined, holds=False))
        recorder.layers[at] = replace(outer, backward=joined)
        recorder.late.lends(lender.name)
        return
    with recorder.apart() as layers, backward_mode():
        gradients, outputs = (list(map(like, given)) for given in (of_inputs, specs))
        for t, given, spec in zip((*gradients, *outputs), (*backward.gradients, *lent), (*of_inputs, *specs), strict=True):
            live.follow(t, str(given), Value(spec, recorder.machine.ledger.resident(0, "", str(given))), grad=False)
        results = run([*gradients, *outputs])
        names = tuple([None if r is None else live.known(r).names[-1] for r in results])
        played = tuple([replace(layer, drops=tuple(gone)) for layer, gone in zip(layers, live.drops, strict=True)])
        del gradients, outputs, results, t
    live.check_gone(played, (*backward.gradients, *lent), _title(hook))
    recorder.layers[at] = replace(outer, backward=replace(joined, layers=played, results=names))
