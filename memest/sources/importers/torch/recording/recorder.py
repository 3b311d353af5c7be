"""The recorder: what a module's forward calls, written down as layers while it runs on meta tensors.

Python's own control flow runs; sizes that the module reads are ``Dim``s, so shapes stay symbolic; a tensor dies in the graph when Python
lets it die. Every recorded shape is recomputed by our own rows and must agree. What no row knows, and what the code around the calls does
that is not modelled, is an :class:`UnsupportedError` that names it, the module and the line of user code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from memest.errors import UnsupportedError
from memest.machines.target import TORCH_CUDA
from memest.machines.versions import release
from memest.network.graph import Graph, Input, Parameter
from memest.shown import counted
from memest.sizes.dims import Dim, expression, symbol
from memest.sources.importers.torch.calls.dynamic_quantization import packed_note
from memest.sources.importers.torch.contexts.counters import with_counters
from memest.sources.importers.torch.contexts.watching import check_hooks
from memest.sources.importers.torch.recording.calling import Calling
from memest.sources.importers.torch.recording.layers import (
    left_by_hooks,
    passed_by_backward,
    settled,
    with_ranks,
)
from memest.sources.importers.torch.recording.luck import Luck
from memest.sources.importers.torch.tensors.described import dtype_of, layout_in_memory, leaves, numbers_of, spec_of, twin
from memest.sources.importers.torch.tensors.keeping import Survivors, no_collection, swap, swap_back
from memest.sources.importers.torch.tensors.numbers import PRINTED
from memest.sources.importers.torch.tensors.values import attributes_of, legible

SPATIAL = {1: ("L",), 2: ("H", "W"), 3: ("D", "H", "W")}
CIRCLE = (
    "{} of the forward wait in a circle of Python's (a function inside it that calls itself, say) for the garbage collector: they are"
    " counted until the step is over, and what earlier steps left there comes on top"
)
SAID = frozenset({"graph", "layers", "asked_for_gradients"})
"""What is asked of a recorder when its recordings are over."""
DREW = "the forward draws numbers of Python's random or numpy's: this is the path of one draw, and others may need more or less"


class Recorder(Calling):
    """Records one forward of ``module``; ``graph`` is there when :meth:`record` has returned.

    ``gradients`` says whether the forward runs with them (a training step) or under ``no_grad``. ``repeats`` is what is known of the
    module's calls at this size. ``standing`` are tensors that the module kept from its call before, with their sizes; ``stand_in`` is what
    numbers read from tensors are (``numbers``). ``kept`` is what outlives the forward, ``dropped`` what died after each layer."""

    graph: Graph
    survivors: Survivors
    lends_memory = False  # what is kept may be the memory of a parameter (``p.data = kept``)
    kept: set[str]
    dropped: list[set[str]]

    # what is there before the call ---------------------------------------------------------------------------------------

    def _add_input(self, name: str, t: torch.Tensor) -> None:
        fixed = self.fixed.get(name, ())
        dims = [n if d in fixed else self._symbolic(n, d, t.ndim, len(self.inputs)) for d, n in enumerate(t.shape)]
        self.inputs.append(Input(name=name, shape=tuple(expression(d) for d in dims), dtype=dtype_of(t), layout=layout_in_memory(t, name)))
        self.given[name] = spec_of(t, tuple(dims))
        self.live.given(t, name, self.given[name])

    def _symbolic(self, size: int, d: int, ndim: int, nth: int) -> int:
        """The batch and the spatial dims get symbols; a later input shares a symbol of equal size at the same place."""
        if d == 1 or (d > 0 and ndim - 2 not in SPATIAL):
            return size
        base = "N" if d == 0 else SPATIAL[ndim - 2][d - 2]
        text = base if self.sizes.get(base, size) == size else f"{base}{nth}"
        self.sizes[text] = size
        found = symbol(text)
        return Dim(size, found)

    # the call ------------------------------------------------------------------------------------------------------------

    @no_collection()
    def record(self, inputs: Mapping[str, torch.Tensor], call: Callable[[Mapping[str, torch.Tensor]], Any]) -> None:
        """``call`` the module on meta tensors like these and write down what it does. The module's own tensors are replaced: the caller
        puts them back (``as_it_was``) where this ends by an error."""
        self.assumed.lists.update({name: known for name, t in inputs.items() if (known := numbers_of(t))})
        inputs = {name: twin(t) for name, t in inputs.items()}
        for name, t in inputs.items():
            self._add_input(name, t)
        if self.gradients:
            check_hooks(self.owned)
        self.places = swap(self.owned, self.live)
        self._tell_constants()
        self.live.found_elsewhere = self._found_elsewhere
        self.found_there = {e.names[0]: (e.value.spec, e.value.storage) for e in self.live.tracked.values()}
        self.drawn = Luck.now()
        result = self._run(inputs, call)
        self.constants.check_unwritten()
        self.drew = Luck.now() != self.drawn
        self.outputs = outputs = self._outputs(result)
        del result
        self.survivors = self._surviving()
        self.survivors.check(self.gradients, lambda: self._passed(outputs))
        self.kept, self.dropped = self.survivors.names, [set(names) for names in self.live.drops]
        self.graph = self._finished(outputs)
        swap_back(self.places)

    def _tell_constants(self) -> None:
        """The module's buffers may hold what decides."""
        for place in self.places:
            if not isinstance(place.original, nn.Parameter):
                self.constants.own(place.name, legible(place.original))

    def _surviving(self) -> Survivors:
        """What outlives the forward, which is over."""
        return Survivors(
            self.name, self.live, self.modules, {i.name for i in self.inputs} | self.lasting, self.places, lent=self.lends_memory
        )

    @property
    def can_be_followed(self) -> bool:
        """Whether another run can be held against this one call by call (``elsewhere``); a run in which saved tensors are packed, whose
        parameters have hooks, or that leaves work to the garbage collector is recorded once more instead."""
        return not (self._to_be_recorded_anew or self.hooks or self.survivors.waiting)

    def _passed(self, outputs: Sequence[str]) -> set[str]:
        """The names that a backward passes before what is kept here is looked at."""
        return passed_by_backward(self.layers, outputs[:1])

    def _found_elsewhere(self, t: torch.Tensor, name: str) -> None:
        """A tensor that is neither an input nor registered is called ``name``: the module's attribute, or somebody else's."""
        if any(t is a for a in attributes_of(self.modules)):
            self.constants.own(name, legible(t))

    def _outputs(self, result: Any) -> tuple[str, ...]:
        tensors = list(leaves(result))
        if not tensors:
            raise UnsupportedError(f"{self.name}: forward returns no tensor, but {type(result).__name__}")
        names = [self.live.known(t).names[-1] for t in tensors]
        inside = filter(None, map(self.live.found, leaves(result, opened=True)))
        return tuple([*names, *dict.fromkeys(e.names[-1] for e in inside if e.names[-1] not in names)])

    # the end -------------------------------------------------------------------------------------------------------------

    def let_go(self) -> None:
        """What outlived the forward is held here no longer."""
        if "survivors" in vars(self):
            self.survivors.forget()

    def forget(self) -> None:
        """What was of use to the recording alone goes at once: in the circles that it is part of, it would wait for Python's garbage
        collector, whose work grows with it."""
        self.live.forget()
        for name in vars(self).keys() - SAID:
            delattr(self, name)

    def _finished(self, outputs: tuple[str, ...]) -> Graph:
        """The graph, now that only what survives the forward is alive."""
        live, own = self.live, {p.name for p in self.live.parameters}
        mortal = {n for names in live.drops for n in names if n in own}
        again = next((n for layer, names in zip(self.layers, live.drops, strict=True) if layer.checkpoint for n in names if n in own), None)
        if again is not None:
            raise UnsupportedError(
                f"{self.name}: {again!r} is exchanged inside a checkpoint, so once more in backward: exchange it outside, or write into it"
            )
        rests = [Parameter(name=f"{p}.rest", shape=(n,), dtype="uint8", trainable=False, buffer=True) for p, n in self.owned.rests]
        permanent = own - mortal | {i.name for i in self.inputs} | self.survivors.names | self.lasting | {*self.survivors.waiting}
        left = left_by_hooks([layer.backward for layer in self.layers], [hook.backward for hook in self.hooks])
        graph = Graph(
            name=self.name,
            inputs=tuple(self.inputs),
            parameters=(*(p for p in live.parameters if p.name not in live.early), *rests),
            layers=tuple(
                settled(with_counters(with_ranks(self.layers, self._synced()), live.drops, own), outputs, permanent, mortal | left)
            ),
            outputs=outputs,
            guards=tuple(self.guards),
            torch=release(torch.__version__),
            refused=((TORCH_CUDA, self.stops_a_card),) if self.stops_a_card else (),
            examples=tuple(self.sizes.items()),
            checkpoints=tuple(self.checkpoints.found.items()),
            hooks=self.hooks,
            enables_grad=self.enables_grad,
            waiting=self.survivors.waiting,
            lines=tuple(self.lines.items()),
            notes=(
                *self.wrappers,
                *self.assumed.notes,
                *packed_note(self.packed),
                *self.constants.notes,
                *[DREW] * self.drew,
                *self._circles(),
                *[PRINTED] * self.numbers.printed,
            ),
        )
        values = graph.values
        on_host = tuple(n for n in live.on_host if n in values)
        return graph.with_(on_host=(*on_host, *(p.name for p in rests)))  # what is moved to a card is what a tensor sees

    def _synced(self) -> list[str]:
        """The paths of batch norms whose statistics are those of all ranks."""
        if not any(isinstance(m, nn.SyncBatchNorm) for m in self.modules):
            return []
        return [path for path, m in self.module.named_modules(remove_duplicate=False) if isinstance(m, nn.SyncBatchNorm)]

    def _circles(self) -> list[str]:
        """A note where tensors wait for the garbage collector."""
        return [CIRCLE.format(counted(len(self.survivors.waiting), "tensor"))] * bool(self.survivors.waiting)
