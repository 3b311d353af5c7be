"""What a forward asked of torch and what it got, call by call: enough to tell whether another run asks the same, and to answer it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from memest.memory.stream import Storage
from memest.network.graph import Layer
from memest.network.tensor import Spec
from memest.sizes.dims import Dim
from memest.sources.importers.torch.recording.repeats import Form, frozen
from memest.sources.importers.torch.tensors.live import LiveTensors

Name = str | tuple[Any, ...]
"""What a tensor is called; of one that nobody has seen, its sizes and dtype."""


_STR = frozenset({str})


class Asked(NamedTuple):
    """A call: the function, its arguments as a key (:func:`frozen`), and the names of the tensors in them."""

    function: Any
    given: Any
    names: tuple[Name, ...]

    @property
    def of_known(self) -> bool:
        """Whether all tensors in it are known."""
        return {*map(type, self.names)} <= _STR

    def like(self, other: Asked) -> bool:
        """Whether it is the same call, whatever numbers its sizes are."""
        return self.function == other.function and self.names == other.names and _alike(self.given, other.given)


class Made(NamedTuple):
    """A tensor in an answer: the name of the argument that it is (empty: a new one), and what is known of it from then on."""

    argument: Name
    spec: Spec
    storage: Storage
    grad: bool
    host: bool
    inference: bool


class Step(NamedTuple):
    """A call and its answer. Without a ``layer`` it was left to torch. ``container`` is the type that the ``items`` of the answer came in
    (None: it was one alone), where a number stands for a tensor. ``met`` are the names that tensors nobody had seen have got; ``outer`` is
    the call of a function of torch that comes to this one alone."""

    asked: Asked
    layer: Layer | None = None
    made: tuple[Made, ...] = ()
    container: type[Any] | None = None
    items: tuple[Any, ...] = ()
    met: tuple[str, ...] = ()
    outer: Asked | None = None


class Done(NamedTuple):
    """An action of a step, and the tensors it gave."""

    layer: Layer
    found: Sequence[tuple[str, Any]]


class Handle(NamedTuple):
    """A tensor made for what an action gave."""

    spec: Spec


Trace = list[Step | Layer | Done | Handle]
"""What a forward or a step did, in order; a layer alone is one that no call stands for."""


class Item(NamedTuple):
    """What stands in an answer that is no tensor."""

    value: Any


def complete(args: Sequence[Any], kwargs: dict[str, Any], besides: Any) -> Sequence[Any]:
    """All that a call goes by, in a row."""
    return (*args, kwargs, besides) if kwargs or besides is not None else args


def asked(live: LiveTensors, function: Any, call: Sequence[Any], form: Form | None = None) -> tuple[Asked, Sequence[torch.Tensor]]:
    """A call as it is about to be made, and the tensors in it; ``form`` is its form, where it has one."""
    if form is not None:
        return Asked(function, form.key[0], tuple([e.names[-1] for e in form.entries])), form.tensors
    tensors: list[torch.Tensor] = []
    given = frozen(call, tensors)
    if given is None:
        tensors.clear()
        given = _loosely(call, tensors)
    return Asked(function, given, tuple([_name(live, t) for t in tensors])), tensors


def answered(live: LiveTensors, what: Asked, tensors: Sequence[torch.Tensor], layer: Layer, produced: Any) -> Step:
    """The same with its answer."""
    alone = not isinstance(produced, tuple | list)
    made: list[Made] = []
    items: list[Any] = []
    for value in [produced] if alone else produced:
        if not isinstance(value, torch.Tensor):
            items.append(Item(value))
            continue
        entry = live.known(value)
        argument: Name = ""
        for t, name in zip(tensors, what.names, strict=True):
            if t is value:
                argument = name
                break
        items.append(len(made))
        made.append(Made(argument, entry.value.spec, entry.value.storage, entry.grad, entry.host, entry.inference))
    met: tuple[str, ...] = ()
    if not what.of_known:
        met = tuple([e.names[0] for t, n in zip(tensors, what.names, strict=True) if type(n) is tuple and (e := live.found(t)) is not None])
    return Step(what, layer, tuple(made), None if alone else type(produced), tuple(items), met)


def _name(live: LiveTensors, t: torch.Tensor) -> Name:
    entry = live.found(t)
    return (tuple(t.shape), t.dtype) if entry is None else entry.names[-1]


def _alike(given: Any, other: Any) -> bool:
    if given == other:
        return True
    if type(given) is not tuple or type(other) is not tuple or len(given) != len(other) or given[::2] != other[::2]:
        return False
    pairs = zip(given[::2], given[1::2], other[1::2], strict=True)
    return all(a[0] is b[0] if kind is Dim else _alike(a, b) for kind, a, b in pairs)


def _loosely(values: Sequence[Any], tensors: list[torch.Tensor]) -> tuple[Any, ...]:
    """A key for arguments that cannot all be one: of what is neither a number, a text nor a structure it has the type, and the sizes."""
    parts: list[Any] = []
    for value in values:
        known = frozen((value,), tensors)
        if known is not None:
            parts += known
        elif isinstance(value, dict):
            parts += (dict, _loosely((*map(str, value), *value.values()), tensors))
        elif isinstance(value, list | tuple | slice):
            inside = (value.start, value.stop, value.step) if isinstance(value, slice) else value
            parts += (type(value), _loosely(inside, tensors))
        else:
            parts += (type(value), (str, str(getattr(value, "shape", ""))))
    return tuple(parts)
