"""What a module owns while its forward is recorded, and what it keeps from call to call.

Its parameters and buffers are replaced by meta twins, which nobody else holds: one that the forward exchanges dies when it is exchanged.
A tensor that outlives the forward (a cache, a hook's collection) is there before the next one: the call that counts is that next one.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from memest.errors import UnsupportedError
from memest.network.tensor import Shape, nbytes
from memest.sources.importers.torch.tensors.described import dtype_of, twin
from memest.sources.importers.torch.tensors.holding import all_held
from memest.sources.importers.torch.tensors.live import LiveTensors, Tracked
from memest.sources.importers.torch.tensors.state import Owned

Form = tuple[str, tuple[int, ...]]


class Place(NamedTuple):
    """Where a module registers a tensor: its table of parameters or buffers, the key, what stands there and its name in the graph."""

    table: dict[str, Any]
    key: str
    original: torch.Tensor
    name: str


def swap(owned: Owned, live: LiveTensors) -> list[Place]:
    """Meta twins in the place of all parameters and buffers, told to ``live``."""
    twins: dict[int, tuple[str, torch.Tensor]] = {}
    for path, p in owned.tensors:
        if isinstance(p, nn.parameter.UninitializedTensorMixin):  # of a lazy module that is not called here, or refused where it is
            continue
        twins[id(p)] = path, twin(p)
        live.own(twins[id(p)][1], path, trainable=p.requires_grad, buffer=not isinstance(p, nn.Parameter))
    places = [Place(t, key, p, twins[id(p)][0]) for t in owned.tables for key, p in t.items() if id(p) in twins]
    for place in places:
        place.table[place.key] = twins[id(place.original)][1]
    return places


def swap_back(places: Sequence[Place]) -> None:
    """The module's own tensors in their places."""
    for table, key, original, _ in places:
        table[key] = original


@contextmanager
def no_collection() -> Iterator[None]:
    """Python's garbage collector does not run by itself meanwhile: what waits for it is the same in every recording."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Kept(NamedTuple):
    """A tensor that a call left, its sizes, whether it lies on the host when the network runs on a card, and whether it requires a gradient
    (the parameter of a module that the call made). ``within`` names the registered tensor that was given its memory (``p.data = t``)."""

    tensor: torch.Tensor
    sizes: Shape
    host: bool
    grad: bool = False
    within: str = ""


class Survivors:
    """The tensors made in a forward that the module, or whoever listens to it, still holds; none of them dies in the graph. ``lent``: one
    may be the memory of a registered tensor."""

    def __init__(
        self, name: str, live: LiveTensors, modules: Iterable[nn.Module], inputs: set[str], places: Sequence[Place], *, lent: bool = False
    ) -> None:
        self._name, self._live, self._places, self._lent = name, live, places, lent
        self.of_gradients: Mapping[str, str] = {}  # what a gradient that stands has the memory of, and the name of that
        self.tensors: list[torch.Tensor] = []
        self.waiting: tuple[str, ...] = ()  # tensors that only Python's garbage collector let go of
        self._registered: set[int] = set()
        own = inputs | {p.name for p in live.parameters}
        if len(live.tracked) == len(own) and all(entry.names[0] in own for entry in live.tracked.values()):
            return
        made = [e for e in live.tracked.values() if e.names[0] not in own]
        if not all_held(modules, [t for t in [e.ref() for e in made] if t is not None]):
            alive = [e for e in made if e.ref() is not None]
            gc.collect()
            waited = [e for e in alive if e.ref() is None]
            self.waiting = tuple(e.names[-1] for e in waited)
        self._registered = {id(place.table.get(place.key)) for place in places}
        self.tensors = [t for e in live.tracked.values() if e.names[0] not in own and (t := e.ref()) is not None]

    def check(self, gradients: bool, passed: Callable[[], set[str]]) -> None:
        """UnsupportedError for one that is kept in a way no step is steady under. ``passed`` gives the names that backward passes on its
        way: what autograd kept for those is gone when the step ends."""
        for place in self._places if self._registered else ():
            self._check_place(place)
        for t in self.tensors:
            self._check(self._live.known(t), gradients, passed)

    @property
    def names(self) -> set[str]:
        """What they are called."""
        return {n for t in self.tensors for n in self._live.known(t).names}

    def given_up(self, standing: Sequence[str] = ()) -> list[Kept]:
        """What the next call will find: of those that were ``standing`` before this one the living, and tensors that do not stand in the
        place of a registered one. Held here no longer, so that they die when the module lets go of them."""
        known = [(t, self._live.known(t)) for t in (*self._alive(standing), *self._kept())]
        found, self.tensors = [Kept(t, e.value.spec.shape, e.host, e.grad, self._within(e)) for t, e in known], []
        return found

    def forget(self) -> None:
        """They are held here no longer."""
        self.tensors = []

    def check_steady(self, standing: Sequence[str], forms: Sequence[Form]) -> None:
        """UnsupportedError when this call kept other tensors than the one before, which left those ``standing``, of these forms."""
        if sorted(map(form_of, [*self._alive(standing), *self._kept()])) != sorted(forms):
            raise UnsupportedError(
                f"{self._name}: every forward keeps more tensors (a list that grows, a hook that collects them): no step is like the next;"
                " empty it between calls, or keep numbers instead"
            )

    def _alive(self, standing: Sequence[str]) -> list[torch.Tensor]:
        return [t for e in self._live.tracked.values() if e.names[0] in standing and (t := e.ref()) is not None]

    def _kept(self) -> list[torch.Tensor]:
        return [t for t in self.tensors if id(t) not in self._registered]

    def _check_place(self, place: Place) -> None:
        now = place.table.get(place.key)
        if not isinstance(now, torch.Tensor) or now.shape != place.original.shape or now.dtype != place.original.dtype:
            raise UnsupportedError(
                f"{self._name}: forward exchanges {place.name!r} for something of another shape or dtype, so that no step is like the next;"
                " give it its full size before"
            )

    def _check(self, entry: Tracked, gradients: bool, passed: Callable[[], set[str]]) -> None:
        spec, storage = entry.value.spec, entry.value.storage
        what = f"{self._name}: the result of {entry.names[0]!r} is kept after the forward (by an attribute, a hook or a list)"
        if entry.grad and gradients and not passed().intersection(entry.names):
            raise UnsupportedError(f"{what}, and its autograd graph with it; keep a detached one, or nothing")
        own = self._within(entry)
        others = (e for e in self._live.tracked.values() if e is not entry and e.names[0] != own)
        part = storage.nbytes != 0 and storage.nbytes != nbytes(spec.shape, spec.dtype)  # of an array's memory, 0, is nothing torch's
        if part or any(e.value.storage is storage for e in others):
            way = "keep a copy, not in a list that grows" if spec.shape else "keep a number: .item()"
            raise UnsupportedError(f"{what}, and it shares its memory with another tensor: not modelled; {way}")

    def _within(self, entry: Tracked) -> str:
        """The name of the registered tensor that has its memory, where it may."""
        if entry.names[-1] in self.of_gradients:
            return self.of_gradients[entry.names[-1]]
        names = {place.name for place in self._places} if self._lent else set()
        lent = (e for e in self._live.tracked.values() if e is not entry and e.value.storage is entry.value.storage)
        return next((e.names[0] for e in lent if e.names[0] in names), "")


def form_of(t: torch.Tensor) -> Form:
    """Its dtype and sizes."""
    return dtype_of(t), tuple(t.shape)
