"""The player: walks the layers of a graph, holds their values, and leaves the ordered stream of allocations and releases that torch's
CPU allocator would see, on top of what is resident.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memest.autograd import AccumulateGrad, Machine
from memest.dims import has_expr, resolve
from memest.errors import GraphError, MemestError, did_you_mean, unforeseen
from memest.graph import Graph, Layer
from memest.ledger import Ledger, Step, Storage, Value
from memest.ops.composite import Composite
from memest.ops.operator import Operator
from memest.shown import counted
from memest.tensor import Shape, Spec, nbytes, spec
from memest.timeline.averaging import hold_average
from memest.timeline.batches import Batch, whole
from memest.timeline.caller import Caller, operator_named
from memest.timeline.checkpointing import Frame
from memest.timeline.overwriting import may_overwrite
from memest.timeline.parallel import Alone, Parallel, Replicate
from memest.timeline.recipe import Recipe
from memest.timeline.segments import check_segments
from memest.timeline.tiling import play_tiles
from memest.timeline.training import train


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Resident storages and the steps on top of them; ``overwriting`` names the layers that the recipe made write over their input,
    ``ran_again`` those that ran once more in backward."""

    residents: tuple[Storage, ...]
    steps: tuple[Step, ...]
    values: Mapping[str, Spec]
    overwriting: tuple[str, ...] = ()
    ran_again: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Timeline: {counted(len(self.steps), 'event')} on top of {counted(len(self.residents), 'resident tensor')}>"


def play(graph: Graph, input_shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Recipe, *, remember: bool = True) -> Timeline:
    """The timeline of one step of ``graph`` with concrete ``input_shapes`` (``sizes`` are the symbols they bind). Symbolic shapes
    (``Dim``s) need ``remember=False``: their traces are not shared."""
    return Player(graph, input_shapes, sizes, recipe, remember).play()


class Player:
    """One run of the layers: the ledger, the machine and the values alive, by name."""

    kind_of_machine: type[Machine] = Machine

    def __init__(self, graph: Graph, input_shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Recipe, remember: bool) -> None:
        self.graph = graph
        self.recipe = recipe
        self.sizes = sizes
        self.ledger = Ledger()
        self.machine = self.kind_of_machine(self.ledger, recipe.training, recipe.cpu, recipe.torch, remember=remember)
        self.caller = Caller(self.machine, recipe.training, recipe.autocast)
        self.env: dict[str, Value] = {}
        self.owned = {p.name for p in graph.parameters}
        self.specs: dict[str, Spec] = {}
        self.leaves: list[AccumulateGrad] = []
        self.overwriting: dict[str, None] = {}
        self.parallel = _parallel(self, recipe.parallel)
        self.ran_again: list[str] = []
        self.canonical = graph.memo.shelf("attributes", len(graph.layers))
        check_segments(graph, recipe)
        self._make_residents(input_shapes)

    def _make_residents(self, input_shapes: Mapping[str, Shape]) -> None:
        for p in self.graph.parameters:
            value = Value(spec(p.shape, p.dtype, p.layout), self.parallel.place(p))
            if p.trainable and not p.buffer:
                value.requires_grad = True
                if self.recipe.training:
                    leaf = AccumulateGrad(value, p.name)
                    value.node = leaf
                    self.leaves.append(leaf)
            self.env[p.name] = self.ledger.hold(value)
        for i in self.graph.inputs:
            shape = input_shapes[i.name]
            value = Value(spec(shape, i.dtype, i.layout), self.ledger.resident(nbytes(shape, i.dtype), "input", i.name))
            self.env[i.name] = self.ledger.hold(value)
        if self.recipe.average is not None:
            hold_average(self.ledger, self.graph)
        self.parallel.hold_residents()

    def play(self) -> Timeline:
        """The whole step."""
        if self.recipe.training:
            train(self)
        elif self.recipe.tiles is not None:
            play_tiles(self, self.recipe.tiles)
        else:
            self.forward(whole(self))
            self.caller.leave_autocast()
        ledger = self.ledger
        return Timeline(
            residents=tuple(ledger.residents),
            steps=tuple(ledger.steps),
            values=self.specs,
            overwriting=tuple(self.overwriting),
            ran_again=tuple(self.ran_again),
        )

    def forward(self, batch: Batch) -> list[Value]:
        """One call of the network; its outputs, held by their names. Begins the autocast context, if there is one."""
        self.caller.enter_autocast()
        given, self.sizes = self.sizes, batch.sizes
        held = {name: self.env[name] for name in batch.inputs}
        self.env.update(batch.inputs)
        self.parallel.before_forward()
        done = 0
        for segment in self.recipe.segments:
            self._one_by_one(done, segment.start)
            self.parallel.enter(segment.start, segment.end - 1)
            self.ledger.layer, self.ledger.op = self.graph.layers[segment.start].name, "checkpoint"
            Frame(self, segment).run()
            self.parallel.leave(segment.end - 1)
            done = segment.end
        self._one_by_one(done, len(self.graph.layers))
        self.parallel.after_forward()
        self.sizes = given
        outputs = [self.env[name] for name in self.graph.outputs]
        self.env.update(held)
        return outputs

    def _one_by_one(self, start: int, end: int) -> None:
        """Layers outside of checkpointed segments."""
        for index in range(start, end):
            self.parallel.enter(index, index)
            self.run(index, index + 1, self.env)
            self.parallel.leave(index)

    def run(self, start: int, end: int, env: dict[str, Value]) -> None:
        """The layers number ``start`` up to ``end``, on the values in ``env``."""
        again = self.ledger.phase == "backward"
        for index in range(start, end):
            layer = self.graph.layers[index]
            self._layer(layer, env)
            if again:
                self.ran_again.append(layer.name)

    def _layer(self, layer: Layer, env: dict[str, Value]) -> None:
        self.ledger.layer = layer.name
        if not layer.grad:
            self.caller.grad_mode = False
        try:
            entry = operator_named(layer.op)
            attributes = self._mode(self._attributes(layer, entry))
            if self.recipe.inplace and self._may_overwrite(layer, attributes, env):
                attributes = tuple((k, True if k == "inplace" else v) for k, v in attributes)
                self.overwriting[layer.name] = None
            outputs = self.caller.run(entry, [_bound(t, env) for t in layer.tensors], attributes)
        except MemestError as e:
            raise e.at(f"layer {layer.name!r} ({layer.op})") from None
        except (ArithmeticError, LookupError, TypeError, ValueError) as e:
            raise unforeseen(e).at(f"layer {layer.name!r} ({layer.op})") from e
        finally:
            self.caller.grad_mode = self.recipe.training
        if len(layer.outputs) > len(outputs):
            raise GraphError(f"layer {layer.name!r} ({layer.op}): gives {len(outputs)} outputs, {len(layer.outputs)} are named")
        for name, value in zip(layer.outputs, outputs, strict=False):
            if value is not None:
                env[name] = self.ledger.hold(value)
                self.specs[name] = value.spec
        for unnamed in outputs[len(layer.outputs) :]:
            if unnamed is not None:
                self.ledger.let_go(self.ledger.hold(unnamed))
        for name in layer.drops:
            if name in env:  # a segment's caller drops what is the caller's
                value = env.pop(name)
                self.ledger.let_go(value)
                if name in self.owned:
                    self.ledger.let_go_storage(value.storage)

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
        """``training: None`` follows the mode of the step."""
        if ("training", None) not in attributes:
            return attributes
        return tuple((k, self.recipe.training if k == "training" and v is None else v) for k, v in attributes)


def _parallel(player: Player, plan: Parallel | None) -> Alone:
    """What the other ranks add to the step."""
    if plan is None:
        return Alone(player)
    if isinstance(plan, Replicate):
        from memest.timeline.parallel.replicas import Replicas

        return Replicas(player, plan)
    from memest.timeline.parallel.shards import Shards

    return Shards(player, plan)


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
