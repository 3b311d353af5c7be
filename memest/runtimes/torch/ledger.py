"""The ledger: tensors with reference counts, and the stream of allocations and releases they leave behind."""

from __future__ import annotations

from typing import Protocol

from memest.memory.stream import Event, Repeat, Storage
from memest.network.tensor import Shape, Spec

_KEPT_BY = "kept by"


def is_kept(storage: Storage, name: str) -> bool:
    """Whether it is what the handle of the library ``name`` keeps."""
    return storage.reason.startswith(f"{_KEPT_BY} {name} for ")


class GradFn(Protocol):
    """The autograd node (or leaf) a value hangs on."""

    def drop(self, ledger: Ledger) -> None:
        """One holder less; the last one takes what the node saved with it."""


class Value:
    """A tensor of the running network: metadata, its storage, and how autograd reaches it.

    ``refs`` counts who holds this very tensor (names, buffers of the engine); a view is a value of its own that holds its ``base``.
    """

    __slots__ = ("base", "node", "output_nr", "refs", "requires_grad", "spec", "storage")

    def __init__(self, spec: Spec, storage: Storage) -> None:
        self.spec = spec
        self.storage = storage
        self.refs = 0
        self.base: Value | None = None
        self.node: GradFn | None = None
        self.output_nr = 0
        self.requires_grad = False

    @property
    def shape(self) -> Shape:
        """Its dims."""
        return self.spec.shape


class Ledger:
    """Keeps the books of one step. ``begun`` says that steps ran before: what libraries keep is there already."""

    def __init__(self, begun: bool = True) -> None:
        self.begun = begun
        self._kept: dict[tuple[str, str], Storage] = {}
        self.events: list[Event] = []
        self.residents: list[Storage] = []
        self.repeats: list[Repeat] = []
        self.phase = "forward"
        self.layer = ""
        self.op = ""
        self._next = 0

    def allocate(self, nbytes: int, category: str = "temporary", reason: str = "") -> Storage:
        """A new storage; an empty one takes nothing and leaves no step (torch's allocator does not report it)."""
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
        thread = "backward" if self.phase == "backward" else "main"
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

    def release(self, storage: Storage) -> None:
        """The storage goes back to the allocator."""
        if storage.nbytes:
            self.events.append(Event(-storage.nbytes, storage, self.phase, self.layer, self.op))

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
