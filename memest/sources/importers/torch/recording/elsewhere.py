"""The same forward at other sizes: does it make the same calls there?

Not every decision by a size is seen while one forward is recorded: Python takes lengths, texts, list indices, the ends of ranges and
logarithms as plain numbers. So what was recorded runs once more, at other sizes, and every call is held against the one in its place. torch
is not asked then and no rule computes: the recorded shapes, at these sizes, are the answers. That is cheap enough to be done always.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from memest.memory.stream import Storage
from memest.network.graph import Layer
from memest.network.tensor import Shape, Spec
from memest.runtimes.torch.ledger import Value
from memest.sizes.dims import Dim, Expr, recording
from memest.sources.importers.torch.contexts.switching import gradients_on
from memest.sources.importers.torch.contexts.watching import check_autograd
from memest.sources.importers.torch.recording.luck import Luck
from memest.sources.importers.torch.recording.recorder import Recorder
from memest.sources.importers.torch.recording.trace import Asked, Done, Handle, Item, Made, Name, Step, Trace, asked, complete
from memest.sources.importers.torch.tensors.described import like, look_alike, twin
from memest.sources.importers.torch.tensors.keeping import no_collection, swap_back
from memest.sources.importers.torch.tensors.live import Tracked
from memest.sources.importers.torch.tensors.state import Owned


class Otherwise(Exception):  # noqa: N818 - it ends a run, it is no error
    """The forward does something else here."""


class Impossible(Exception):  # noqa: N818
    """A tensor would have no elements here."""


class Elsewhere(Recorder):
    """A forward at other ``sizes`` than the ``first``, which it is held against. What the module kept from its call before stands here as
    it stood there."""

    def __init__(self, first: Recorder, sizes: Mapping[str, int], *arguments: Any) -> None:
        """``arguments`` are those that the first recorder was made with."""
        self.first = first
        super().__init__(*arguments)
        self.sizes = dict(sizes)
        self.inputs = first.inputs
        self.places = first.places
        self.ended = ""
        self._assumes = first.assumed.asked
        self._left, self._at_step = first.trace, 0
        self._dims: dict[Expr, Dim] = {}
        self._values: dict[Expr, int] = {}
        self._specs: dict[int, tuple[Spec, torch.Tensor]] = {}  # with a tensor of that metadata
        self._storages: dict[int, Storage] = {}

    def _owned(self, module: nn.Module) -> Owned:
        """What it consisted of there."""
        return self.first.owned

    @no_collection()
    def agrees(self, call: Callable[[Mapping[str, torch.Tensor]], Any]) -> bool | None:
        """Whether it is the same here; None where it cannot run here."""
        state = Luck.now()
        self.first.drawn.put_back()
        try:
            with recording(None):
                inputs = {i.name: self._given(i.name) for i in self.inputs}
            for name in self.standing:
                self._is_there(name, next(e for e in self.live.tracked.values() if e.names[0] == name))
            self._lend()
            same = self._outputs(self._run(inputs, call)) == self.first.outputs and self._ended() and self._leaves()
        except Exception:
            same = False
        finally:
            swap_back(self.places)
            state.put_back()
        return None if self.ended == "impossible" else same and not self.ended

    def _ended(self) -> bool:
        first = self.first
        if self._assumes and (self.assumed.notes, self.constants.notes) != (first.assumed.notes, first.constants.notes):
            return False
        return self._at_step == len(self._left) and self.layers == first.layers and self.checkpoints.found == first.checkpoints.found

    def _leaves(self) -> bool:
        """Whether the module keeps what it kept there, and no more from call to call."""
        self.survivors = self._surviving()
        if self.standing:
            self.survivors.check_steady(self.standing, self.forms)
        dropped = [set(names) for names in self.live.drops]
        return self.survivors.names == self.first.kept and dropped == self.first.dropped

    def _given(self, name: str) -> torch.Tensor:
        spec, t = self.there(self.first.given[name])
        self.live.given(t, name, spec)
        self._is_there(name, self.live.known(t))
        return t

    def _is_there(self, name: str, entry: Tracked) -> None:
        """A tensor is there before the call: its memory stands for that of the one in its place."""
        self._storages[id(self.first.found_there[name][1])] = entry.value.storage

    def _lend(self) -> None:
        """Tensors in the place of the module's own, as the first forward had them."""
        own = {p.name: p for p in self.first.live.parameters}
        made: dict[int, torch.Tensor] = {}
        models: dict[Any, torch.Tensor] = {}
        for table, key, original, name in self.places:
            t = made.get(id(original))
            if t is None:
                form = original.shape, original.stride(), original.dtype
                model = models.get(form)
                if model is None:
                    model = models[form] = twin(original)
                t = made[id(original)] = look_alike(model)
                self.live.parameters.append(own[name])
                value = Value(self.first.found_there[name][0], no_storage())
                self._is_there(name, self.live.follow(t, name, value, own[name].trainable))
            table[key] = t
        if self._assumes:
            self._tell_constants()

    # calls ---------------------------------------------------------------------------------------------------------------

    def _call(self, name: str, binding: Any, func: Any, args: Any, kwargs: Any) -> Any:
        what, tensors = asked(self.live, func, complete(args, kwargs, self.besides(name)))
        step = self.next_item()
        self.asked_dtype = None
        if not isinstance(step, Step) or not what.like(step.asked):
            raise self.stop("otherwise")
        if step.layer is None:
            return func(*args, **kwargs)
        if not self._stands_as(step.layer):
            raise self.stop("otherwise")
        check_autograd(self, self.gradients, self.contexts.casts_to is not None)
        return self._answer(step, step.layer, what, tensors)

    def _run_body(self, func: Any, args: Any, kwargs: Any) -> Any:
        step = self._left[self._at_step] if self._at_step < len(self._left) else None
        if isinstance(step, Step) and step.outer is not None and step.layer is not None and self._stands_as(step.layer):
            with torch._C.DisableTorchFunction():
                what, tensors = asked(self.live, func, complete(args, kwargs, None))
            if what.like(step.outer):
                self._at_step += 1
                self.asked_dtype = None
                return self._answer(step, step.layer, what, tensors)
        return super()._run_body(func, args, kwargs)

    def next_item(self) -> Step | Layer | Done | Handle | None:
        """What came next there."""
        self._at_step += 1
        return self._left[self._at_step - 1] if self._at_step <= len(self._left) else None

    def _stands_as(self, layer: Layer) -> bool:
        """Whether what stands around a call is what stood there."""
        grad = gradients_on() or not self.gradients
        return grad == layer.grad and self.checkpoint == layer.checkpoint and self.castings == layer.autocast

    def _answer(self, step: Step, layer: Layer, what: Asked, tensors: Sequence[torch.Tensor]) -> Any:
        """The recorded answer, with the sizes that are here."""
        if self.live.take(layer.name) != layer.name:
            raise self.stop("otherwise")
        met = iter(step.met)
        for t, known in zip(tensors, what.names, strict=True):
            if type(known) is tuple and self.live.known(t).names[0] != next(met, None):
                raise self.stop("otherwise")
        self.live.drops.append([])
        self.layers.append(layer)
        self.noticed(layer)
        made = [self._made(m, out, what.names, tensors) for m, out in zip(step.made, layer.outputs, strict=True)]
        if self._assumes:
            self.assumed.noticed(layer.outputs, [self.live.known(t).value for t in made])
        items = [i.value if isinstance(i, Item) else made[i] for i in step.items]
        if step.container is None:
            return items[0]
        return step.container._make(items) if hasattr(step.container, "_make") else step.container(items)

    def _made(self, made: Made, out: str, names: Sequence[Name], tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        if made.argument:
            spec = self.at(made.spec)
            t = tensors[names.index(made.argument)]
            entry = self.live.known(t)
            value = entry.value
            value.spec = spec
            self.live.again(entry, out, value, made.grad)
        else:
            spec, t = self.there(made.spec)
            storage = self._storages.get(id(made.storage)) or self._storages.setdefault(id(made.storage), no_storage())
            self.live.follow(t, out, Value(spec, storage), made.grad, inference=made.inference)
        if made.host:
            self.live.place(self.live.known(t), True)
        return t

    def _came_to(self, what: Asked, steps: Trace, result: Any) -> None:
        """Nothing is written down here."""

    def noticed(self, layer: Layer) -> None:
        """A layer stands where it stood."""

    def add(self, layer: Layer) -> None:
        """A layer that no call of torch stands for."""
        if layer != self.next_item():
            raise self.stop("otherwise")
        super().add(layer)

    def stop(self, how: str) -> Exception:
        """The end of the run, also where somebody catches it."""
        self.ended = self.ended or how
        return Impossible() if how == "impossible" else Otherwise()

    # sizes ---------------------------------------------------------------------------------------------------------------

    def at(self, spec: Spec) -> Spec:
        """``spec`` at the sizes that are here."""
        return (self._specs.get(id(spec)) or self._found(spec))[0]

    def there(self, spec: Spec) -> tuple[Spec, torch.Tensor]:
        """The same, and a tensor of that metadata."""
        found, model = self._specs.get(id(spec)) or self._found(spec)
        return found, look_alike(model)

    def _found(self, spec: Spec) -> tuple[Spec, torch.Tensor]:
        here = Spec(self._sizes(spec.shape), self._sizes(spec.strides), spec.dtype)
        if any(type(n) is Dim and int.__le__(n, 0) for n in here.shape):
            raise self.stop("impossible")
        found = self._specs[id(spec)] = here, like(Spec(_plain(here.shape), _plain(here.strides), here.dtype))
        return found

    def _sizes(self, sizes: Shape) -> Shape:
        return tuple([self._size(n.expr) if type(n) is Dim else n for n in sizes])

    def _size(self, e: Expr) -> Dim:
        found = self._dims.get(e)
        if found is None:
            found = self._dims[e] = Dim(e.evaluate(self.sizes, self._values), e)
        return found


def _plain(sizes: Shape) -> Shape:
    """The same numbers, without their expressions."""
    return tuple([int.__int__(n) for n in sizes])


def no_storage() -> Storage:
    """One whose bytes nobody asks for."""
    return Storage(0, 0, "", "", "", "")
