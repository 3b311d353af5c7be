"""What a module or a step is called with: the tensors among its examples as inputs by name, everything else as it stands.

An example is a tensor, a shape (whole numbers in a row) or a structure of them: lists, tuples, dicts, nested at will. A tensor inside is
called by its way in: ``images.1``, ``targets.0.boxes``. Numbers, texts, None and other objects are given to the call as they are.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
import torch
from torch import nn

from memest.errors import UnsupportedError, UsageError, kind_of
from memest.network.tensor import spec
from memest.sizes import asked
from memest.sources.importers.torch.tensors.described import dtype_of, layout_in_memory, like, like_example

_SHAPE = re.compile(r"\d+([xX\u00d7,]\d+)+", re.ASCII)


class Examples:
    """Examples taken one by one: ``inputs`` are meta tensors by name (``wanting`` those that require a gradient), ``others`` what is given
    as it is. One tensor given twice is one input."""

    def __init__(self, *, loose: bool = False) -> None:
        """``loose``: texts such as ``2x3x8x8`` and arrays of whole numbers are shapes, too."""
        self.inputs: dict[str, torch.Tensor] = {}
        self.others: dict[str, Any] = {}
        self.wanting: list[str] = []
        self._shapes: list[str] = []
        self._seen: list[tuple[torch.Tensor, _Place]] = []
        self._loose = loose

    def taken(self, name: str, example: Any) -> Any:
        """The example with a place for each tensor in it, named by ``name`` and the way to it."""
        if isinstance(example, torch.Tensor):
            if type(example) is not torch.Tensor and not isinstance(example, nn.Parameter):
                raise UnsupportedError(f"{name} is a {type(example).__name__}; give a plain tensor or a shape")
            again = next((place for t, place in self._seen if t is example), None)
            if again is not None:
                return again
            if example.requires_grad:
                self.wanting.append(name)
            self._seen.append((example, place := self._input(name, like_example(example))))
            return place
        if isinstance(example, asked.TypedShape):
            return self._input(name, torch.empty(example, dtype=getattr(torch, example.dtype), device="meta"))
        if self._is_shape(example):
            self._shapes.append(name)
            return self._input(name, torch.empty(asked.shape(example, name), device="meta"))
        if isinstance(example, Mapping):
            return _like(example, [(key, self.taken(f"{name}.{key}", e)) for key, e in example.items()])
        if isinstance(example, list | tuple):
            return _row_like(example, [self.taken(f"{name}.{i}", e) for i, e in enumerate(example)])
        self.others[name] = example
        return example

    def settle(self, modules: Iterable[nn.Module]) -> None:
        """Inputs given as shapes have the floating dtype of the modules' parameters, where they have one (``module.half()``)."""
        dtypes = {p.dtype for m in modules for p in m.parameters() if p.is_floating_point()}
        dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
        for name in self._shapes:
            self.inputs[name] = self.inputs[name].to(dtype)

    def _is_shape(self, example: Any) -> bool:
        if self._loose and isinstance(example, str):
            return _SHAPE.fullmatch(example) is not None
        in_a_row = asked.is_sequence(example) if self._loose else type(example) in (list, tuple, torch.Size)
        return in_a_row and len(example) > 0 and all(asked.whole(n) is not None for n in example)

    def _input(self, name: str, t: torch.Tensor) -> _Place:
        if name in self.inputs:
            raise UsageError(f"two of the examples are called {name!r}")
        self.inputs[name] = t
        return _Place(name)


class ModuleCall:
    """The call of a module with an example: a list is its arguments, a mapping its arguments by name, anything else its one argument.
    UsageError where there is no tensor and no shape in it."""

    def __init__(self, module: nn.Module, example: Any) -> None:
        taking = Examples(loose=True)
        self._module = module
        self._positional: list[Any] = []
        self._keywords: dict[str, Any] = {}
        if isinstance(example, Mapping):
            self._keywords = {str(key): taking.taken(str(key), e) for key, e in example.items()}
        elif asked.is_sequence(example) and len(example) and any(asked.whole(n) is None for n in example):
            self._positional = [taking.taken(f"input{i or ''}", e) for i, e in enumerate(example)]
        else:
            self._positional = [taking.taken("input", asked.shape(example, "example") if isinstance(example, str) else example)]
        if not taking.inputs:
            instead = ": give torch.from_numpy(example)" if isinstance(example, np.ndarray) else ""
            raise UsageError(f"example is a shape, a tensor, or lists, tuples and dicts of them, got {kind_of(example)}{instead}")
        taking.settle([module])
        self.inputs = taking.inputs

    @property
    def told(self) -> str:
        """What each argument of forward is given, in words."""
        try:
            names = list(inspect.signature(self._module.forward).parameters)
        except (TypeError, ValueError):
            names = []
        takes = f"forward takes {', '.join(names) or 'nothing'}; " if names or self._positional else ""
        names += [f"argument {i + 1}" for i in range(len(names), len(self._positional))]
        given = [*zip(names, self._positional, strict=False), *self._keywords.items()]
        each = "; a list of examples has one for each argument" * (len(self._positional) > 1)
        return f"{takes}given are {', '.join(f'{name} = {self._shown(a)}' for name, a in given)}{each}"

    def _shown(self, argument: Any) -> str:
        if isinstance(argument, _Place):
            return f"a tensor of {'x'.join(str(int(n)) for n in self.inputs[argument.name].shape)}"
        return f"a {type(argument).__name__}"

    def at(self, shapes: Mapping[str, tuple[int, ...]]) -> ModuleCall:
        """The same call with inputs of these shapes."""
        other = copy(self)
        other.inputs = resized(self.inputs, shapes)
        return other

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> Any:
        """The module's result with these in the places of the examples' tensors."""
        return self._module(*filled(self._positional, inputs), **filled(self._keywords, inputs))


def resized(inputs: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Inputs like these in other shapes."""
    return {name: like(spec(shapes[name], dtype_of(t), layout_in_memory(t, name))) for name, t in inputs.items()}


class _Place:
    """Where an input goes."""

    def __init__(self, name: str) -> None:
        self.name = name


def filled(argument: Any, inputs: Mapping[str, torch.Tensor]) -> Any:
    """An argument with inputs in their places; its lists and dicts are new ones."""
    if isinstance(argument, _Place):
        return inputs[argument.name]
    if isinstance(argument, Mapping):
        return _like(argument, [(key, filled(a, inputs)) for key, a in argument.items()])
    if isinstance(argument, list | tuple):
        return _row_like(argument, [filled(a, inputs) for a in argument])
    return argument


def _like(mapping: Mapping[Any, Any], items: list[tuple[Any, Any]]) -> Any:
    """A mapping of the same type, where that can be made of items."""
    try:
        return type(mapping)(items)  # type: ignore[call-arg]
    except Exception:
        return dict(items)


def _row_like(row: Sequence[Any], items: list[Any]) -> Any:
    """A list, a tuple or a named tuple of the same type."""
    kind: Any = type(row)
    if hasattr(kind, "_fields"):
        return kind(*items)
    return items if isinstance(row, list) else tuple(items)
