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
from memest.network.layers import BACKWARD_HOOK as BACKWARD_HOOK
from memest.network.layers import Backward as Backward
from memest.network.layers import Casting as Casting
from memest.network.layers import Items as Items
from memest.network.layers import Layer as Layer
from memest.network.layers import LeafHook as LeafHook
from memest.network.layers import Packing as Packing
from memest.network.layers import Reference as Reference
from memest.network.segments import USUAL as USUAL
from memest.network.segments import Checkpoint as Checkpoint
from memest.network.segments import Segment as Segment
from memest.network.segments import nested
from memest.network.tensor import nbytes
from memest.network.usual import Usual
from memest.shown import counted, short
from memest.sizes.dims import Expr, Guard, has_expr, resolve
from memest.sizes.remembering import Memo


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
    ``gradient_of`` names the parameter whose gradient it is, from the step before, ``state_of`` the one that an optimizer keeps it for.
    One that is not ``registered`` is a tensor of which ``module.buffers()`` knows nothing: a plain attribute, what a function caches."""

    name: str
    shape: tuple[Any, ...]
    dtype: str = "float32"
    trainable: bool = True
    buffer: bool = False
    layout: str = "contiguous"
    gradient_of: str | None = None
    state_of: str | None = None
    registered: bool = True


def at_sizes(p: Parameter, sizes: Mapping[str, int]) -> Parameter:
    """The tensor with its sizes as numbers."""
    return replace(p, shape=resolve(p.shape, sizes)) if has_expr(p.shape) else p


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
