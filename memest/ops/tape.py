"""The tape: what a row's ``forward`` or ``backward`` writes down while it reads like the kernel it describes.

A row allocates with :meth:`Tape.empty`, drops with :meth:`Tape.free`, makes views with :meth:`Tape.view` and says what autograd
keeps with :meth:`Tape.save`. What it returns are its outputs. Everything it allocated and neither returned, saved nor freed is
released when it returns, last allocated first, as C++ destroys locals.

A tape knows metadata only; the result is a :class:`Trace`, free of identity, which the timeline replays onto real storages.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import prod
from typing import Any, NamedTuple

from memest.machines.target import Target
from memest.network.dtypes import ITEMSIZE
from memest.network.tensor import Shape, Spec, contiguous_strides, is_contiguous


class Tensor:
    """A tensor inside a row: metadata, and the slot of the storage it looks at. Identity matters: the same object is the same
    ``TensorImpl``, a view is another object on the same slot."""

    __slots__ = ("dtype", "is_view", "shape", "slot", "strides")

    def __init__(self, shape: Shape, strides: Shape, dtype: str, slot: int, is_view: bool = False) -> None:
        self.shape = shape
        self.strides = strides
        self.dtype = dtype
        self.slot = slot
        self.is_view = is_view

    @property
    def ndim(self) -> int:
        """Number of dims."""
        return len(self.shape)

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return ITEMSIZE[self.dtype]

    @property
    def nbytes(self) -> int:
        """Bytes of its elements, each counted once."""
        return prod(self.shape) * ITEMSIZE[self.dtype]

    @property
    def is_contiguous(self) -> bool:
        """Row-major and dense."""
        return is_contiguous(self.shape, self.strides)

    @property
    def spec(self) -> Spec:
        """Its metadata."""
        return Spec(self.shape, self.strides, self.dtype)

    def __repr__(self) -> str:
        return f"Tensor({list(self.shape)}, strides={list(self.strides)}, {self.dtype}, slot={self.slot})"


class Event(NamedTuple):
    """One step of a trace: ``slot`` is allocated with ``nbytes`` (``scratch`` when a library asked for it) or, with -1, dropped. ``keep``
    names what a library allocates once a thread and keeps; ``spread`` is the range of a size that is modelled. ``tried`` is the question
    for which a library tries what it could do, once a thread: the bytes are dropped at once, and what is cached is given back. Of scratch,
    ``unwritten`` bytes are never touched: the system lends no pages for them."""

    slot: int
    nbytes: int
    scratch: bool
    keep: str = ""
    spread: tuple[int, int] | None = None
    tried: Hashable = None
    unwritten: int = 0


class Out(NamedTuple):
    """An output of a trace: metadata, storage slot, the input whose very tensor it is (-1: a tensor of its own), and whether it is a
    view (which keeps its base alive)."""

    spec: Spec
    slot: int
    same_as: int
    is_view: bool


class Saved(NamedTuple):
    """What autograd keeps: the role, the metadata, the storage slot, and how many events were there when it was packed."""

    role: str
    spec: Spec
    slot: int
    at: int


class Trace(NamedTuple):
    """What one call did. Slots below ``n_inputs`` are the storages of its inputs, in order."""

    n_inputs: int
    events: tuple[Event, ...]
    outputs: tuple[Out | None, ...]
    saved: tuple[Saved, ...]
    notes: tuple[tuple[str, Any], ...]
    is_noop: bool


class Tape:
    """Records one call of a row.

    ``needs`` says, per tensor input, whether its gradient will be wanted (all False under ``no_grad``); ``training`` is the mode of
    the step; ``target`` says which runtime's kernels they are, of which version, and on which machine they run.
    """

    __slots__ = ("_alive", "_events", "_n_inputs", "_next", "_noop", "_notes", "_saved", "needs", "target", "training")

    def __init__(self, n_inputs: int, needs: tuple[bool, ...], training: bool, target: Target) -> None:
        self.needs = needs
        self.training = training
        self.target = target
        self._n_inputs = n_inputs
        self._next = n_inputs
        self._events: list[Event] = []
        self._alive: list[int] = []
        self._saved: list[Saved] = []
        self._notes: dict[str, Any] = {}
        self._noop = False

    @property
    def grad_enabled(self) -> bool:
        """True when this call makes an autograd node."""
        return any(self.needs)

    @property
    def alive(self) -> set[int]:
        """The slots that this call allocated and did not drop."""
        return set(self._alive)

    def empty(self, shape: Sequence[int], dtype: str = "float32", strides: Shape | None = None) -> Tensor:
        """A new dense tensor (contiguous unless ``strides`` are given)."""
        shape = tuple(shape)
        slot = self._allocate(prod(shape) * ITEMSIZE[dtype], False)
        return Tensor(shape, contiguous_strides(shape) if strides is None else strides, dtype, slot)

    def scratch(self, nbytes: int, spread: tuple[int, int] | None = None, unwritten: int = 0) -> Tensor:
        """Raw bytes that a library asks torch's allocator for: workspaces, blocked copies; ``spread`` is their range where they are
        modelled, lowest and highest. What may be there leaves an event, so it counts one byte where none is expected."""
        if spread is not None:
            nbytes = nbytes or 1
        return Tensor((nbytes,), (1,), "uint8", self._allocate(nbytes, True, spread, unwritten))

    def keep(self, name: str, nbytes: int) -> None:
        """What a library's handle allocates when it is used for the first time in a thread, and keeps from then on."""
        if nbytes:
            self._events.append(Event(self._next, nbytes, True, name))
            self._next += 1

    def attempt(self, question: Hashable, nbytes: int, spread: tuple[int, int] | None = None) -> None:
        """What a library takes to try its ways when a thread asks it a question for the first time, and gives back with all that is
        cached. It leaves an event where it takes nothing, too."""
        self._events.append(Event(self._next, nbytes or 1, True, "", spread if nbytes else (0, 0), question))
        self._next += 1

    def view(self, base: Tensor, shape: Sequence[int], strides: Sequence[int] | None = None, dtype: str | None = None) -> Tensor:
        """Another tensor on the storage of ``base``."""
        shape = tuple(shape)
        return Tensor(shape, contiguous_strides(shape) if strides is None else tuple(strides), dtype or base.dtype, base.slot, True)

    def alias(self, base: Tensor, shape: Sequence[int], strides: Sequence[int] | None = None) -> Tensor:
        """A view made inside a kernel, below autograd: nothing keeps ``base`` for it."""
        shape = tuple(shape)
        return Tensor(shape, contiguous_strides(shape) if strides is None else tuple(strides), base.dtype, base.slot)

    def restride(self, t: Tensor, shape: Sequence[int], strides: Sequence[int]) -> Tensor:
        """``t`` itself, which from now on sees its storage otherwise (in place, as ``as_strided_``)."""
        t.shape, t.strides = tuple(shape), tuple(strides)
        return t

    def free(self, *tensors: Tensor | None) -> None:
        """Drop tensors this call allocated; inputs, and what was dropped before, are left alone."""
        for t in tensors:
            if t is not None and t.slot in self._alive:
                self._alive.remove(t.slot)
                self._events.append(Event(t.slot, -1, False))

    def mark(self) -> int:
        """This place, for :meth:`again`."""
        return len(self._events)

    def again(self, since: int, times: int) -> None:
        """What was allocated and dropped from the mark ``since`` on happens ``times`` times more. (Where the count is not a plain number
        it is left at once: what the call holds at most is the same.)"""
        if type(times) is not int:
            return
        part = self._events[since:]
        for _ in range(times):
            fresh: dict[int, int] = {}
            for event in part:
                if event.nbytes >= 0:
                    fresh[event.slot], self._next = self._next, self._next + 1
                self._events.append(event._replace(slot=fresh[event.slot]))

    def save(self, **roles: Tensor | None) -> None:
        """Keep tensors for backward under their roles; nothing happens when no gradient is wanted. The place counts: torch keeps what a
        kernel reads before it runs, and what it gives after that (a recomputation ends with the last tensor it has to keep)."""
        if any(self.needs):
            for role, t in roles.items():
                if t is not None:
                    self._saved.append(Saved(role, t.spec, t.slot, len(self._events)))

    def noop(self, input: Tensor) -> Tensor:
        """Torch hands back the very input without recording anything (dropout that is off): no node is made."""
        self._noop = True
        return input

    def note(self, **facts: Any) -> None:
        """Keep plain facts (sizes, hashable) for backward, beside the saved tensors and under names of their own."""
        self._notes.update(facts)

    def _allocate(self, nbytes: int, scratch: bool, spread: tuple[int, int] | None = None, unwritten: int = 0) -> int:
        slot = self._next
        self._next += 1
        self._events.append(Event(slot, nbytes, scratch, "", spread, None, unwritten))
        self._alive.append(slot)
        return slot

    def finish(self, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor | None]) -> Trace:
        """Release the locals and close the tape."""
        kept = {t.slot for t in outputs if t is not None}
        kept.update(s.slot for s in self._saved)
        for slot in reversed(self._alive):
            if slot not in kept:
                self._events.append(Event(slot, -1, False))
        same = {id(t): i for i, t in enumerate(inputs) if t is not None}
        outs = tuple(None if t is None else Out(t.spec, t.slot, same.get(id(t), -1), t.is_view) for t in outputs)
        return Trace(self._n_inputs, tuple(self._events), outs, tuple(self._saved), tuple(self._notes.items()), self._noop)
