"""A run: walks the layers of a graph, holds their values, and leaves the ordered stream of allocations and releases that torch's CPU
allocator would see, on top of what is resident. How often the network is called, and what comes after, is :mod:`forward
<memest.runtimes.torch.step.forward>`'s and its callers' business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from memest.errors import GraphError, MemestError, UnsupportedError, did_you_mean, unforeseen
from memest.memory.stream import Move, Storage
from memest.network.graph import Backward, Graph, Items, Layer, Parameter, Segment, at_sizes
from memest.network.segments import nested
from memest.network.tensor import Shape, Spec, nbytes, spec
from memest.ops.composite import Composite
from memest.ops.operator import Operator
from memest.runtimes.runtime import Rows
from memest.runtimes.torch.autograd import AccumulateGrad, Machine
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.step.averaging import hold_average
from memest.runtimes.torch.step.caller import Caller
from memest.runtimes.torch.step.deriving import Deriving
from memest.runtimes.torch.step.functions import HOOK, beginnings, hang, hook_leaf, lenders, register
from memest.runtimes.torch.step.overwriting import may_overwrite
from memest.runtimes.torch.step.packing import packed_by
from memest.runtimes.torch.step.recipe import Recipe
from memest.runtimes.torch.step.segments import check_segments
from memest.sizes.dims import has_expr, resolve


class Hooks(Protocol):
    """The places in a step where parallel runs do something. ``begin`` is called once, before all others. ``alike_from`` is the first pass
    of a step whose like all later ones are, where they are called with the same shapes."""

    alike_from: int

    def begin(self, run: Run) -> None:
        """``run`` is the step that is played; nothing is resident yet."""

    def place(self, p: Parameter) -> Storage:
        """The storage the layers see for a parameter or buffer; what is resident of it is written on the ledger."""

    def hold_residents(self) -> None:
        """Called once, when all other residents are there."""

    def before_forward(self) -> None:
        """Called before the first layer, once a pass."""

    def enter(self, first: int, last: int) -> None:
        """Called before the layers number ``first`` to ``last`` run: a single one, or a checkpointed segment."""

    def leave(self, index: int) -> None:
        """Called after the layer of that number has run and its values are dropped."""

    def after_forward(self) -> None:
        """Called when the network has returned its outputs."""

    def after_backward(self) -> None:
        """Called when the last node has run, before the root's gradient goes."""

    def updated(self, leaves: Sequence[AccumulateGrad]) -> list[tuple[str, Value]]:
        """The parameters this process's optimizer updates, in its order, as the tensors it sees."""

    def made(self) -> Iterable[Move]:
        """Called when the first step has been played: the way to what was there before it."""

    def remade(self) -> tuple[int, Iterable[Move]]:
        """Called when a later step has been played: what of the residents is exchanged, and at the beginning of which step (0: nothing)."""


class Actions(Protocol):
    """The layers of a whole step that are no calls of an operator."""

    def __contains__(self, op: object) -> bool:
        """Whether ``op`` names one."""

    def act(self, layer: Layer, env: dict[str, Value]) -> None:
        """Do what ``layer`` says, and bind its outputs in ``env``."""


ACROSS = ("to_device", "copy_across_")
"""Calls between the host and the card, played where they run."""


class Run:
    """One step under way: the ledger, the machine and the values alive, by name. ``actions`` are those of a whole step, ``late`` says what
    the hook of that name does now where that is recorded only when the engine comes to it, ``checkpoint``
    plays a call of ``torch.utils.checkpoint`` (None: what it wraps is played as if it were not there). ``layers`` are those that run
    together now: the graph's, or those of what runs in backward. ``enabling`` names layers and calls that turn gradients on for themselves
    where they are off."""

    kind_of_machine: type[Machine] = Machine
    actions: Actions | None = None
    late: Callable[[str, Backward], Backward] | None = None
    checkpoint: Callable[[Segment, dict[str, Value]], None] | None = None

    def __init__(
        self,
        graph: Graph,
        input_shapes: Mapping[str, Shape],
        sizes: Mapping[str, int],
        recipe: Recipe,
        rows: Rows,
        hooks: Hooks,
        *,
        remember: bool,
    ) -> None:
        self.graph = graph
        self.layers: Sequence[Layer] = graph.layers
        self.recipe = recipe
        self.sizes = sizes
        self.rows = rows
        self.ledger = Ledger(begun=recipe.step != 1)
        self.machine = self.kind_of_machine(self.ledger, recipe.training, recipe.target, remember=remember)
        self.machine.gradients_stand = recipe.keep_grads and self.ledger.begun
        self.grads = recipe.training or graph.enables_grad
        self.caller = Caller(self.machine, self.grads, recipe.autocast, rows)
        self.machine.created = Deriving(self.machine, self.caller)
        self.machine.writes_leaves = False
        self.machine.line_of = lambda layer: dict(graph.lines).get(layer, "")
        self.env: dict[str, Value] = {}
        self.ranks = 1 if recipe.parallel is None else recipe.parallel.world
        self.owned = {p.name for p in graph.parameters}
        self.specs: dict[str, Spec] = {}
        self.leaves: list[AccumulateGrad] = []
        self.overwriting: dict[str, None] = {}
        self.ending: frozenset[str] | None = None
        self.enabling: frozenset[str] = frozenset()
        self.staying: frozenset[str] = frozenset()
        self.ran_again: list[str] = []
        self.lending = lenders(graph.layers)
        self.lent: dict[str, list[Value]] = {}
        self.beginnings = beginnings(graph.layers)
        self.hooked: dict[str, int] = {}  # how often the engine came to each hook
        self.begun: dict[str, int] = {}  # the numbers of nodes of functions whose forward is under way
        self.on_host = frozenset(graph.on_host) if recipe.target.on_cuda else frozenset()
        self.canonical = graph.memo.shelf("attributes", len(graph.layers))
        check_segments(graph, recipe.segments)
        self.hooks = hooks
        hooks.begin(self)
        self._make_residents(input_shapes)
        if graph.hooks and recipe.training and recipe.parallel is not None:
            raise UnsupportedError("hooks on parameters in a parallel run: modelled on one process alone")
        for hook in graph.hooks if recipe.training else ():
            hook_leaf(self, hook)

    def _make_residents(self, input_shapes: Mapping[str, Shape]) -> None:
        for p in self.graph.parameters:
            self.own(p)
        sliding, on_cuda = self.recipe.sliding, self.recipe.target.on_cuda
        here = sliding is None or sliding.inputs_here(on_cuda)
        for i in self.graph.inputs:
            shape = input_shapes[i.name]
            size = nbytes(shape, i.dtype) if here else 0  # a volume on the host comes in window by window
            value = Value(spec(shape, i.dtype, i.layout), self.ledger.resident(size, "input", i.name))
            self.env[i.name] = self.ledger.hold(value)
        if self.recipe.average is not None:
            hold_average(self.ledger, self.graph, self.recipe.target)
        self.hooks.hold_residents()

    def own(self, p: Parameter) -> None:
        """A tensor of the network, there before the step."""
        p = at_sizes(p, self.sizes)
        counted = p.name not in self.on_host and (p.registered or self.recipe.target.on_cuda)
        storage = self.hooks.place(p) if counted else self.ledger.resident(0, "buffer", p.name)
        value = Value(spec(p.shape, p.dtype, p.layout), storage)
        if p.trainable and not p.buffer:
            value.requires_grad = True
            if self.grads:
                leaf = AccumulateGrad(value, p.name)
                value.node = leaf
                self.leaves.append(leaf)
        if p.gradient_of is not None:
            value.storage.reason = f"gradient of {p.gradient_of}"
            self.machine.gradients[p.gradient_of] = self.ledger.hold(value)
            owner = self.env[p.gradient_of]
            owner.node = owner.node or AccumulateGrad(owner, p.gradient_of)
        self.env[p.name] = self.ledger.hold(value)

    def begin_pass(self) -> None:
        """The network is called: the autocast context begins, if there is one."""
        self.caller.enter_autocast()

    def has_gradients(self, name: str) -> bool:
        """Whether gradients are on where the layer or call of that ``name`` stands, unless it says itself that they are off."""
        return self.grads or name in self.enabling

    @contextmanager
    def over(self, layers: Sequence[Layer]) -> Iterator[None]:
        """These layers run now."""
        outer, self.layers = self.layers, layers
        try:
            yield
        finally:
            self.layers = outer

    def play(self, layers: Sequence[Layer], env: dict[str, Value]) -> None:
        """Layers of what runs in backward, and the checkpoints among them, on the values in ``env``."""
        checkpoint = self.checkpoint
        calls = nested([layer.checkpoint for layer in layers], dict(self.graph.checkpoints)) if checkpoint is not None else ()
        with self.over(layers):
            done = 0
            for segment in calls:
                self.play_layers(done, segment.start, env)
                assert checkpoint is not None
                checkpoint(segment, env)
                done = segment.end
            self.play_layers(done, len(layers), env)

    def play_layers(self, start: int, end: int, env: dict[str, Value]) -> None:
        """The layers number ``start`` up to ``end``, on the values in ``env``."""
        again = self.ledger.phase == "backward" and self.layers is self.graph.layers
        for index in range(start, end):
            layer = self.layers[index]
            self.play_layer(layer, env)
            if again:
                self.ran_again.append(layer.name)

    def play_segment(self, segment: Segment, env: dict[str, Value]) -> None:
        """The layers that a checkpoint wraps, and the checkpoints in it, on the values in ``env``."""
        done = segment.start
        for inner in segment.inner:
            self.play_layers(done, inner.start, env)
            assert self.checkpoint is not None
            self.checkpoint(inner, env)
            done = inner.end
        self.play_layers(done, segment.end, env)

    def play_layer(self, layer: Layer, env: dict[str, Value]) -> None:
        """One layer, on the values in ``env``."""
        self.ledger.layer = layer.name
        for function in self.beginnings.get(layer.name, ()):
            self.begun[function] = next(self.machine.numbers)
        self.caller.grad_mode = layer.grad and self.has_gradients(layer.name)
        try:
            if self.actions is not None and layer.op in self.actions:
                self.actions.act(layer, env)
            else:
                self._call(layer, env)
        except MemestError as e:
            raise e.at(f"layer {layer.name!r} ({layer.op})") from None
        except (ArithmeticError, LookupError, TypeError, ValueError) as e:
            raise unforeseen(e).at(f"layer {layer.name!r} ({layer.op})") from e
        finally:
            self.caller.grad_mode = self.grads
        for name in layer.drops:
            if name in self.staying:
                continue
            if name in env:  # a segment's caller drops what is the caller's
                value = env.pop(name)
                self.ledger.let_go(value)
                if name in self.owned:
                    self.ledger.let_go_storage(value.storage)
            elif self.ending is None or name in self.ending:
                self.caller.end_scope(name)

    def _call(self, layer: Layer, env: dict[str, Value]) -> None:
        """The layer's operator; its outputs are held by their names."""
        entry = self.rows[layer.op]
        attributes = self._mode(self._attributes(layer, entry))
        if self.recipe.inplace and self._may_overwrite(layer, attributes, env):
            attributes = tuple((k, True if k == "inplace" else v) for k, v in attributes)
            self.overwriting[layer.name] = None
        tensors = [_bound(t, env) for t in layer.tensors]
        if self.machine.selection is not None:
            self.machine.selection.begin(layer)
        if layer.autocast or layer.packing:
            with packed_by(self, layer.packing), self.caller.inside(layer.autocast):
                outputs = self._run(layer, entry, tensors, attributes)
        else:
            outputs = self._run(layer, entry, tensors, attributes)
        if len(layer.outputs) > len(outputs):
            raise GraphError(f"gives {len(outputs)} outputs, {len(layer.outputs)} are named")
        for name, value in zip(layer.outputs, outputs, strict=False):
            if value is not None:
                env[name] = self.ledger.hold(value)
                self.specs[name] = value.spec
        if layer.backward is not None:
            with packed_by(self, layer.packing):
                (register if layer.op == HOOK else hang)(self, layer, layer.backward, env)
        for unnamed in outputs[len(layer.outputs) :]:
            if unnamed is not None:
                self.ledger.let_go(self.ledger.hold(unnamed))

    def now(self, name: str, backward: Backward) -> Backward:
        """What the hook or function ``name`` does this time."""
        if self.late is not None:
            return self.late(name, backward)
        number = self.hooked[name] = self.hooked.get(name, -1) + 1
        return backward if not number or not backward.again else backward.again[number - 1]

    def vector_norm(self, value: Value) -> Storage:
        """``torch.linalg.vector_norm`` of a tensor."""
        row = self.rows["vector_norm"]
        (norm,) = self.caller.run(row, [Value(value.spec, value.storage)], tuple(row.canonical({}).items()))
        assert norm is not None
        return norm.storage

    def _run(self, layer: Layer, entry: Operator | Composite, tensors: list[Any], attributes: Items) -> list[Value | None]:
        """A layer whose results lie on the host runs there, unless it brings them there."""
        found = layer.outputs or layer.reads  # what writes into a tensor of the host gives nothing
        if layer.op in ACROSS or not found or not self.on_host.issuperset(found):
            return self.caller.run(entry, tensors, attributes)
        self.ledger.on_host = True
        try:
            return self.caller.run_outside_autocast(entry, tensors, attributes)
        finally:
            self.ledger.on_host = False

    def _may_overwrite(self, layer: Layer, attributes: tuple[tuple[str, Any], ...], env: Mapping[str, Value]) -> bool:
        """What runs again overwrites what it overwrote in forward."""
        if self.ledger.phase == "backward":
            return layer.name in self.overwriting
        return may_overwrite(self.graph, layer, attributes, env, self.machine)

    def _attributes(self, layer: Layer, entry: Operator | Composite) -> tuple[tuple[str, Any], ...]:
        """All attributes, defaults included; remembered on the graph unless sizes stand in them."""
        known: tuple[tuple[str, Any], ...] | None = self.canonical.get(layer.name)
        if known is None:
            symbolic = has_expr(layer.attributes)
            given = resolve(layer.attributes, self.sizes) if symbolic else layer.attributes
            known = tuple(entry.canonical(dict(given)).items())
            if not symbolic:
                self.canonical.keep(layer.name, known)
        return known

    def _mode(self, attributes: tuple[tuple[str, Any], ...]) -> tuple[tuple[str, Any], ...]:
        """``training: None`` follows the mode of the step, ``ranks: None`` the run."""
        for name, value in (("training", self.recipe.training), ("ranks", self.ranks)):
            if (name, None) in attributes:
                attributes = tuple((k, value if k == name else v) for k, v in attributes)
        return attributes


def _bound(reference: Any, env: Mapping[str, Value]) -> Any:
    if reference is None:
        return None
    if isinstance(reference, str):
        return _value(reference, env)
    return [_value(name, env) for name in reference]


def _value(name: str, env: Mapping[str, Value]) -> Value:
    try:
        return env[name]
    except KeyError:
        raise GraphError(f"reads {name!r}, which does not exist or is gone{did_you_mean(name, env)}") from None
