"""The user's function as a call with its examples, and as a module whose forward is that call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any

import torch
from torch import nn

from memest.errors import UsageError
from memest.sources.importers.torch.inputs import Examples, filled, resized
from memest.sources.importers.torch.steps.own_optimizers import with_twins
from memest.sources.importers.torch.steps.recorder import StepRecorder
from memest.sources.importers.torch.steps.updates import instead
from memest.sources.importers.torch.surroundings import Surroundings


class Call:
    """The function with its examples."""

    def __init__(self, function: Any, examples: Sequence[Any]) -> None:
        self.examples = Examples()
        self._function = function
        self._arguments = [self.examples.taken(n, e) for n, e in zip(_argument_names(function, len(examples)), examples, strict=True)]

    def surroundings(self) -> Surroundings:
        """What the function works with besides."""
        return Surroundings(self._function, self.examples.others)

    def at(self, shapes: Mapping[str, tuple[int, ...]]) -> Call:
        """The same call with inputs of these shapes."""
        other = copy(self)
        other.examples = copy(self.examples)
        other.examples.inputs = resized(self.examples.inputs, shapes)
        return other

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> Any:
        """The function called with these in the places of its examples' tensors."""
        return self._function(*filled(self._arguments, inputs))


def _argument_names(function: Any, count: int) -> list[str]:
    """The names of the function's first arguments; UsageError where it does not take so many."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return [f"input{i or ''}" for i in range(count)]
    names: list[str] = []
    for p in parameters:
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
            names.append(p.name)
        elif p.kind is p.VAR_POSITIONAL:
            names += [f"{p.name}{i}" for i in range(count - len(names))]
    needed = sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    if not needed <= count <= len(names):
        takes = str(needed) if needed == len(names) else f"{needed} to {len(names)}"
        raise UsageError(f"{name_of(function)} takes {takes} arguments ({', '.join(names) or 'none'}), {count} given")
    return names[:count]


class Root(nn.Module):
    """The modules of a step as one, and the call of the function as its forward. Of one module alone the names are as they are."""

    recorder: StepRecorder

    def __init__(self, call: Call, found: Surroundings) -> None:
        super().__init__()
        self._call = call
        self.only: tuple[nn.Module, ...] = ()
        if len(found.modules) == 1:
            (module,) = found.modules.values()
            self.__dict__["only"] = (module,)
            self.__dict__.update(_modules=module._modules, _parameters=module._parameters, _buffers=module._buffers)
            return
        for name, module in found.modules.items():
            self._modules[name.replace(".", "_")] = module

    def forward(self, **inputs: torch.Tensor) -> Any:
        """One call of the function."""
        with instead(self.recorder.updates, self.recorder.grads.engine):
            self.recorder.begin(inputs, self._call.examples.wanting)
            with with_twins(self.recorder.found.optimizers, self.recorder.found.trained):
                result = self._call(inputs)
            self.recorder.end()
        return result


def name_of(function: Any) -> str:
    """What a step is called that nobody gives a name."""
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__name__", None) or type(function).__name__)
