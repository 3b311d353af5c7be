"""Calls that repeat: what torch and our own row say of one holds for every call of the same function with arguments of the same form.

Equal blocks of a network so cost one, its recording in eval costs what differs there, and a network that is much like one before costs
little. What a call comes to follows from its form: the function of torch; numbers, flags and texts with their types; sizes with their
expressions; of each tensor its metadata, torch's and ours; and which tensors are one, are one value, or share memory. Where more may count,
nothing is remembered or looked up: a function or an argument of another kind (an array, a subclass of tensor), a tensor nobody has seen, a
dispatch mode around the call, a call that changes the metadata of its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import count
from types import BuiltinFunctionType, EllipsisType, FunctionType, MethodDescriptorType, MethodWrapperType, NoneType, WrapperDescriptorType
from typing import Any, NamedTuple

import torch
from torch import nn

from memest.memory.stream import Storage
from memest.network.graph import Items
from memest.network.tensor import Spec
from memest.ops.composite import Composite
from memest.ops.operator import Operator
from memest.ops.table import operator_named
from memest.runtimes.torch.ledger import Value
from memest.sizes.dims import Dim, Guard
from memest.sizes.remembering import Memo, Shelf
from memest.sources.importers.torch.recording.kinds import kind_of
from memest.sources.importers.torch.tensors.live import LiveTensors, Tracked

_TENSORS = frozenset({torch.Tensor, nn.Parameter})
_EQUAL_IS_SAME = frozenset({int, bool, str, NoneType, EllipsisType, torch.dtype, torch.layout, torch.memory_format, torch.device})
_SEQUENCES = frozenset({tuple, list, torch.Size})
_META = torch.device("meta")
_BUILT_IN = frozenset({BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType, MethodWrapperType})
_MOST = 8_192
_CALLS = Memo()
_COUNT = count()


Sizes = tuple[tuple[int, ...], tuple[int, ...]]
"""A shape and strides."""


class Form(NamedTuple):
    """A call's form as a key, and the tensors in its arguments, each once. ``call`` is what was asked for, ``metadata`` that of the tensors
    when it was."""

    key: Any
    call: Any
    metadata: Any
    tensors: list[torch.Tensor]
    entries: list[Tracked]


class _Made(NamedTuple):
    """A tensor that torch gives: the argument that it is (-1: a new one), and its metadata."""

    argument: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype


class Answer(NamedTuple):
    """What torch gives for a call: tensors, in a container where it is not one alone."""

    made: tuple[_Made, ...]
    container: type[Any] | None

    def again(self, tensors: Sequence[torch.Tensor]) -> Any:
        """The same for these arguments."""
        with torch._C.DisableTorchFunction():
            given = [
                tensors[argument] if argument >= 0 else torch.empty_strided(shape, strides, dtype=dtype, device=_META)
                for argument, shape, strides, dtype in self.made
            ]
        return given[0] if self.container is None else self.container(given) if given else None

    def is_one(self, sizes: Sizes) -> bool:
        """Whether it is one tensor of these sizes."""
        return self.container is None and len(self.made) == 1 and self.made[0][1:3] == sizes

    def of(self, sizes: Sizes) -> Answer:
        """The same, of one tensor, for a call that gives these sizes."""
        return Answer((self.made[0]._replace(shape=sizes[0], strides=sizes[1]),), None)


class _Found(NamedTuple):
    """A value that our row gives: the argument whose value it is (-1: a new one), and the one whose memory it is in (below 0: a new one;
    values that share it have one number)."""

    argument: int
    storage: int
    nbytes: int
    spec: Spec


class Known(NamedTuple):
    """What a call comes to. ``roles`` of the ``row`` number its tensors; ``mode`` is the module's, where the row asks for it."""

    row: Operator | Composite
    roles: tuple[int | tuple[int, ...] | None, ...]
    attributes: Items
    differentiable: bool
    guards: dict[Guard, None]
    mode: bool | None
    found: tuple[_Found, ...]
    answer: Answer

    def reads(self, entries: Sequence[Tracked]) -> list[Any]:
        """The entries by role."""
        return [None if r is None else entries[r] if isinstance(r, int) else [entries[i] for i in r] for r in self.roles]

    def values(self, entries: Sequence[Tracked]) -> list[Value]:
        """Our values of what torch gives."""
        values: list[Value] = []
        new: dict[int, Storage] = {}
        for argument, number, nbytes, spec in self.found:
            if argument >= 0:
                value = entries[argument].value
                value.spec = spec
            else:
                storage = entries[number].value.storage if number >= 0 else new.get(number)
                if storage is None:
                    storage = new[number] = Storage(0, nbytes, "", "", "", "")
                value = Value(spec, storage)
            values.append(value)
        return values


class Repeats:
    """What is known of calls, for one network."""

    def __init__(self) -> None:
        self._known: Shelf[Known] = _CALLS.shelf("known", _MOST)
        self._answers: Shelf[Answer] = _CALLS.shelf("answers", _MOST)
        self._kinds: Shelf[Answer] = _CALLS.shelf("kinds", _MOST)
        self._numbers: Shelf[int] = _CALLS.shelf("numbers", _MOST)
        self._specs: dict[int, tuple[int, Spec]] = {}

    def form(self, live: LiveTensors, function: Any, binding: Any, call: Sequence[Any], positional: int) -> Form | None:
        """The form of a ``call`` that ``binding`` turns into a row: its ``positional`` arguments, and what else it goes by; None where more
        may count."""
        if torch._C._len_torch_dispatch_stack() or not _is_torchs(function):
            return None
        tensors: list[torch.Tensor] = []
        given = frozen(call, tensors)
        if given is None:
            return None
        entries: list[Tracked] = []
        for t in tensors:
            entry = live.found(t)
            if entry is None:
                return None
            entries.append(entry)
        metadata = self._metadata(tensors, entries)
        key = (given, positional, metadata, _sharing(entries), function, binding, torch.get_default_dtype())
        return Form(key, call, metadata, tensors, entries)

    def known(self, form: Form | None, mode: bool) -> Known | None:
        """What a call of this form comes to when the module is in this mode."""
        found = None if form is None else self._known.get(form.key)
        return found if found is not None and found.mode in (None, mode) and found.row is operator_named(found.row.name) else None

    def answer(
        self,
        form: Form | None,
        row: Operator | Composite,
        live: LiveTensors,
        values: Sequence[Value | None],
        execute: Callable[[], Any],
    ) -> tuple[Any, Answer | None]:
        """What torch gives for a call that is ``row``, which says that ``values`` come of it, by ``execute`` if need be: sizes count as the
        numbers they are, or not at all (``kinds``)."""
        if form is None:
            return execute(), None
        given, n, metadata, *rest = form.key
        plain = tuple([(tuple(map(_plain_int, e.value.spec.strides)), *m[1:]) for e, m in zip(form.entries, metadata, strict=True)])
        key = (_plain(given), n, plain, *rest)
        known = self._answers.get(key)
        if known is not None:
            return known.again(form.tensors), known
        kind = kind_of(row, form.tensors)
        seen = None if kind is None else self._kinds.get((kind, key[0], n, *rest))
        if seen is not None:
            answer = self._answers.keep(key, seen.of(_sizes(values[0])))
            return answer.again(form.tensors), answer
        produced = execute()
        found = _answer(form, live, produced)
        if found is None or self._metadata(form.tensors, form.entries) != form.metadata:
            return produced, None
        if kind is not None and found.is_one(_sizes(values[0])):
            self._kinds.keep((kind, key[0], n, *rest), found)
        return produced, self._answers.keep(key, found)

    def learn(
        self,
        form: Form | None,
        answer: Answer | None,
        row: Operator | Composite,
        reads: Sequence[Any],
        values: Sequence[Value],
        *,
        attributes: Items,
        differentiable: bool,
        guards: dict[Guard, None],
        mode: bool | None,
    ) -> None:
        """Remember what a call comes to, where no call of its form can come to anything else. ``reads`` are its entries by role."""
        if form is None or answer is None or len({id(v) for v in values}) < len(values):
            return
        where = {id(e): i for i, e in enumerate(form.entries)}
        try:
            roles = tuple([None if e is None else tuple([where[id(u)] for u in e]) if isinstance(e, list) else where[id(e)] for e in reads])
        except KeyError:  # it reads a tensor that is not among its arguments
            return
        arguments, storages = _first_by_id([e.value for e in form.entries]), _first_by_id([e.value.storage for e in form.entries])
        found = tuple(
            [
                _Found(arguments.get(id(v), -1), storages.setdefault(id(v.storage), -1 - i), v.storage.nbytes, v.spec)
                for i, v in enumerate(values)
            ]
        )
        self._known.pop(form.key, None)
        self._known.keep(form.key, Known(row, roles, attributes, differentiable, guards, mode, found, answer))

    def _metadata(self, tensors: Sequence[torch.Tensor], entries: Sequence[Tracked]) -> Any:
        numbers = self._specs
        found: list[Any] = []
        for t, entry in zip(tensors, entries, strict=True):
            spec = entry.value.spec
            number, _ = numbers.get(id(spec)) or self._numbered(spec)
            found.append((number, t.shape, t.stride(), t.dtype))
        return tuple(found)

    def _numbered(self, spec: Spec) -> tuple[int, Spec]:
        """One number for specs that are equal, expressions and all (comparing sizes would be a condition of the network)."""
        form = (frozen(spec.shape, []), frozen(spec.strides, []), spec.dtype)
        number = self._numbers.get(form)
        if number is None:
            number = self._numbers.keep(form, next(_COUNT))
        found = self._specs[id(spec)] = number, spec
        return found


def _is_torchs(function: Any) -> bool:
    kind = type(function)
    return kind in _BUILT_IN or (kind is FunctionType and str(function.__module__).startswith("torch."))


def frozen(values: Iterable[Any], tensors: list[torch.Tensor]) -> tuple[Any, ...] | None:
    """``values`` as a key, with the type of each; the tensors among them are put into ``tensors``. None where equal keys would not mean the
    same."""
    parts: list[Any] = []
    for value in values:
        kind = type(value)
        part: Any = value
        if kind in _TENSORS:
            kind = torch.Tensor
            for part, t in enumerate(tensors):  # noqa: B007
                if t is value:
                    break
            else:
                part = len(tensors)
                tensors.append(value)
        elif kind is float:
            part = value.hex()
        elif kind is Dim:
            part = value.expr, _plain_int(value)
        elif kind not in _EQUAL_IS_SAME:
            if kind in _SEQUENCES:
                part = frozen(value, tensors)
            elif kind is slice:
                part = frozen((value.start, value.stop, value.step), tensors)
            elif kind is dict:
                part = frozen((*value, *value.values()), tensors)
            else:
                part = None
            if part is None:
                return None
        parts.append(kind)
        parts.append(part)
    return tuple(parts)


def _plain(parts: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same key, with sizes as the numbers they are."""
    found: list[Any] = []
    for kind, part in zip(parts[::2], parts[1::2], strict=True):
        if kind is Dim:
            found += (int, part[1])
        else:
            found += (kind, _plain(part) if type(part) is tuple else part)
    return tuple(found)


def _sharing(entries: Sequence[Tracked]) -> Any:
    """Which of the tensors have one value, and which one memory."""
    if len(entries) < 2:
        return None
    storages = [id(e.value.storage) for e in entries]
    if len({*storages}) == len(storages):  # so are the values
        return None
    values = [id(e.value) for e in entries]
    return tuple([*map(values.index, values), *map(storages.index, storages)])


def _answer(form: Form, live: LiveTensors, produced: Any) -> Answer | None:
    """``produced`` in terms of the arguments; None where it is that and more."""
    container = None if isinstance(produced, torch.Tensor) else type(produced)
    results = [produced] if container is None else [] if produced is None else produced
    if container not in (None, NoneType, tuple, list) or not all(isinstance(t, torch.Tensor) for t in results):
        return None
    arguments = {id(t): i for i, t in enumerate(form.tensors)}
    if len({id(t) for t in results}) < len(results) or any(id(t) not in arguments and live.found(t) is not None for t in results):
        return None
    made = tuple([_Made(arguments.get(id(t), -1), tuple(t.shape), t.stride(), t.dtype) for t in results])
    return Answer(made, container)


def _first_by_id(values: Sequence[Any]) -> dict[int, int]:
    return {id(v): i for i, v in reversed([*enumerate(values)])}


def _sizes(value: Value | None) -> Sizes:
    """Of what a row gives, the shape and the strides as plain numbers."""
    return ((), ()) if value is None else (tuple(map(_plain_int, value.spec.shape)), tuple(map(_plain_int, value.spec.strides)))


def _plain_int(value: int) -> int:
    return int.__int__(value)
