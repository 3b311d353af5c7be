"""A step compiled to lists of numbers, for an allocator: the order of events is found once, at other sizes only sizes are computed.

The order of events does not depend on sizes while the comparisons made on the way come out the same
(:mod:`memest.runtimes.compiling`). What a sealed kernel asks for (:mod:`memest.ops.searched`) is another matter: it is played where it is
asked for, and its events stand where the compiled step has one number for it. So a listing is that of the step as it is played at these
sizes, event for event; where anything about a kernel is not as it was when the step was compiled, there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from memest.memory.listing import Form, Listing, Numbers, Part, listed
from memest.memory.stream import Move, Storage, Stream
from memest.network.graph import Graph
from memest.network.tensor import Shape
from memest.ops.kernels import InnerEvents, inner_events
from memest.ops.searched import InnerPeak
from memest.runtimes.compiling import play_symbols, tries_plans
from memest.runtimes.table import play
from memest.runtimes.torch.ledger import is_kept
from memest.runtimes.torch.step import Recipe
from memest.sizes.conditions import Conditions, reduced
from memest.sizes.dims import Expr, Guard, Opaque, expression, plain, resolved
from memest.sizes.functions import compile_sizes
from memest.sizes.remembering import Shelf

MOST_LAYOUTS = 16


class Kernel(NamedTuple):
    """A sealed kernel with what it is called with, and the formulas, by number, of the bytes of its outputs and of what libraries keep from
    then on (None: it has no such output, they had it before)."""

    inner: Opaque
    outputs: tuple[int | None, ...]
    kept: tuple[int | None, ...]

    def fits(self, found: InnerEvents, sizes: Sequence[int]) -> bool:
        """Whether what outlives the kernel is as large as the compiled step says, and no more is kept."""
        if len(found.outputs) != len(self.outputs) or len(found.kept) != len(self.kept):
            return False
        outputs = tuple([0 if n is None else sizes[n] for n in self.outputs])
        return outputs == found.outputs and all([n is None or sizes[n] == b for n, (_, b) in zip(self.kept, found.kept, strict=True)])


class Call(NamedTuple):
    """A kernel runs: which of them, the numbers of its outputs and of what is kept, and ``owner``, whose scratch it holds."""

    kernel: int
    named: tuple[int | None, ...]
    owner: Storage


class Layout(NamedTuple):
    """The events with those of all kernels, and the ``numbers`` in them by place among the sizes of named storages and of kernels' scratch,
    in order."""

    form: Form
    numbers: Mapping[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Lowered:
    """A compiled step. ``storages`` are those that are named, ``residents`` first, their bytes the ``formulas`` at ``places``; ``events``
    are runs of numbers, with a :class:`Call` of one of the ``kernels`` between two of them. ``before``, ``remade`` and ``remade_at`` are
    those of a :class:`Form`, ``spreads`` ranges by number. It holds where the ``conditions`` do."""

    symbols: tuple[str, ...]
    conditions: Conditions
    residents: int
    storages: tuple[Storage, ...]
    formulas: tuple[Expr | int, ...]
    places: Numbers
    kernels: tuple[Kernel, ...]
    before: Numbers
    remade: Numbers
    remade_at: int
    events: tuple[Numbers | Call, ...]
    spreads: tuple[tuple[int, Expr | int, Expr | int], ...]

    def at(self, sizes: Mapping[str, int]) -> Listing | None:
        """The step at these sizes; None where it could run differently."""
        if not self.conditions.hold(sizes):
            return None
        values, ends, arguments = self._values(*[sizes[s] for s in self.symbols])
        inner: list[InnerEvents] = []
        for kernel, given in zip(self.kernels, arguments, strict=True):
            found = inner_events(kernel.inner, given)
            if found is None or not kernel.fits(found, values):
                return None
            inner.append(found)
        shape = tuple([found.events for found in inner])
        form, numbers = self._layouts.get(shape) or self._layouts.keep(shape, self._layout(inner))
        known = list(map(values.__getitem__, self.places))
        spreads = {numbers[n]: end for (n, *_), end in zip(self.spreads, ends, strict=True)}
        for call in self._calls:
            found = inner[call.kernel]
            if found.spreads:
                spreads.update({numbers[len(known) + n]: spread for n, spread in found.spreads})
            known += found.scratch
        return Listing(form=form, sizes=list(map(known.__getitem__, numbers)), spreads=spreads)

    @cached_property
    def _calls(self) -> tuple[Call, ...]:
        return tuple([e for e in self.events if isinstance(e, Call)])

    @cached_property
    def _values(self) -> Callable[..., tuple[Any, ...]]:
        """A function of the symbols: bytes by formula, ranges, and what each kernel is called with."""
        ends = tuple([(low, high) for _, low, high in self.spreads])
        return compile_sizes((self.formulas, ends, tuple([k.inner.args for k in self.kernels])), self.symbols)

    @cached_property
    def _layouts(self) -> Shelf[Layout]:
        return Shelf(MOST_LAYOUTS)

    def _layout(self, inner: Sequence[InnerEvents]) -> Layout:
        """The events in a row, numbered as :func:`memest.memory.listing.listed` numbers them."""
        storages = list(self.storages)
        numbers = {n: n for n in range(self.residents)}

        def numbered(run: Numbers) -> Numbers:
            return tuple([numbers.setdefault(n, len(numbers)) if n >= 0 else ~numbers[~n] for n in run])

        before, remade = numbered(self.before), numbered(self.remade)
        found: list[int] = []
        for run in self.events:
            if isinstance(run, Call):
                scratch = inner[run.kernel].scratch
                named = [*run.named, *range(len(storages), len(storages) + len(scratch))]
                storages += [run.owner] * len(scratch)
                run = tuple([n if c >= 0 else ~n for c in inner[run.kernel].events if (n := named[max(c, ~c)]) is not None])
            found += numbered(run)
        who = tuple([storages[n] for n in numbers])
        return Layout(Form(self.residents, who, (Part(tuple(found)),), before, remade, self.remade_at), numbers)


def lowered(graph: Graph, input_shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Recipe) -> Lowered | None:
    """The step compiled at these sizes; None where its listing would not be that of the step as it is played."""
    if tries_plans(recipe):
        return None
    guards: dict[Guard, None] = {}
    stream = play_symbols(graph, input_shapes, sizes, recipe, guards)
    made = None if stream.repeats else _read(stream, tuple(sizes), reduced(guards, sizes), sizes)
    played = listed(play(graph, input_shapes, sizes, recipe))
    return made if made is not None and _same(made.at(sizes), played) else None


def _same(found: Listing | None, played: Listing) -> bool:
    if found is None or (found.sizes, found.spreads) != (played.sizes, played.spreads):
        return False
    return _told(found.form) == _told(played.form)


def _told(form: Form) -> tuple[Any, ...]:
    return form.residents, form.before, form.remade, form.remade_at, form.parts, [_who(s) for s in form.storages]


def _who(storage: Storage) -> tuple[str, str, str, int, str | None]:
    """What is asked of a storage besides its bytes; of what comes and goes nobody asks whether a library or a kernel took it."""
    held = storage.refs > 0
    category = "" if storage.category in ("workspace", "temporary") and not held else storage.category
    return category, storage.layer, storage.op, storage.stream, storage.reason if held else None


class _OtherwiseError(Exception):
    """A sealed kernel stands in a stream otherwise than :func:`memest.ops.searched.sealed` leaves it."""


def _read(stream: Stream, symbols: tuple[str, ...], conditions: Conditions, sizes: Mapping[str, int]) -> Lowered | None:
    """A symbolic stream by numbers; None where that does not say all."""
    reader = _Reader(stream, sizes)
    try:
        reader.read()
    except _OtherwiseError:
        return None
    ranges = ((n, s.spread) for n, s in enumerate(reader.storages) if s.spread is not None)
    return Lowered(
        symbols=symbols,
        conditions=conditions,
        residents=len(stream.residents),
        storages=tuple(reader.storages),
        formulas=tuple(reader.formulas),
        places=tuple([reader.formulas[expression(s.nbytes)] for s in reader.storages]),
        kernels=tuple(reader.kernels),
        before=reader.before,
        remade=reader.remade,
        remade_at=stream.remade_at,
        events=tuple(reader.events),
        spreads=tuple([(n, expression(low), expression(high)) for n, (low, high) in ranges]),
    )


class _Reader:
    """Goes through the events of a symbolic stream."""

    def __init__(self, stream: Stream, sizes: Mapping[str, int]) -> None:
        self.storages = list(stream.residents)
        self.events: list[Numbers | Call] = []
        self.formulas: dict[Expr | int, int] = {}
        self.kernels: dict[Kernel, int] = {}
        self._numbers = {s.id: n for n, s in enumerate(self.storages)}
        for storage in self.storages:
            self._formula(storage)
        self._stream, self._sizes = stream.events, sizes
        self._at = 0
        self.before, self.remade = (self._moves(moves) for moves in (stream.made, stream.remade))

    def read(self) -> None:
        run: list[int] = []
        while self._at < len(self._stream):
            event = self._stream[self._at]
            if _is_sealed(event.storage):
                self.events += [tuple(run), self._call(event.storage)]
                run = []
            else:
                self._at += 1
                run.append(self._number(event.storage) if plain(event.delta) > 0 else ~self._numbers[event.storage.id])
        self.events.append(tuple(run))

    def _moves(self, moves: Sequence[Move]) -> Numbers:
        return tuple([self._number(s) if made else ~self._numbers[s.id] for s, made in moves])

    def _call(self, owner: Storage) -> Call:
        """What stands for a kernel is asked for and given back; then comes what libraries keep, then the outputs."""
        inner = expression(owner.nbytes)
        assert isinstance(inner, Opaque)
        back = self._stream[self._at + 1 : self._at + 2]
        if not isinstance(inner.function, InnerPeak) or not back or back[0].storage is not owner:
            raise _OtherwiseError
        self._at += 2
        found = inner_events(inner, resolved(inner.args, self._sizes))
        if found is None:
            raise _OtherwiseError
        kept = [self._made() if self._keeps(name) else None for name, _ in found.kept]
        outputs = [self._made() if nbytes else None for nbytes in found.outputs]
        formulas = [tuple([None if n is None else self._formula(self.storages[n]) for n in named]) for named in (outputs, kept)]
        kernel = self.kernels.setdefault(Kernel(inner, *formulas), len(self.kernels))
        return Call(kernel, (*outputs, *kept), owner)

    def _keeps(self, name: str) -> bool:
        """Whether the next event is that of a library that takes what it keeps."""
        return self._at < len(self._stream) and is_kept(self._stream[self._at].storage, name)

    def _made(self) -> int:
        """The number of what is asked for next."""
        if self._at == len(self._stream) or plain(self._stream[self._at].delta) < 0 or _is_sealed(self._stream[self._at].storage):
            raise _OtherwiseError
        self._at += 1
        return self._number(self._stream[self._at - 1].storage)

    def _number(self, storage: Storage) -> int:
        if storage.id not in self._numbers:
            self._numbers[storage.id] = len(self.storages)
            self.storages.append(storage)
            self._formula(storage)
        return self._numbers[storage.id]

    def _formula(self, storage: Storage) -> int:
        return self.formulas.setdefault(expression(storage.nbytes), len(self.formulas))


def _is_sealed(storage: Storage) -> bool:
    return isinstance(expression(storage.nbytes), Opaque)
