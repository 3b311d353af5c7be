"""The layer graph: a network as data. Immutable, hashable by content, free of torch.

Names live in one space: inputs, parameters and layer outputs. A layer with one output gives it its own name; with several, they
are ``name.0``, ``name.1``, … unless ``outputs`` says otherwise. Dims of an input may be symbols (``N``, ``H``): the same graph
is then estimated at any size. Values die where ``drops`` says: by default after their last reader.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from memest.errors import UsageError, kind_of
from memest.network.segments import USUAL as USUAL
from memest.network.segments import Checkpoint as Checkpoint
from memest.network.segments import Segment as Segment
from memest.network.segments import nested
from memest.network.tensor import nbytes
from memest.network.usual import Usual
from memest.shown import counted, short
from memest.sizes.dims import Expr, Guard, has_expr, resolve
from memest.sizes.remembering import Memo

Items = tuple[tuple[str, Any], ...]
Reference = str | None | tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A tensor the caller gives: its dims (ints, or expressions of symbols), dtype and memory format."""

    name: str
    shape: tuple[int | Expr, ...]
    dtype: str = "float32"
    layout: str = "contiguous"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A tensor the network owns. A buffer is one that is never trained; of a buffer alone the sizes may be those of an input.
    ``gradient_of`` names the parameter whose gradient it is, from the step before. One that is not ``registered`` is a tensor of which
    ``module.buffers()`` knows nothing: a plain attribute, what a function caches."""

    name: str
    shape: tuple[Any, ...]
    dtype: str = "float32"
    trainable: bool = True
    buffer: bool = False
    layout: str = "contiguous"
    gradient_of: str | None = None
    registered: bool = True


def at_sizes(p: Parameter, sizes: Mapping[str, int]) -> Parameter:
    """The tensor with its sizes as numbers."""
    return replace(p, shape=resolve(p.shape, sizes)) if has_expr(p.shape) else p


@dataclass(frozen=True, slots=True, kw_only=True)
class Casting:
    """What the ``torch.autocast`` contexts in a network's own code say on one kind of ``device``: the ``dtype`` they cast to (None: they
    are off), and whether casts of parameters are kept, which is until the outermost context ends. That has the name of the ``scope``,
    which dies like a value: by standing in the ``drops`` of a layer."""

    device: str
    dtype: str | None
    cache: bool
    scope: str


BACKWARD_HOOK = "BackwardHook"
"""What the functions are called that torch puts around a module with full backward hooks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backward:
    """What a custom autograd function (``torch.autograd.Function``) keeps and does in backward. ``saved`` are values that
    ``save_for_backward`` keeps until the function has run backward, ``kept`` those that its context holds besides, until nothing leads to
    it any more. Its ``layers`` read them, the ``gradients`` of its outputs by these names, and the network's own parameters; ``results``
    has the gradient of each input (None: it has none). Outputs are ``differentiable`` or not. A gradient that does not come is made of
    zeros where it is ``materialized``; else one of the ``others`` is what is done then, with None among its gradients. The results of a
    ``lender`` (the function of that name) are kept until this one has run, and read as what was ``lent``: so do a module's hooks. What
    never ``unpacks`` the saved ones does not mind who wrote to them since. Layers named in ``without_grad`` stand under a ``no_grad`` of
    its own also where backward is differentiated; ``applies`` names a custom function in it, whose node is there only then."""

    saved: tuple[str, ...]
    kept: tuple[str, ...]
    gradients: tuple[str | None, ...]
    layers: tuple[Layer, ...]
    results: tuple[str | None, ...]
    differentiable: tuple[bool, ...]
    materialized: bool = True
    others: tuple[Backward, ...] = ()
    lender: str | None = None
    lent: tuple[str, ...] = ()
    unpacks: bool = True
    without_grad: tuple[str, ...] = ()
    applies: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafHook:
    """A hook on a ``parameter``: what it does with the gradient that comes (``Tensor.register_hook``), or ``after`` that is there
    (``register_post_accumulate_grad_hook``)."""

    parameter: str
    after: bool
    backward: Backward


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """What hooks of saved tensors (``torch.autograd.graph.saved_tensors_hooks``) do with one, ``given`` by that name: the layers that pack
    it, what is ``kept`` of it then, and the layers that unpack that, of which one gives the ``result``. It was of that ``dtype``, which
    hooks may ask for."""

    given: str
    dtype: str
    packed: tuple[Layer, ...]
    kept: tuple[str, ...]
    unpacked: tuple[Layer, ...]
    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One call: operator, the names bound to its roles, attributes, the names of its outputs, and what dies after it. ``grad`` is false
    for a call under ``torch.no_grad()``; ``checkpoint`` names the innermost call of ``torch.utils.checkpoint`` around it;
    ``autocast`` has the contexts of ``torch.autocast`` that the network itself puts around it; ``backward`` is that of a custom function,
    which the layer ``autograd_function`` ends; ``packing`` is what hooks do with each tensor that it saves (without: it is kept);
    ``selected`` are the operators whose results a selective checkpoint keeps, each with how often the layer called it before."""

    name: str
    op: str
    tensors: tuple[Reference, ...]
    attributes: Items = ()
    outputs: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    grad: bool = True
    checkpoint: str | None = None
    autocast: tuple[Casting, ...] = ()
    backward: Backward | None = None
    packing: tuple[Packing, ...] = ()
    selected: tuple[tuple[str, int], ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """Every name it reads, in order."""
        names: list[str] = []
        for t in self.tensors:
            if isinstance(t, str):
                names.append(t)
            elif t is not None:
                names.extend(t)
        return tuple(names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A network. ``outputs`` are the values the model returns; ``inference`` is the graph to use in infer mode when control flow
    differs there (None: this one). ``guards`` are the comparisons of sizes under which the network runs as described. ``refused`` are
    pairs of a mode, or of a runtime, and the reason why the network cannot be played in it; ``on_host`` names values that lie on the host
    where the network runs on a card; ``notes`` tell what a reader of an answer should know. ``torch``
    is the release whose modules it was recorded from (None: it was not recorded), ``examples`` sizes at which it is known to run,
    ``usual`` how it is trained and used where a caller does not say (a graph file does not hold that). A whole ``step`` has actions among
    its layers (backward, the optimizers' steps) and returns nothing; ``beginning`` is the first step where it is another.
    ``checkpoints`` names those of the network's own that are not called in the usual way; ``hooks`` are those on parameters. A forward
    that ``enables_grad`` turns gradients on where who calls it has turned them off: there its layers say ``grad`` for themselves. ``lines``
    says which line of whose code made a layer, where that is known (a graph file does not hold it). Values that are ``waiting`` lie in a
    circle of Python's and are there until the step is over, with what autograd keeps for them."""

    name: str
    inputs: tuple[Input, ...]
    parameters: tuple[Parameter, ...]
    layers: tuple[Layer, ...]
    outputs: tuple[str, ...]
    inference: Graph | None = None
    guards: tuple[Guard, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    on_host: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    torch: str | None = None
    examples: tuple[tuple[str, int], ...] = field(default=(), compare=False, repr=False)
    usual: Usual | None = field(default=None, compare=False, repr=False)
    checkpoints: tuple[tuple[str, Checkpoint], ...] = ()
    hooks: tuple[LeafHook, ...] = ()
    step: bool = False
    enables_grad: bool = False
    waiting: tuple[str, ...] = ()
    beginning: Graph | None = None
    lines: tuple[tuple[str, str], ...] = field(default=(), compare=False, repr=False)
    memo: Memo = field(default_factory=Memo, compare=False, repr=False, hash=False)

    def __repr__(self) -> str:
        parts = counted(len(self.inputs), "input"), counted(len(self.layers), "layer"), counted(len(self.parameters), "parameter")
        return f"<Graph {short(self.name)}: {', '.join(parts)}>"

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The runs of layers that the network itself checkpoints, in order: the outermost, with those inside them."""
        return nested([layer.checkpoint for layer in self.layers], dict(self.checkpoints))

    @property
    def values(self) -> frozenset[str]:
        """The names of the parameters and of all that is made: by layers, and where hooks pack what they save and unpack it."""
        packing = [p for layer in self.layers for p in layer.packing]
        layers = (*self.layers, *(layer for p in packing for layer in (*p.packed, *p.unpacked)))
        return frozenset({p.name for p in self.parameters} | set(made_by(layers)))

    def unregistered_bytes(self, sizes: Mapping[str, Any]) -> Any:
        """Bytes of what is not registered, at sizes or at columns of them."""
        return sum(nbytes(resolve(p.shape, sizes), p.dtype) for p in self.parameters if not p.registered)

    def with_(self, **changes: Any) -> Graph:
        """The same graph with some fields changed."""
        return replace(self, memo=Memo(), **changes)


def made_by(layers: Iterable[Layer]) -> Iterator[str]:
    """What layers give, in forward and in the backward of functions."""
    for layer in layers:
        yield from layer.outputs
        for backward in () if layer.backward is None else (layer.backward, *layer.backward.others):
            yield from made_by(backward.layers)


def default_drops(
    layers: Iterable[Layer], outputs: Iterable[str], permanent: Iterable[str], held: Iterable[tuple[str, int]] = ()
) -> tuple[Layer, ...]:
    """``layers`` with ``drops`` set so that each value dies after its last reader (at once when nobody reads it), or after the layer
    number that ``held`` gives for it, whichever is later."""
    layers = tuple(layers)
    last: dict[str, int] = {}
    for i, layer in enumerate(layers):
        for name in (*layer.outputs, *layer.reads, *(c.scope for c in layer.autocast)):
            last[name] = i
    for name, i in held:
        last[name] = max(last.get(name, i), i)
    for name in (*outputs, *permanent):
        last.pop(name, None)
    dying: dict[int, list[str]] = {}
    for name, i in last.items():
        dying.setdefault(i, []).append(name)
    return tuple(replace(layer, drops=tuple(dying.get(i, ()))) for i, layer in enumerate(layers))


def attribute_items(attributes: Mapping[str, Any]) -> Items:
    """A mapping as hashable items (lists become tuples)."""

    def frozen(value: Any) -> Any:
        return tuple(frozen(v) for v in value) if isinstance(value, list | tuple) else value

    return tuple((name, frozen(value)) for name, value in attributes.items())


OF_A_NETWORK = frozenset({"advise", "a report", "plan_checkpoints", "plan_inference", "plan_volume", "save", "dumps"})
"""What cannot be asked of a whole step, which says itself what is done with its networks."""


def as_graph(value: Any, who: str) -> Graph:
    """``value`` itself when it is a graph; UsageError says how to come by one, or that ``who`` does not take a whole step."""
    if isinstance(value, Graph):
        if value.step and who in OF_A_NETWORK:
            raise UsageError(f"{who} takes a network, and {value.name} is a whole training step: import the module alone")
        return value
    kind = kind_of(value)
    if kind.startswith("a torch module"):
        way = "memest.from_torch(module, example_shape) gives one"
    elif isinstance(value, str):
        way = "memest.model(name) or memest.load(path) gives one"
    else:
        way = "memest.model, memest.load and memest.from_torch give one"
    raise UsageError(f"{who} takes a graph, got {kind}; {way}")
