"""A network as tools see it that walk its modules: which modules are called, in which order, what each gives and what each owns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from memest.network.graph import Parameter
from memest.network.tensor import Shape, nbytes, numel


@dataclass(frozen=True, slots=True)
class Made:
    """A tensor that a module gives."""

    shape: Shape
    dtype: str

    @property
    def nbytes(self) -> int:
        """Its bytes, were it dense."""
        return nbytes(self.shape, self.dtype)


Result = Any
"""What a module gives: a :class:`Made`, a tuple of results (of a list or tuple), a dict of them by name, or None for anything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleCall:
    """One call of a module. ``leaf``: it has no (true) module inside; ``container``: it is a Sequential or a ModuleList. ``weight`` and
    ``bias`` count the elements of what it has by these names (None: nothing of a size). ``positional``: its first argument is a tensor."""

    path: str
    leaf: bool
    container: bool
    result: Result
    weight: int | None = None
    bias: int | None = None
    positional: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Modules:
    """The modules of a network: each path with the names of its own ``parameters`` and buffers, shared ones by their first name; and the
    calls of one forward in ``eval()``, and in the mode that the network was given in (None: who asks for it gets ``no_calls`` as a reason).
    ``held`` is what Python's own object takes around the memory of a tensor."""

    name: str
    inputs: tuple[tuple[str, Made], ...]
    own: Mapping[str, tuple[str, ...]]
    tensors: Mapping[str, Parameter]
    calls: tuple[ModuleCall, ...]
    calls_as_given: tuple[ModuleCall, ...] | None
    no_calls: str = ""
    held: int = 0

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Its parameters, each once."""
        return tuple(p for p in self.tensors.values() if not p.buffer)

    @property
    def buffers(self) -> tuple[Parameter, ...]:
        """Its buffers, each once."""
        return tuple(p for p in self.tensors.values() if p.buffer)

    def own_parameters(self, path: str) -> list[Parameter]:
        """Those registered on the module at ``path`` itself."""
        return [self.tensors[n] for n in dict.fromkeys(self.own.get(path, ())) if not self.tensors[n].buffer]

    def module_of(self, layer: str) -> str:
        """The path of the innermost module that a layer of the recorded graph is a call of, or in."""
        path = layer
        while path and path not in self.own:
            head, _, number = path.rpartition("_")
            path = head if number.isdigit() and head in self.own else path.rpartition(".")[0]
        return path


def sizes(tensors: Iterator[Parameter] | tuple[Parameter, ...] | list[Parameter]) -> int:
    """Elements of all together."""
    return sum(numel(p.shape) for p in tensors)


def weight(tensors: Iterator[Parameter] | tuple[Parameter, ...] | list[Parameter]) -> int:
    """Bytes of all together."""
    return sum(nbytes(p.shape, p.dtype) for p in tensors)


def made_in(result: Result) -> Iterator[Made]:
    """Every tensor in a result."""
    if isinstance(result, Made):
        yield result
    elif isinstance(result, tuple | dict):
        for part in result.values() if isinstance(result, dict) else result:
            yield from made_in(part)
