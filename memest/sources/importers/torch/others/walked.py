"""The calls of a module's modules, as hooks see them (torchinfo, torchsummary): one forward on meta tensors, without gradients."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from memest.errors import MemestError
from memest.network.graph import Parameter
from memest.network.modules import Made, ModuleCall, Modules, Result
from memest.sources.assumptions import Assumptions
from memest.sources.importers.torch.inputs import ModuleCall as Call
from memest.sources.importers.torch.network import _ONE_AT_A_TIME, _in_eval_mode, _Recordings
from memest.sources.importers.torch.tensors.described import dtype_of
from memest.sources.importers.torch.tensors.state import Owned
from memest.sources.importers.torch.wrappers import unwrapped


def modules_of(module: Any, example: Any, *, name: str | None = None) -> Modules:
    """The modules of a network and their calls with ``example``, as :func:`memest.from_torch` takes it. Raises what that raises."""
    module, _ = unwrapped(module)
    owned = Owned(module)
    call = Call(module, example)
    names = {id(t): path for path, t in owned.tensors}
    own = {path: tuple(names[id(t)] for t in (*m._parameters.values(), *m._buffers.values()) if t is not None) for path, m in owned.modules}
    tensors = {
        path: Parameter(
            name=path,
            shape=tuple(t.shape),
            dtype=dtype_of(t),
            trainable=t.requires_grad,
            buffer=not isinstance(t, nn.Parameter),
        )
        for path, t in owned.tensors
    }
    with _ONE_AT_A_TIME:
        with _in_eval_mode(module):
            calls = _Walk(module, owned).taken(call, name or type(module).__name__)
        as_given: tuple[ModuleCall, ...] | None = calls
        reason = ""
        if module.training:
            try:
                as_given = _Walk(module, owned).taken(call, name or type(module).__name__)
            except MemestError as e:
                as_given, reason = None, str(e)
    return Modules(
        name=name or type(module).__name__,
        inputs=tuple((n, Made(tuple(t.shape), dtype_of(t))) for n, t in call.inputs.items()),
        own=own,
        tensors=tensors,
        calls=calls,
        calls_as_given=as_given,
        no_calls=reason,
        held=sys.getsizeof(torch.UntypedStorage(0)),
    )


class _Walk:
    """Hooks on every module, for one forward."""

    def __init__(self, module: nn.Module, owned: Owned) -> None:
        self._module = module
        self._paths = {id(m): path for path, m in owned.modules}
        self._modules = [m for _, m in owned.modules]
        self._calls: list[ModuleCall] = []

    def taken(self, call: Call, name: str) -> tuple[ModuleCall, ...]:
        """The calls, in the order in which they end."""
        first = self._module.register_forward_pre_hook(lambda *_: self._calls.clear())
        handles = [first, *(m.register_forward_hook(self._ended) for m in self._modules)]
        try:
            _Recordings(self._module, call, name, Assumptions(None)).at_this_size()
        finally:
            for handle in handles:
                handle.remove()
        return tuple(self._calls)

    def _ended(self, module: nn.Module, given: Any, result: Any) -> None:
        with torch._C.DisableTorchFunction():
            self._calls.append(
                ModuleCall(
                    path=self._paths[id(module)],
                    leaf=not any(module.children()),
                    container=isinstance(module, nn.Sequential | nn.ModuleList),
                    result=_result(result),
                    weight=_count(getattr(module, "weight", None)),
                    bias=_count(getattr(module, "bias", None)),
                    positional=bool(given) and isinstance(given[0], torch.Tensor),
                )
            )


def _result(value: Any) -> Result:
    if isinstance(value, torch.Tensor):
        return Made(tuple(map(int, value.shape)), dtype_of(value))
    if isinstance(value, Mapping):
        return {str(key): _result(item) for key, item in value.items()}
    return tuple(_result(item) for item in value) if isinstance(value, list | tuple) else None


def _count(value: Any) -> int | None:
    return int(value.numel()) if isinstance(value, torch.Tensor) else None
