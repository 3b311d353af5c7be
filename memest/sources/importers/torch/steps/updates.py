"""Optimizers in a step that is recorded, and what stands between backward and them: steps, zeroed gradients, clipping."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from threading import get_ident
from typing import Any

import torch
import torch.nn.utils.clip_grad as clipping
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.optim.swa_utils import AveragedModel

from memest.errors import MemestError, UnsupportedError
from memest.runtimes.torch.optimizers import OPTIMIZERS, described
from memest.sources.importers.torch.contexts.gradients import Gradients
from memest.sources.importers.torch.contexts.stage import Stage
from memest.sources.importers.torch.steps import lbfgs, own_optimizers
from memest.sources.importers.torch.steps.made_optimizers import MadeOptimizers

SAVED = "torch.save is passed over: nothing is written, and it allocates nothing"
BUILT_WITH_STATE = {name for name, row in OPTIMIZERS.items() if row.created == "constructor"}


class Updates:
    """The ``optimizers`` of one recording, and the parameters ``trained`` by them, group by group. ``texts`` are their descriptions, which
    a schedule of numbers does not change; ``note`` takes what a reader of the answer should know; ``evaluations`` are those of a line
    search."""

    def __init__(
        self,
        stage: Stage,
        gradients: Gradients,
        optimizers: Mapping[str, torch.optim.Optimizer],
        trained: Mapping[str, list[list[torch.Tensor]]],
        texts: dict[tuple[str, int], str],
        note: Callable[[str], None],
        evaluations: Callable[[], int],
    ) -> None:
        self._stage = stage
        self._gradients = gradients
        self._texts = texts
        self._homes = {name: groups[0][0] for name, groups in trained.items() if groups[0]}
        self.optimizers = optimizers
        self.refusal = stage.refusal
        self.note = note
        self.evaluations = evaluations
        self.made = MadeOptimizers(stage, note, evaluations)

    def optimizer_step(self, name: str, optimizer: torch.optim.Optimizer, closure: Any = None) -> Any:
        """``optimizer.step()``, group by group, after what a ``closure`` does, whose result it gives."""
        kind = type(optimizer)
        if own_optimizers.is_own(kind):
            kind = own_optimizers.torchs(kind) or kind
        if kind is torch.optim.LBFGS and closure is not None:
            return self._searched(name, optimizer, closure)
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        groups = optimizer.param_groups
        for i, group in enumerate(groups):
            try:
                text = self._texts.setdefault((name, i), described(kind.__name__, group))
            except MemestError as e:
                raise UnsupportedError(str(e)).at(self._stage.place()) from None
            given, others = (
                tuple(self._stage.live.known(p).names[0] for p in group["params"] if (self._gradients.of(p) is not None) == there)
                for there in (True, False)
            )
            if given or BUILT_WITH_STATE & {kind.__name__.lower()}:
                of = name if len(groups) == 1 else f"{name}.{i}"
                self._stage.act("optimizer_step", (given, others), optimizer=text, of=of)
        return result

    def own_step(self, optimizer: torch.optim.Optimizer, given: Any, named: Any) -> Any:
        """``optimizer.step(…)`` of one whose code is played."""
        return own_optimizers.code_of(type(optimizer))(optimizer, *given, **named)

    def begin_step(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        """``optimizer.step`` is called."""
        hooks = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
        if any(getattr(optimizer, h, None) for h in hooks):
            raise self._stage.refusal(f"a hook on the step of {name}: take it off, or call what it does in the step")
        optimizer._opt_called = True

    def _searched(self, name: str, optimizer: torch.optim.Optimizer, closure: Any) -> Any:
        """``LBFGS.step(closure)``."""
        (group,) = optimizer.param_groups
        self.note(lbfgs.ASSUMED.format(lbfgs.FULL, lbfgs.calls_of(group, self.evaluations() if group["line_search_fn"] else 1)))
        return lbfgs.search(optimizer, closure, self._homes[name])

    def zero_grad(self, optimizer: torch.optim.Optimizer, set_to_none: bool) -> None:
        """``optimizer.zero_grad()``."""
        for group in optimizer.param_groups:
            for p in group["params"]:
                if set_to_none:
                    self._gradients.put(p, None)
                elif (gradient := self._gradients.of(p)) is not None:
                    gradient.zero_()

    def average(self, update: Callable[[], None]) -> None:
        """``AveragedModel.update_parameters``, call by call as on a CPU."""
        self._stage.act("averaged_model", ())
        update()

    def total_norm(self, original: Any, tensors: Any, norm_type: Any, error_if_nonfinite: bool, foreach: Any) -> torch.Tensor:
        """``torch.nn.utils.get_total_norm``; of gradients in several dtypes it goes call by call."""
        tensors = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
        if not tensors or error_if_nonfinite or len({t.dtype for t in tensors}) > 1:
            found: torch.Tensor = original(tensors, norm_type, error_if_nonfinite, foreach)
            return found
        options: dict[str, Any] = {} if foreach is None else {"foreach": bool(foreach)}
        if float(norm_type) != 2.0:
            options["norm_type"] = float(norm_type)
        layer, ((_, value),) = self._stage.act("total_norm", (tuple(map(self._stage.called, tensors)),), **options)
        self._stage.layers[-1] = replace(layer, outputs=(layer.name,))
        return self._stage.made(layer.name, None, value)

    def scale_gradients(self, original: Any, parameters: Any, max_norm: Any, total_norm: torch.Tensor, foreach: Any) -> None:
        """``torch.nn.utils.clip_grads_with_norm_``."""
        parameters = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
        dtypes = {g.dtype for g in (p.grad for p in parameters) if g is not None}
        if dtypes == {total_norm.dtype}:
            scaled = tuple(self._stage.called(g) for p in parameters if (g := p.grad) is not None)
            self._stage.act("scale_gradients", ((self._stage.called(total_norm),), scaled))
        else:
            original(parameters, max_norm, total_norm, foreach)


@contextmanager
def instead(updates: Updates, engine: Callable[..., Any]) -> Iterator[None]:
    """The methods of the optimizers that were found, and the functions of torch that its calls do not tell of, tell of themselves;
    ``engine`` runs in the place of autograd's. In other threads torch's functions are as they were."""
    here = get_ident()
    with ExitStack() as stack:
        for name, optimizer in updates.optimizers.items():
            optimizer.__dict__["step"] = _stepping(updates, name, optimizer)
            optimizer.__dict__["zero_grad"] = _zeroing(updates, optimizer)
        kinds = {base for o in updates.optimizers.values() if (base := own_optimizers.torchs(type(o))) and own_optimizers.is_own(type(o))}
        for kind in kinds:
            stack.enter_context(_replaced(kind, "step", lambda original: _inherited(updates, original)))
        stack.enter_context(_replaced(torch.autograd, "_engine_run_backward", lambda original: _engine(engine)))
        for name, method in (("_get_total_norm", _norm), ("_clip_grads_with_norm_", _scaling)):
            if hasattr(clipping, name):
                stack.enter_context(_replaced(clipping, name, lambda original, method=method: method(updates, original)))
        stack.enter_context(_replaced(torch, "save", lambda original: lambda *_, **__: updates.note(SAVED)))
        stack.enter_context(_replaced(AveragedModel, "update_parameters", lambda original: _averaging(updates, original)))

        def stepping(optimizer: Any, *_: Any) -> None:
            if get_ident() != here or any(optimizer is o for o in updates.optimizers.values()):  # of ours it is the class above's
                return
            updates.made.begin(optimizer)

        hook = register_optimizer_step_pre_hook(stepping)
        stack.callback(hook.remove)
        yield


@contextmanager
def _replaced(home: Any, name: str, made: Any) -> Iterator[None]:
    original, here = getattr(home, name), get_ident()
    ours = made(original)

    def either(*positional: Any, **named: Any) -> Any:
        return (ours if get_ident() == here else original)(*positional, **named)

    setattr(home, name, either)
    try:
        yield
    finally:
        setattr(home, name, original)


def _averaging(updates: Updates, original: Any) -> Any:
    def update_parameters(average: AveragedModel, model: Any) -> None:
        updates.average(lambda: original(average, model))

    return update_parameters


def _stepping(updates: Updates, name: str, optimizer: torch.optim.Optimizer) -> Any:
    own = own_optimizers.is_own(type(optimizer))

    def step(*given: Any, **named: Any) -> Any:
        updates.begin_step(name, optimizer)
        return updates.own_step(optimizer, given, named) if own else updates.optimizer_step(name, optimizer, *given, **named)

    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]  # what a scheduler looks for
    return step


def _inherited(updates: Updates, original: Any) -> Any:
    """``super().step()`` of an optimizer of the user's own."""
    names = {id(o): name for name, o in updates.optimizers.items()}

    def step(optimizer: torch.optim.Optimizer, closure: Any = None) -> Any:
        name = names.get(id(optimizer))
        return original(optimizer, closure) if name is None else updates.optimizer_step(name, optimizer, closure)

    return step


def _zeroing(updates: Updates, optimizer: torch.optim.Optimizer) -> Any:
    def zero_grad(set_to_none: bool = True) -> None:
        updates.zero_grad(optimizer, set_to_none)

    return zero_grad


def _engine(engine: Callable[..., Any]) -> Any:
    def run(roots: Any, gradients: Any, keep: Any, create: Any, inputs: Any = (), *_: Any, accumulate_grad: bool = True, **__: Any) -> Any:
        return engine(roots, gradients, keep, create, inputs, accumulate=accumulate_grad)

    return run


def _norm(updates: Updates, original: Any) -> Any:
    def get_total_norm(tensors: Any, norm_type: Any = 2.0, error_if_nonfinite: bool = False, foreach: Any = None) -> torch.Tensor:
        return updates.total_norm(original, tensors, norm_type, error_if_nonfinite, foreach)

    return get_total_norm


def _scaling(updates: Updates, original: Any) -> Any:
    def clip_grads_with_norm_(parameters: Any, max_norm: Any, total_norm: torch.Tensor, foreach: Any = None) -> None:
        updates.scale_gradients(original, parameters, max_norm, total_norm, foreach)

    return clip_grads_with_norm_
