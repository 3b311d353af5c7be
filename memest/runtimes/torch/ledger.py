"""The ledger: tensors with reference counts, and the stream of allocations and releases they leave behind."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Protocol

from memest.memory.stream import Event, Move, Repeat, Storage
from memest.network.tensor import Shape, Spec

_KEPT_BY = "kept by"


def is_kept(storage: Storage, name: str) -> bool:
    """Whether it is what the handle of the library ``name`` keeps."""
    return storage.reason.startswith(f"{_KEPT_BY} {name} for ")


class GradFn(Protocol):
    """The autograd node (or leaf) a value hangs on."""

    def drop(self, ledger: Ledger) -> None:
        """One holder less; the last one takes what the node saved with it."""


class Version:
    """How often tensors were written to in place, as autograd counts it, and who did so last: the name of a layer and what that calls.
    Views, and what ``detach`` gives, count with the tensor they look at; what ``tensor.data`` gives counts for itself
    (c10/core/TensorImpl.h, VariableVersion)."""

    __slots__ = ("by", "count", "op")

    def __init__(self) -> None:
        self.count = 0
        self.by = self.op = ""


class Value:
    """A tensor of the running network: metadata, its storage, how often it was written to, and how autograd reaches it.

    ``refs`` counts who holds this very tensor (names, buffers of the engine); a view is a value of its own that holds its ``base``. Its
    node is the one of when its memory had been written to ``seen`` times; ``bound`` says why nobody may write into it ("": one may).
    Between a view that is ``recast`` and its base real numbers became complex ones, or the other way.
    """

    __slots__ = (
        "base",
        "bound",
        "looks_at_trained",
        "node",
        "output_nr",
        "recast",
        "refs",
        "requires_grad",
        "seen",
        "spec",
        "storage",
        "version",
    )

    def __init__(self, spec: Spec, storage: Storage, version: Version | None = None) -> None:
        self.spec = spec
        self.storage = storage
        self.version = version or Version()
        self.refs = 0
        self.base: Value | None = None
        self.node: GradFn | None = None
        self.output_nr = 0
        self.requires_grad = False
        self.looks_at_trained = False
        self.recast = False
        self.seen = 0
        self.bound = ""

    @property
    def says_grad(self) -> bool:
        """What ``requires_grad`` says: a view of a tensor that requires grad says so, too, when it was made under ``no_grad``."""
        return self.requires_grad or self.looks_at_trained

    @property
    def shape(self) -> Shape:
        """Its dims."""
        return self.spec.shape


class Ledger:
    """Keeps the books of one step. ``begun`` says that steps ran before: what libraries keep is there already. Storages are numbered from
    ``number`` on. While ``on_host`` is set the processor beside a card works: nothing of what is asked for is the card's."""

    def __init__(self, begun: bool = True, number: int = 0) -> None:
        self.begun = begun
        self._kept: dict[tuple[str, str], Storage] = {}
        self._tried: set[tuple[Hashable, str]] = set()
        self.events: list[Event] = []
        self.residents: list[Storage] = []
        self.repeats: list[Repeat] = []
        self.phase = "forward"
        self.layer = ""
        self.op = ""
        self.on_host = False
        self._next = number

    def aside(self) -> Ledger:
        """Books of what comes and goes outside of the step, whose storages have numbers of their own."""
        return Ledger(number=self._next)

    def moves(self) -> Iterator[Move]:
        """The events as moves."""
        return (Move(e.storage, e.delta > 0) for e in self.events)

    def allocate(self, nbytes: int, category: str = "temporary", reason: str = "") -> Storage:
        """A new storage; an empty one takes nothing and leaves no step (torch's allocator does not report it)."""
        nbytes = 0 if self.on_host else nbytes
        storage = Storage(self._next, nbytes, category, self.layer, self.op, reason)
        self._next += 1
        if nbytes:
            self.events.append(Event(nbytes, storage, self.phase, self.layer, self.op))
        return storage

    def again(self, length: int) -> None:
        """The last ``length`` events once more, which gave back what they asked for."""
        start = len(self.events)
        self.events.extend(self.events[start - length :])
        before = self.repeats[-1] if self.repeats else None
        if before is not None and before.stop == start and before.length == length:
            self.repeats[-1] = before._replace(times=before.times + 1)
        else:
            self.repeats.append(Repeat(start, length, 1))

    def resident(self, nbytes: int, category: str, layer: str) -> Storage:
        """A storage that is there before the step begins."""
        storage = Storage(self._next, nbytes, category, layer, "", "")
        self._next += 1
        storage.refs = 1
        self.residents.append(storage)
        return storage

    def keep(self, name: str, nbytes: int) -> Storage:
        """What a library's handle keeps, of which each thread has one (autograd's engine runs backward in a thread of its own): allocated
        at the first use, there from then on."""
        if self.on_host:
            return self.allocate(0)
        thread = self._thread
        found = self._kept.get((name, thread))
        if found is None:
            reason = f"{_KEPT_BY} {name} for the {thread} thread"
            if self.begun:
                found = self.resident(nbytes, "workspace", name)
                found.reason = reason
            else:
                found = self.allocate(nbytes, "workspace", reason)
                found.refs = 1
            self._kept[name, thread] = found
        return found

    def attempt(self, question: Hashable, nbytes: int, spread: tuple[int, int] | None) -> Storage:
        """What a library takes to try its ways, where this thread asks it for the first time; nothing where steps ran before."""
        asked = question, self._thread
        if self.begun or self.on_host or asked in self._tried:
            return Storage(self._next, 0, "workspace", self.layer, self.op, "")
        self._tried.add(asked)
        storage = self.allocate(nbytes, "workspace", "to try plans in")
        storage.spread, storage.empties = spread, True
        self.release(storage)
        return storage

    @property
    def _thread(self) -> str:
        """Autograd's engine runs backward in a thread of its own."""
        return "backward" if self.phase == "backward" else "main"

    def release(self, storage: Storage) -> None:
        """The storage goes back to the allocator."""
        if storage.nbytes:
            self.events.append(Event(-storage.nbytes, storage, self.phase, self.layer, self.op))

    def wrote(self, value: Value, by: str = "", op: str = "") -> None:
        """The call that runs, or what is said, has written into ``value`` in place, seen by autograd."""
        version = value.version
        version.count += 1
        version.by, version.op = by or self.layer, op or self.op

    def hold(self, value: Value) -> Value:
        """One more holder of ``value``."""
        value.refs += 1
        value.storage.refs += 1
        return value

    def let_go(self, value: Value) -> None:
        """One holder less; the last one releases the storage."""
        value.refs -= 1
        storage = value.storage
        storage.refs -= 1
        if storage.refs == 0:
            self.release(storage)
        if value.refs == 0:
            if value.node is not None:
                value.node.drop(self)
            if value.base is not None:
                self.let_go(value.base)

    def let_go_storage(self, storage: Storage) -> None:
        """One holder of the bare storage less (a saved tensor)."""
        storage.refs -= 1
        if storage.refs == 0:
            self.release(storage)
