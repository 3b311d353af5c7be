"""What calls save for backward: who keeps it, what is promised in its place, when it dies.

Sources: torch/csrc/autograd/saved_variable.cpp (hooks, release, the version that is recorded and compared), torch/utils/checkpoint.py
(what a recomputation fills).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from memest.memory.stream import Storage
from memest.network.tensor import Spec
from memest.ops.tape import Trace
from memest.runtimes.torch.ledger import Ledger, Version

_NUMBERS = frozenset({"float64", "int64", "bool"})


Specs = tuple[tuple[str, Spec], ...]
"""What a node saves: roles, and how each lies."""


class Promise(Protocol):
    """Whoever makes a node's saved tensors again when they are wanted, once in each run of the engine that wants any."""

    def fulfil(self, holder: Holder) -> list[Storage]:
        """What the gaps of ``holder`` are to have, each held for it."""

    def forget(self, holder: Holder) -> None:
        """It waits no more."""


class Leads(Protocol):
    """What a tensor was computed by."""

    def leave(self, ledger: Ledger) -> None:
        """Somebody who kept it is gone."""


class Stamp(NamedTuple):
    """How often a tensor had been written to when it was saved."""

    version: Version
    at: int


class Holder:
    """The saved tensors of a node: storages kept since forward, and gaps that a promise fills when backward asks for them. Of those that it
    keeps itself it knows how often they had been written to. ``behind`` are the nodes that saved tensors hang on, where nobody else keeps
    them."""

    __slots__ = ("_promise", "_stamps", "behind", "circle", "freed", "gaps", "storages")

    def __init__(self, storages: list[Storage | None], promise: Promise | None = None) -> None:
        self.storages = storages
        self.freed = self.circle = False
        self.behind: list[Leads] = []
        self._promise = promise
        self.gaps = [i for i, s in enumerate(storages) if s is None]
        self._stamps: Sequence[Stamp | None] = ()
        for s in storages:
            if s is not None:
                s.refs += 1

    def stamp(self, stamps: Sequence[Stamp | None]) -> None:
        """One for each saved tensor (None: nobody can write to it)."""
        if self._promise is None:
            self._stamps = stamps

    def version(self, index: int) -> Version | None:
        """What the saved tensor of that number counts with, where that is known."""
        found = self._stamps[index] if self._stamps else None
        return None if found is None else found.version

    def stale(self) -> int | None:
        """The number of a saved tensor that was written to since it was saved: torch unpacks no such tensor."""
        return next((i for i, s in enumerate(self._stamps) if s is not None and s.version.count != s.at), None)

    @property
    def waits(self) -> bool:
        """True until its node has run or died, when its tensors are promised."""
        return self._promise is not None

    def unpack(self) -> list[Storage]:
        """The storages, made again where they were promised."""
        if self._promise is not None:
            for i, s in zip(self.gaps, self._promise.fulfil(self), strict=True):
                self.storages[i] = s
        return [s for s in self.storages if s is not None]

    def specs(self, saved: Specs) -> Specs:
        """How what was unpacked lies, for a node that ``saved`` tensors so."""
        return saved

    def leave(self, ledger: Ledger) -> None:
        """The kernel has run: tensors made again die with its locals, the others wait for :meth:`release`."""
        for i in self.gaps:
            _let_go(ledger, self.storages[i])
            self.storages[i] = None

    def release(self, ledger: Ledger) -> None:
        """The node has run, or is dead (release_variables). ``freed`` tells that there was something to let go of."""
        self.freed = self.freed or bool(self.storages)
        for s in self.storages:
            _let_go(ledger, s)
        self.storages, self.gaps, self._stamps = [], [], ()
        self.forget_behind(ledger)
        if self._promise is not None:
            promise, self._promise = self._promise, None
            promise.forget(self)

    def forget_behind(self, ledger: Ledger) -> None:
        """The graphs that saved tensors came from are kept no longer."""
        behind, self.behind = self.behind, []
        for node in behind:
            node.leave(ledger)


def _let_go(ledger: Ledger, storage: Storage | None) -> None:
    if storage is not None:
        ledger.let_go_storage(storage)


class Part(Protocol):
    """One saved tensor that hooks have packed. ``is_itself``: what they keep is the tensor, not something made of it."""

    is_itself: bool

    def unpack(self) -> tuple[Spec, Storage]:
        """The tensor again, with one more holder; its strides may be others."""

    def release(self) -> None:
        """What is packed goes."""


class PackedHolder(Holder):
    """The saved tensors of a node as hooks have packed them: unpacked for its kernel alone. ``circle``: the node keeps one of its own
    outputs, which keeps the node (hooks get it as it is), until it has run. Who writes to what hooks keep is not looked at."""

    __slots__ = ("_made", "_parts", "_specs")

    def __init__(self, parts: list[Part], circle: bool) -> None:
        super().__init__([])
        self._parts = parts
        self.circle = circle
        self._made: list[Storage] = []
        self._specs: list[Spec] = []

    def stamp(self, stamps: Sequence[Stamp | None]) -> None:
        """It is for the hooks to see to that."""

    def unpack(self) -> list[Storage]:
        """What the hooks make of what they packed, one after the other."""
        made = [part.unpack() for part in self._parts]
        self._specs, self._made = [spec for spec, _ in made], [storage for _, storage in made]
        return self._made

    def specs(self, saved: Specs) -> Specs:
        """As the hooks made it."""
        return tuple([(role, spec) for (role, _), spec in zip(saved, self._specs, strict=True)])

    def leave(self, ledger: Ledger) -> None:
        """The kernel has run: what was unpacked dies."""
        for s in self._made:
            _let_go(ledger, s)
        self._made = []

    def release(self, ledger: Ledger) -> None:
        """The node has run, or is dead."""
        self.freed = self.freed or bool(self._parts)
        self.circle = False
        for part in self._parts:
            part.release()
        self._parts = []
        self.forget_behind(ledger)


class Keeping:
    """What is done with the tensors a call saves: they are kept. Others do otherwise (torch.autograd.graph.saved_tensors_hooks)."""

    one_by_one = False  # each tensor is kept at its time, amid the call: ``keep`` is asked

    def keep(self, spec: Spec, storage: Storage, number: bool) -> Part:
        """One saved tensor."""
        raise NotImplementedError

    def ends(self) -> bool:
        """True when the call ends with the next tensors that are saved."""
        return False

    def pack(self, storages: list[Storage | None], numbers: list[bool]) -> Holder:
        """The holder of what one call saves; ``numbers`` marks Python numbers wrapped for the call, which no hook sees."""
        return Holder(storages)

    def promised(self, storage: Storage) -> bool:
        """True when backward wants what is in ``storage`` now, though no node holds it."""
        return False


class EndOfRecomputation(Exception):  # noqa: N818
    """The last tensor to be saved is there; the call goes no further. ``ran`` says whether its kernel ran before that."""

    def __init__(self, ran: bool) -> None:
        super().__init__()
        self.ran = ran


def last_save(trace: Trace) -> int | None:
    """How many events precede the last tensor that hooks see saved; None when they see none."""
    return max((s.at for s, number in zip(trace.saved, numbers_of(trace), strict=True) if not number), default=None)


def kernel_ran(trace: Trace, cut: int) -> bool:
    """True when nothing is allocated after the first ``cut`` events."""
    return not any(e.nbytes > 0 for e in trace.events[cut:])


def numbers_of(trace: Trace) -> list[bool]:
    """Which saved tensors are Python numbers wrapped for the call (SavedVariable::register_hooks passes them over)."""
    given = {o.slot for o in trace.outputs if o is not None}
    return [s.spec.shape == () and s.spec.dtype in _NUMBERS and s.slot >= trace.n_inputs and s.slot not in given for s in trace.saved]
