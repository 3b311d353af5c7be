"""The timeline: a graph, its rows, a loss and an optimizer played as one step of training or inference.

The result is the ordered stream of allocations and releases that torch's CPU allocator would see, on top of what is resident.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from memest import losses, optimizers
from memest.autograd import AccumulateGrad, Machine
from memest.dims import has_expr, resolve
from memest.errors import GraphError, MemestError, UnknownNameError, UsageError, did_you_mean, unforeseen
from memest.graph import Graph, Layer
from memest.ledger import Ledger, Step, Storage, Value
from memest.libraries.cpu import Cpu
from memest.ops.composite import Composite
from memest.ops.operator import Operator
from memest.ops.table import COMPOSITES, OPERATORS
from memest.tensor import Shape, Spec, nbytes, spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What is done with the network: one training step or one inference call, and how. ``step`` is the number of the step (1: the
    optimizer's state appears during it); None stands for any later one."""

    training: bool
    optimizer: optimizers.Optimizer | None = None
    loss: losses.Loss | None = None
    hold_output: bool = False
    step: int | None = None
    cpu: Cpu = field(default_factory=Cpu)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Resident storages and the steps on top of them."""

    residents: tuple[Storage, ...]
    steps: tuple[Step, ...]
    values: Mapping[str, Spec]


class Caller:
    """Runs rows and composites by name on the machine; composites call back into it (see :class:`memest.ops.composite.Caller`)."""

    def __init__(self, machine: Machine, grad: bool) -> None:
        self._machine = machine
        self._frames: list[list[Value]] = []
        self.grad_mode = grad
        self.training = machine.training

    def call(self, op: str, *tensors: Any, **attributes: Any) -> Any:
        """Run ``op`` from inside a composite; the composite's frame holds the result."""
        entry = operator_named(op)
        outputs = self.run(entry, list(tensors), tuple(entry.canonical(attributes).items()))
        ledger = self._machine.ledger
        for v in outputs:
            if v is not None:
                ledger.hold(v)
                self._frames[-1].append(v)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def drop(self, *values: Value | None) -> None:
        """Release values of the current frame."""
        for v in values:
            if v is not None:
                _remove(self._frames[-1], v)
                self._machine.ledger.let_go(v)

    def run(self, entry: Operator | Composite, tensors: list[Any], attributes: tuple[tuple[str, Any], ...]) -> list[Value | None]:
        """Outputs of one call, unheld by this method."""
        machine = self._machine
        outer, machine.ledger.op = machine.ledger.op, entry.name
        try:
            if isinstance(entry, Operator):
                return machine.call(entry.name, tensors, attributes, self.grad_mode, entry.backward is not None)
            self._frames.append([])
            result = entry.compose(self, *tensors, **dict(attributes))
            outputs = list(result) if isinstance(result, tuple) else [result]
            self._leave(outputs)
            return outputs
        finally:
            machine.ledger.op = outer

    def _leave(self, outputs: list[Value | None]) -> None:
        """End a composite's frame: locals die, outputs stay alive without a holder of this frame."""
        ledger = self._machine.ledger
        frame = self._frames.pop()
        for v in reversed(frame):
            if not any(v is o for o in outputs):
                ledger.let_go(v)
        for v in frame:
            if any(v is o for o in outputs):
                v.refs -= 1
                v.storage.refs -= 1


def _remove(values: list[Value], value: Value) -> None:
    for i, v in enumerate(values):
        if v is value:
            del values[i]
            return


def operator_named(op: str) -> Operator | Composite:
    """The row or composite called ``op``."""
    entry = OPERATORS.get(op) or COMPOSITES.get(op)
    if entry is None:
        raise UnknownNameError(f"unknown operator {op!r}{did_you_mean(op, [*OPERATORS, *COMPOSITES])}")
    return entry


def play(graph: Graph, input_shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Recipe, *, remember: bool = True) -> Timeline:
    """The timeline of one step of ``graph`` with concrete ``input_shapes`` (``sizes`` are the symbols they bind). Symbolic shapes
    (``Dim``s) need ``remember=False``: their traces are not shared."""
    return _Player(graph, input_shapes, sizes, recipe, remember).play()


class _Player:
    def __init__(self, graph: Graph, input_shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Recipe, remember: bool) -> None:
        self.graph = graph
        self.recipe = recipe
        self.sizes = sizes
        self.ledger = Ledger()
        self.machine = Machine(self.ledger, recipe.training, recipe.cpu, remember=remember)
        self.caller = Caller(self.machine, recipe.training)
        self.env: dict[str, Value] = {}
        self.specs: dict[str, Spec] = {}
        self.leaves: list[AccumulateGrad] = []
        self._make_residents(input_shapes)

    def _make_residents(self, input_shapes: Mapping[str, Shape]) -> None:
        for p in self.graph.parameters:
            storage = self.ledger.resident(nbytes(p.shape, p.dtype), "buffer" if p.buffer else "parameter", p.name)
            value = Value(spec(p.shape, p.dtype, p.layout), storage)
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

    def play(self) -> Timeline:
        outputs = self._forward()
        if self.recipe.training:
            self._train(outputs)
        return Timeline(residents=tuple(self.ledger.residents), steps=tuple(self.ledger.steps), values=self.specs)

    def _forward(self) -> list[Value]:
        for layer in self.graph.layers:
            self._layer(layer)
        return [self.env[name] for name in self.graph.outputs]

    def _layer(self, layer: Layer) -> None:
        self.ledger.layer = layer.name
        try:
            entry = operator_named(layer.op)
            attributes = self._mode(self._attributes(layer, entry))
            outputs = self.caller.run(entry, [self._bound(t) for t in layer.tensors], attributes)
        except MemestError as e:
            raise e.at(f"layer {layer.name!r} ({layer.op})") from None
        except (ArithmeticError, LookupError, TypeError, ValueError) as e:
            raise unforeseen(e).at(f"layer {layer.name!r} ({layer.op})") from e
        if len(layer.outputs) > len(outputs):
            raise GraphError(f"layer {layer.name!r} ({layer.op}): gives {len(outputs)} outputs, {len(layer.outputs)} are named")
        for name, value in zip(layer.outputs, outputs, strict=False):
            if value is not None:
                self.env[name] = self.ledger.hold(value)
                self.specs[name] = value.spec
        for unnamed in outputs[len(layer.outputs) :]:
            if unnamed is not None:
                self.ledger.let_go(self.ledger.hold(unnamed))
        for name in layer.drops:
            self.ledger.let_go(self.env.pop(name))

    def _attributes(self, layer: Layer, entry: Operator | Composite) -> tuple[tuple[str, Any], ...]:
        """All attributes, defaults included; remembered on the graph unless sizes stand in them."""
        memo = self.graph.memo
        key = ("attributes", layer.name)
        if key not in memo:
            symbolic = has_expr(layer.attributes)
            memo[key] = None if symbolic else tuple(entry.canonical(dict(layer.attributes)).items())
        if memo[key] is None:
            return tuple(entry.canonical(dict(resolve(layer.attributes, self.sizes))).items())
        known: tuple[tuple[str, Any], ...] = memo[key]
        return known

    def _mode(self, attributes: tuple[tuple[str, Any], ...]) -> tuple[tuple[str, Any], ...]:
        """``training: None`` follows the mode of the step."""
        if ("training", None) not in attributes:
            return attributes
        return tuple((k, self.recipe.training if k == "training" and v is None else v) for k, v in attributes)

    def _bound(self, reference: Any) -> Any:
        if reference is None:
            return None
        if isinstance(reference, str):
            return self._value(reference)
        return [self._value(name) for name in reference]

    def _value(self, name: str) -> Value:
        try:
            return self.env[name]
        except KeyError:
            raise GraphError(f"reads {name!r}, which does not exist or is gone{did_you_mean(name, self.env)}") from None

    def _train(self, outputs: list[Value]) -> None:
        recipe, ledger = self.recipe, self.ledger
        if recipe.loss is None or recipe.optimizer is None:
            raise UsageError("training needs a loss and an optimizer")
        ledger.phase, ledger.layer = "loss", "loss"
        prediction = outputs[0]
        if not recipe.hold_output:
            first, *others = self.graph.outputs
            self._let_outputs_go(tuple(name for name in others if name != first))
        target_spec = recipe.loss.target(prediction.spec)
        target = ledger.hold(Value(target_spec, ledger.resident(nbytes(target_spec.shape, target_spec.dtype), "input", "target")))
        entry = recipe.loss.composite
        absent = [None] * (len(entry.roles) - 2)
        (loss,) = self.caller.run(entry, [prediction, target, *absent], tuple(entry.canonical({}).items()))
        assert loss is not None
        ledger.hold(loss)
        if not recipe.hold_output:
            self._let_outputs_go(self.graph.outputs[:1])
        if not loss.requires_grad:
            raise GraphError("nothing to train: no trainable parameter reaches the loss")
        ledger.phase, ledger.layer, ledger.op = "backward", "loss", "ones_like"
        gradient = ledger.hold(Value(loss.spec, ledger.allocate(nbytes(loss.shape, loss.spec.dtype), "gradient")))
        self.machine.backward(loss, gradient)
        ledger.let_go(gradient)
        if not recipe.hold_output:
            ledger.let_go(loss)
        self._optimize(recipe.optimizer)
        if recipe.hold_output:
            ledger.layer, ledger.op = "", ""
            self._let_outputs_go(self.graph.outputs)
            ledger.let_go(loss)

    def _optimize(self, optimizer: optimizers.Optimizer) -> None:
        ledger, number = self.ledger, self.recipe.step
        ledger.phase = "optimizer_step"
        trained = [leaf for leaf in self.leaves if leaf.name in self.machine.gradients]
        for leaf in trained:
            for state in optimizers.resident_states(optimizer, leaf.value.spec, number):
                ledger.resident(nbytes(state.shape, state.dtype), "optimizer_state", leaf.name)
        optimizers.play_step(optimizer, ledger, [leaf.value for leaf in trained], [leaf.name for leaf in trained], number)

    def _let_outputs_go(self, names: tuple[str, ...]) -> None:
        """``model(x)`` was an argument only: it dies when the loss is there, and outputs that the loss does not take before that."""
        own = {i.name for i in self.graph.inputs} | {p.name for p in self.graph.parameters}
        for name in dict.fromkeys(names):
            if name in self.env and name not in own:
                self.ledger.let_go(self.env.pop(name))
