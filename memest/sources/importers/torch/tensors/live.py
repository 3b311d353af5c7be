"""The live tensors of a forward that is recorded: their names in the graph, what is known of them, and after which layer each dies."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch

from memest.errors import UnsupportedError
from memest.network.graph import Layer, Parameter
from memest.network.tensor import Shape, Spec
from memest.runtimes.torch.ledger import Ledger, Value
from memest.sizes.dims import expression
from memest.sources.importers.torch.tensors.described import layout_in_memory, spec_of, whole_numbers_in


class Tracked:
    """What is known of a live tensor: its names in the graph, its metadata with symbolic dims, whether a step that trains would have it
    require a gradient, and whether it was made in inference mode. ``host``: where the network runs on a card, it lies on the host.
    ``base``: the tensor that it is a view of, for autograd."""

    __slots__ = ("base", "grad", "host", "inference", "names", "ref", "value")

    def __init__(self, name: str, value: Value, ref: weakref.ref[torch.Tensor], grad: bool, inference: bool) -> None:
        self.names = [name]
        self.value = value
        self.ref = ref
        self.grad = grad
        self.inference = inference
        self.host = False
        self.base: Tracked | None = None


def _transformed_by(t: torch.Tensor) -> str:
    """What of ``torch.func`` has made a tensor, as a user calls it."""
    functorch = torch._C._functorch
    if not functorch.is_functorch_wrapped_tensor(t):
        return ""
    if functorch.is_batchedtensor(t):
        return "torch.vmap (torch.func.vmap, jacrev, hessian)"
    return "torch.func.grad (vjp, jacrev, hessian)" if functorch.is_gradtrackingtensor(t) else "a transform of torch.func"


class LiveTensors:
    """Tensors by identity. ``drops`` has a list a layer: the names of what died after it; ``early`` those that died before the first.
    ``parameters`` are what the network owns, in the order they were met; ``twins`` stand in for other tensors, by whose id they are known;
    ``found_elsewhere`` is told of tensors that are neither inputs nor registered; ``earlier`` is where one that is not known may be from.
    """

    earlier = ""

    def __init__(self, ledger: Ledger, *, on_meta: bool, refusal: Callable[[str], UnsupportedError]) -> None:
        """``on_meta``: the module's own tensors are meta tensors, so that others may be."""
        self.tracked: dict[int, Tracked] = {}
        self.parameters: list[Parameter] = []
        self.drops: list[list[str]] = []
        self.early: list[str] = []
        self._ledger = ledger
        self._used: set[str] = set()
        self._numbers: dict[str, int] = {}  # up to which names with a number are taken
        self.twins: dict[int, torch.Tensor] = {}
        self._on_meta = on_meta
        self._refusal = refusal
        self.on_host: dict[str, None] = {}
        self.specs: dict[str, Spec] = {}  # by every name there was
        self.found_elsewhere: Callable[[torch.Tensor, str], None] = lambda t, name: None
        self.whole: dict[str, tuple[int, ...]] = {}  # the numbers in small tensors from elsewhere

    def given(self, t: torch.Tensor, name: str, spec: Spec, *, grad: bool = False) -> None:
        """A tensor that is there before the first layer."""
        self.follow(t, name, Value(spec, self._ledger.resident(0, "", name)), grad)

    def own(
        self,
        t: torch.Tensor,
        name: str,
        *,
        trainable: bool = False,
        buffer: bool = True,
        sizes: Shape | None = None,
        host: bool = False,
        registered: bool = True,
    ) -> None:
        """A tensor that the network owns; of a buffer that it made in a call before the ``sizes`` may be symbolic. ``host``: no
        ``module.to`` moves it from there. ``registered``: a module knows it as its parameter or buffer."""
        spec = spec_of(t, sizes)
        self.parameters.append(
            Parameter(
                name=name,
                shape=spec.shape if sizes is None else tuple(map(expression, sizes)),
                dtype=spec.dtype,
                trainable=trainable,
                buffer=buffer,
                layout=layout_in_memory(t, name),
                registered=registered,
            )
        )
        self.given(t, name, spec, grad=trainable)
        if host:
            self.place(self.tracked[id(t)], True)

    def place(self, entry: Tracked, host: bool) -> None:
        """A tensor has got its newest name; where the network runs on a card, it lies there, or on the ``host``."""
        entry.host = host
        if host:
            self.on_host[entry.names[-1]] = None

    def follow(self, t: torch.Tensor, name: str, value: Value, grad: bool, *, inference: bool = False) -> Tracked:
        """From now on ``t`` is called ``name``, until Python lets it die."""
        key = id(t)
        self._used.add(name)
        self.specs[name] = value.spec

        def died(_: object) -> None:
            gone = self.tracked.pop(key, None)
            if gone is not None:
                (self.drops[-1] if self.drops else self.early).extend(gone.names)

        entry = self.tracked[key] = Tracked(name, self._ledger.hold(value), weakref.ref(t, died), grad, inference)
        return entry

    def found(self, t: torch.Tensor) -> Tracked | None:
        """What is known of ``t``, if anything; of a tensor that has a twin in its place, what is known of that (``twins``)."""
        entry = self.tracked.get(id(t))
        if entry is None and self.twins:
            t = self.twins.get(id(t), t)
            entry = self.tracked.get(id(t))
        return entry if entry is not None and entry.ref() is t else None

    def known(self, t: torch.Tensor) -> Tracked:
        """What is known of ``t``; a tensor from elsewhere (a plain attribute) becomes a buffer."""
        entry = self.found(t)
        if entry is not None:
            return entry
        transformed = _transformed_by(t)
        if transformed:
            raise self._refusal(f"{transformed}: functorch's own tensors are not recorded; write it without, or as torch.autograd.grad")
        if t.is_meta and not self._on_meta:
            raise self._refusal(
                f"a tensor that was made where memest cannot see it ({self.earlier}in another thread, a compiled or scripted function,"
                " vmap, or an operator of an extension)"
            )
        name = self.unique("constant")
        self.found_elsewhere(t, name)
        self.own(t, name, host=t.device.type == "cpu", registered=False)
        if numbers := whole_numbers_in(t):
            self.whole[name] = numbers
        return self.tracked[id(t)]

    def forget(self) -> None:
        """The recording is over, and nobody asks any more."""
        self.tracked.clear()
        self.specs.clear()

    def check_gone(self, layers: Iterable[Layer], given: Iterable[str | None], who: str) -> None:
        """What runs in backward has been recorded. UnsupportedError where ``who`` keeps past that what it was ``given`` or made."""
        names = {*given, *(n for layer in layers for n in layer.outputs)}
        if not any(e.names[0] in names for e in self.tracked.values()):
            return
        gc.collect()
        if any(e.names[0] in names for e in self.tracked.values()):
            raise self._refusal(
                f"{who} that keeps a tensor for later (an attribute, a list): let it keep numbers (.item()), or give the whole step to"
                " memest.step (there the hook may not stand in a checkpoint, or in another hook or custom function)"
            )

    def again(self, entry: Tracked, name: str, value: Value, grad: bool) -> None:
        """A tensor that was written into in place gets another name."""
        self._used.add(name)
        self.specs[name] = value.spec
        entry.names.append(name)
        entry.value = self._ledger.hold(value)
        entry.grad = entry.grad or grad

    def wrote_into(self, entry: Tracked) -> None:
        """What a gradient reaches was written into ``entry``: it reaches what that is a view of, too, and all other views of it."""
        base = entry.base or entry
        if base.grad and entry.grad:
            return
        base.grad = entry.grad = True
        for e in self.tracked.values():
            e.grad = e.grad or e.base is base

    @contextmanager
    def names_kept(self) -> Iterator[None]:
        """What is written into while it lasts has its name of before again after it. The network's own goes by its own meanwhile."""
        before = [(e, list(e.names), e.value, e.grad) for e in self.tracked.values()]
        own = {p.name for p in self.parameters}
        for e, names, _, _ in before:
            if len(names) > 1 and names[0] in own:
                e.names[:] = names[:1]
        try:
            yield
        finally:
            for e, names, value, grad in before:
                e.names[:], e.value, e.grad = names, value, grad

    def unique(self, base: str) -> str:
        """``base``, or with a number where it is taken."""
        if base not in self._used:
            return base
        n = self._numbers.get(base, 2)
        while f"{base}_{n}" in self._used:
            n += 1
        self._numbers[base] = n
        return f"{base}_{n}"

    def taken(self, name: str) -> bool:
        """Whether something is called ``name``."""
        return name in self._used

    def take(self, base: str) -> str:
        """A name like ``base`` that nothing has, taken."""
        name = self.unique(base)
        self._used.add(name)
        return name
