"""Who runs: the modules of a network, and torch's functions that are written in Python, told at the cost of a call.

A hook on all modules would tell of modules, too, but makes torch call each in the long way of those that have hooks of their own; and what
torch's functions in Python do for a mode that watches costs more than what most of them do. So both are cut short where torch's long way
comes to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FunctionType
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.modules import module as of_all

from memest.sources.importers.torch.contexts.loading import torch_loads_without

HANDING = (nn.functional, torch.functional, torch._tensor)
"""torch's modules whose functions hand themselves on to a mode by ``handle_torch_function``."""


class Listener(Protocol):
    """Who is told."""

    def enter_module(self, module: nn.Module) -> None:
        """``module`` is called."""

    def leave_module(self, module: nn.Module) -> None:
        """``module`` returns."""

    def enter_function(self, function: FunctionType, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a function of torch gives that hands itself on; NotImplemented where it has to do so in torch's own way."""


@contextmanager
def telling(listener: Callable[[], Listener | None]) -> Iterator[None]:
    """This thread's ``listener`` is told which modules run and which of torch's functions."""
    hooks = [
        of_all.register_module_forward_pre_hook(_entering(listener)),
        of_all.register_module_forward_hook(_leaving(listener)),
    ]
    own = [(nn.Module, "_call_impl", nn.Module._call_impl, _calling(nn.Module._call_impl, listener))]
    own += [(m, "handle_torch_function", m.handle_torch_function, _handing(m.handle_torch_function, listener)) for m in HANDING]

    def away() -> None:
        for owner, name, original, _ in own:
            setattr(owner, name, original)

    def back() -> None:
        for owner, name, _, ours in own:
            setattr(owner, name, ours)

    with ExitStack() as stack:
        for hook in hooks:
            stack.callback(hook.remove)
        stack.callback(away)
        back()
        stack.enter_context(torch_loads_without(away, back))
        yield


def _entering(listener: Callable[[], Listener | None]) -> Callable[..., None]:
    def enter(module: nn.Module, _: Any) -> None:
        told = listener()
        if told is not None:
            told.enter_module(module)

    return enter


def _leaving(listener: Callable[[], Listener | None]) -> Callable[..., None]:
    def leave(module: nn.Module, _: Any, __: Any) -> None:
        told = listener()
        if told is not None:
            told.leave_module(module)

    return leave


def _calling(original: Callable[..., Any], listener: Callable[[], Listener | None]) -> Callable[..., Any]:
    """``Module._call_impl``: a module without hooks, where nobody but us has hooks on all, is only told of (torch/nn/modules/module.py)."""
    before, after = of_all._global_forward_pre_hooks, of_all._global_forward_hooks
    in_backward, before_backward = of_all._global_backward_hooks, of_all._global_backward_pre_hooks

    def _call_impl(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        told = listener()
        if (
            told is None
            or (self._forward_pre_hooks or self._forward_hooks or self._backward_hooks or self._backward_pre_hooks)
            or (len(before) > 1 or len(after) > 1 or in_backward or before_backward or torch._C._get_tracing_state())
        ):
            return original(self, *args, **kwargs)
        told.enter_module(self)
        result = self.forward(*args, **kwargs)
        told.leave_module(self)
        return result

    return _call_impl


def _handing(original: Callable[..., Any], listener: Callable[[], Listener | None]) -> Callable[..., Any]:
    """``handle_torch_function`` where the mode that it would ask is the listener (torch/overrides.py)."""

    def handle_torch_function(public_api: Any, relevant_args: Any, *args: Any, **kwargs: Any) -> Any:
        told: Any = listener()
        if told is not None and torch._C._get_function_stack_at(torch._C._len_torch_function_stack() - 1) is told:
            result = told.enter_function(public_api, args, kwargs)
            if result is not NotImplemented:
                return result
        return original(public_api, relevant_args, *args, **kwargs)

    return handle_torch_function
