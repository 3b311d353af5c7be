"""What stands around the calls of a forward and changes what autograd does to them: who is told, and what is refused.

``watching`` tells a recorder which module runs, when a checkpointed function begins and ends, and when a custom autograd function is
applied. It replaces functions of torch while a forward is recorded, for the recording thread alone: other threads get torch's own.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Protocol

import torch
import torch.utils.checkpoint
from torch import nn
from torch.autograd.function import _SingleLevelFunction

from memest.errors import UnsupportedError
from memest.network.graph import Checkpoint
from memest.sources.importers.torch.contexts import autocasting as autocasting
from memest.sources.importers.torch.contexts import cards as cards
from memest.sources.importers.torch.contexts import constructors as constructors
from memest.sources.importers.torch.contexts import entering as entering
from memest.sources.importers.torch.contexts import generators as generators
from memest.sources.importers.torch.contexts import module_hooks as module_hooks
from memest.sources.importers.torch.contexts import packing as packing
from memest.sources.importers.torch.contexts import parameters as parameters
from memest.sources.importers.torch.contexts import switching as switching
from memest.sources.importers.torch.contexts.checkpoints import EARLY_STOP
from memest.sources.importers.torch.contexts.selecting import policy_of
from memest.sources.importers.torch.tensors.state import Owned


class Listener(
    autocasting.Listener, cards.Listener, entering.Listener, packing.Listener, switching.Listener, module_hooks.Recorder, Protocol
):
    """What a recorder is told."""

    def begin_checkpoint(self, arguments: Any, named: Any, call: Checkpoint, policy: Callable[..., Any] | None) -> None:
        """A function begins that ``torch.utils.checkpoint`` wraps, with these arguments and others by name; the ``policy`` is that of a
        selective one."""

    def end_checkpoint(self) -> None:
        """It returns."""

    def apply(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        """The result of ``function.apply(*arguments)``, a subclass of ``torch.autograd.Function``."""

    def refusal(self, what: str) -> UnsupportedError:
        """The error that says that ``what`` has no rule, with the place."""


_here = threading.local()


def _listener() -> Listener | None:
    listener: Listener | None = getattr(_here, "listener", None)
    return listener


@contextmanager
def watching(listener: Listener, gradients: bool) -> Iterator[None]:
    """``listener`` is told what happens in this thread; ``gradients`` says whether the forward runs with them. One forward is recorded at
    a time: the caller sees to that."""
    _here.hooks = _saved_tensors_hooks()
    with ExitStack() as stack:
        stack.enter_context(_listening(None))  # these contexts are ours, not the forward's
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.autocast("cpu", enabled=False))
        stack.enter_context(torch.set_grad_enabled(gradients))
        stack.enter_context(prepared())
        stack.enter_context(_listening(listener))
        yield


@contextmanager
def _listening(listener: Listener | None) -> Iterator[None]:
    """Who is told in this thread."""
    outer, _here.listener = _listener(), listener
    try:
        yield
    finally:
        _here.listener = outer


@contextmanager
def prepared() -> Iterator[None]:
    """Whoever listens in this thread is told until here; to do so once for many forwards costs one."""
    if getattr(_here, "prepared", False):
        yield
        return
    _here.prepared = True
    try:
        with ExitStack() as stack:
            stack.enter_context(_replaced())
            stack.enter_context(constructors.seen())
            for kind in (entering, autocasting, cards, packing, module_hooks, generators, parameters, switching):
                stack.enter_context(kind.telling(_listener))
            yield
    finally:
        _here.prepared = False


@contextmanager
def _replaced() -> Iterator[None]:
    """torch's functions with ours in their place: the fast paths' question, contexts of functions, checkpoints."""
    honest, contexts = torch.overrides.has_torch_function, torch.autograd.function.BackwardCFunction
    generators = {name: getattr(torch.utils.checkpoint, name) for name in GENERATORS if hasattr(torch.utils.checkpoint, name)}
    of_several = torch.overrides.has_torch_function_variadic
    torch.overrides.has_torch_function = lambda values: _listener() is None and honest(values)
    torch.overrides.has_torch_function_variadic = lambda *values: _listener() is None and of_several(*values)
    contexts.__init__ = _begin_function
    for name, original in generators.items():
        setattr(torch.utils.checkpoint, name, _checkpointing(original))
    try:
        yield
    finally:
        for name, original in generators.items():
            setattr(torch.utils.checkpoint, name, original)
        del contexts.__init__
        torch.overrides.has_torch_function, torch.overrides.has_torch_function_variadic = honest, of_several


# checkpoints --------------------------------------------------------------------------------------------------------------

GENERATORS = ("_checkpoint_without_reentrant_generator_impl", "_checkpoint_without_reentrant_generator")
"""The part of ``torch.utils.checkpoint`` that runs before and after a wrapped function, by its names in torch 2.1 to 2.14 (from 2.14 on
the second only calls the first)."""


def _checkpointing(original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    def around(*positional: Any, **named: Any) -> Iterator[None]:
        listener = _listener()
        if listener is None:
            yield from original(*positional, **named)
            return
        given = signature.bind(*positional, **named)
        given.apply_defaults()
        called, policy = _checkpoint(listener, given.arguments)
        listener.begin_checkpoint(given.arguments["args"], given.arguments["kwargs"], called, policy)
        yield
        listener.end_checkpoint()

    return around


def _checkpoint(listener: Listener, given: dict[str, Any]) -> tuple[Checkpoint, Callable[..., Any] | None]:
    """How a checkpoint is called, and the policy of a selective one; options are refused that change what is kept in a way that is not
    modelled."""
    checkpoint = "torch.utils.checkpoint with"
    around = given.get("context_fn", torch.utils.checkpoint.noop_context_fn)
    policy, mutable = None, False
    if around is not torch.utils.checkpoint.noop_context_fn:
        contexts = around()
        found = policy_of(contexts)
        if found is not None and torch.is_grad_enabled():  # else torch enters none
            policy, mutable = found
        elif found is None and any(type(c) is not nullcontext for c in contexts):
            raise listener.refusal(f"{checkpoint} a context_fn of contexts of its own; create_selective_checkpoint_contexts is modelled")
    switched = getattr(torch.utils.checkpoint, EARLY_STOP, None)
    if given.get("debug") or getattr(torch.utils.checkpoint, "_checkpoint_debug_enabled", None):
        raise listener.refusal(f"{checkpoint} debug=True: leave it out")
    early_stop = given.get("early_stop", True) if switched is None else switched
    state = bool(given.get("preserve_rng_state", True))
    called = Checkpoint(
        preserve_rng_state=state,
        early_stop=bool(early_stop),
        selective=policy is not None,
        allow_cache_entry_mutation=mutable,
        grad=torch.is_grad_enabled(),
    )
    return called, policy


# custom functions ---------------------------------------------------------------------------------------------------------


def _begin_function(context: Any, *_: Any) -> None:
    """torch makes the context of every function that it applies (``apply`` may be one that somebody took before the recording began), and
    then calls ``forward``: for this once, ours."""
    listener = _listener()
    if listener is None:
        return
    function, gradients = type(context)._forward_cls, torch.is_grad_enabled()
    apart = function.setup_context is not _SingleLevelFunction.setup_context
    own = {name: function.__dict__.get(name) for name in ("forward", "setup_context")}

    def put_back(name: str) -> None:
        if own[name] is None:
            delattr(function, name)
        else:
            setattr(function, name, own[name])

    def forward(*given: Any) -> Any:
        put_back("forward")
        arguments = given if apart else given[1:]
        with switching.backward_mode(gradients):
            result = listener.apply(function, arguments)
        if apart:
            function.setup_context = staticmethod(lambda *_: put_back("setup_context"))  # it has run
        returned = result if isinstance(result, tuple) else (result,)
        context.mark_dirty(*[t for t in returned if isinstance(t, torch.Tensor) and any(t is a for a in arguments)])
        return result

    function.forward = staticmethod(forward)


# attention ----------------------------------------------------------------------------------------------------------------

BACKENDS = {"flash": "flash", "efficient": "mem_efficient", "math": "math", "cudnn": "cudnn"}
"""Kernels of scaled dot product attention as rows name them, and as torch's switches (``torch.backends.cuda``) do."""
USUAL_ORDERS = ([1, 2, 0, 3, 4], [3, 1, 2, 0, 4])
"""torch's own orders of preference (``SDPBackend``'s numbers), here and where cuDNN is preferred."""


def attention_switches() -> tuple[tuple[str, ...], list[int]]:
    """The kernels that are switched on, and the order in which torch prefers them."""
    allowed = tuple(name for name, switch in BACKENDS.items() if getattr(torch.backends.cuda, f"{switch}_sdp_enabled", lambda: True)())
    return allowed, torch._C._get_sdp_priority_order() if hasattr(torch._C, "_get_sdp_priority_order") else USUAL_ORDERS[0]


def attention_backends() -> tuple[str, ...] | None:
    """The kernels that ``torch.nn.attention.sdpa_kernel`` or switches of ``torch.backends.cuda`` leave to choose from; None where all are
    there. UnsupportedError for an order of preference among several."""
    allowed, order = attention_switches()
    if order not in USUAL_ORDERS and len(allowed) > 1:
        raise UnsupportedError("no rule for sdpa_kernel(..., set_priority=True) with several backends: name the one that shall run")
    return None if len(allowed) == len(BACKENDS) else allowed


# what is asked before the call, and at every call ----------------------------------------------------------------------


def check_hooks(owned: Owned) -> None:
    """Refuse hooks that stand on modules and run in backward."""
    anywhere = nn.modules.module
    if anywhere._global_backward_hooks or anywhere._global_backward_pre_hooks:
        raise UnsupportedError(
            "no rule for a backward hook of all modules (register_module_full_backward_hook):"
            " hook the modules that are meant (register_full_backward_hook)"
        )
    for path, m in owned.modules:
        if m._backward_hooks and not m._is_full_backward_hook:
            raise UnsupportedError(
                f"module {path or type(m).__name__!r}: no rule for the old kind of backward hook (register_backward_hook):"
                " register_full_backward_hook is modelled"
            )


def check_autograd(listener: Listener, gradients: bool, casts: bool) -> None:
    """Refuse a call that stands in a context that is not modelled. ``casts``: a context of ``torch.autocast`` is known to be on."""
    if switching.autocast_on("cpu") != casts:
        raise listener.refusal("torch.set_autocast_enabled in forward (torch.autocast is modelled)")
    if gradients and _saved_tensors_hooks() != _here.hooks:
        raise listener.refusal("hooks of saved tensors that are pushed past torch.autograd.graph.saved_tensors_hooks: use that context")


def _saved_tensors_hooks() -> Any:
    """The pair of hooks in force, or None."""
    return torch._C._autograd._top_saved_tensors_default_hooks(False)
