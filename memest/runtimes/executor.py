"""A graph played forward without autograd: values die where the graph drops them. What engines and the null runtime are made of.

An operator that a runtime's rows call plain allocates its outputs and nothing else, a composite's parts included; another one does what
its row says, scratch and all. What works in place or looks at another's storage allocates nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from memest.errors import GraphError, MemestError, UnsupportedError, unforeseen
from memest.machines.target import Target
from memest.memory.stream import Event, Storage, Stream
from memest.network.graph import Graph, Layer, at_sizes
from memest.network.tensor import Shape, Spec, nbytes, spec
from memest.ops.composite import Composite
from memest.ops.reading import Items
from memest.ops.shapes import Row, Seen, Shapes
from memest.runtimes.runtime import Rows
from memest.runtimes.torch.step.recipe import Recipe
from memest.sizes.dims import resolve


def check_plain(recipe: Recipe) -> None:
    """UnsupportedError for a recipe that is more than one call of the network (tiles, autocast, parallel runs)."""
    if replace(recipe, hold_output=False, step=None, segments=()) != Recipe(training=False, target=recipe.target):
        raise UnsupportedError(f"runtime {recipe.target.runtime} plays one plain call of the network: leave out {beyond_plain(recipe)}")


def beyond_plain(recipe: Recipe) -> str:
    """What makes a recipe more than the network as it stands, as it is asked for."""
    return "keep_grads, which is of torch's zero_grad" if recipe.keep_grads else "levers that change how torch runs it"


def play(
    graph: Graph, input_shapes: Mapping[str, Shape], sizes: Mapping[str, int], target: Target, rows: Rows, *, remember: bool
) -> Stream:
    """One call of the network. Parameters and inputs stand before it; its outputs stay after it."""
    run = Execution(target, rows, remember=remember)
    specs: dict[str, Spec] = {}
    for call in calls(run, graph, input_shapes, sizes):
        specs.update((name, value.spec) for name, value in zip(call.layer.outputs, call.outputs, strict=False) if value is not None)
    return Stream(residents=tuple(run.residents), events=tuple(run.events), values=specs)


class Call(NamedTuple):
    """A layer as it was called: what was bound to its roles (a tensor, several, or None), and what it gave."""

    layer: Layer
    tensors: Sequence[Any]
    outputs: Sequence[Seen | None]


def calls(run: Execution, graph: Graph, input_shapes: Mapping[str, Shape], sizes: Mapping[str, int]) -> Iterator[Call]:
    """One call of the network, layer by layer; what a layer drops is gone when the next one is asked for."""
    env: dict[str, Seen] = {}
    for p in (at_sizes(p, sizes) for p in graph.parameters):
        env[p.name] = run.stand(p.name, spec(p.shape, p.dtype, p.layout), "buffer" if p.buffer else "parameter")
    for i in graph.inputs:
        env[i.name] = run.stand(i.name, spec(input_shapes[i.name], i.dtype, i.layout), "input")
    for layer in graph.layers:
        try:
            run.layer = layer.name
            tensors = [_bound(t, env) for t in layer.tensors]
            outputs = run.run(run.rows[layer.op], tensors, _attributes(run.rows[layer.op], layer, sizes))
        except MemestError as e:
            raise e.at(f"layer {layer.name!r} ({layer.op})") from None
        except (ArithmeticError, LookupError, TypeError, ValueError) as e:
            raise unforeseen(e).at(f"layer {layer.name!r} ({layer.op})") from e
        if len(layer.outputs) > len(outputs):
            raise GraphError(f"layer {layer.name!r} ({layer.op}): gives {len(outputs)} outputs, {len(layer.outputs)} are named")
        for value in outputs:
            run.hold(value)
        for name, value in zip(layer.outputs, outputs, strict=False):
            if value is not None:
                env[name] = value
        yield Call(layer, tensors, outputs)
        for unnamed in outputs[len(layer.outputs) :]:
            run.let_go(unnamed)
        for name in layer.drops:
            run.let_go(env.pop(name, None))


class Execution:
    """The calls of one run (:class:`memest.ops.composite.Caller`), and the storages they leave."""

    training = False
    grad_mode = False

    def __init__(self, target: Target, rows: Rows, *, remember: bool) -> None:
        self.rows = rows
        self.residents: list[Storage] = []
        self.events: list[Event] = []
        self.layer = ""
        self._shapes = Shapes(target, False, remember=remember)
        self._frames: list[list[Seen]] = []
        self._made = 0

    def stand(self, name: str, described: Spec, category: str) -> Seen:
        """A tensor that is there before the call, and after it."""
        storage = self._storage(nbytes(described.shape, described.dtype), category, name, "")
        storage.refs = 1
        self.residents.append(storage)
        return Seen(described, storage)

    def call(self, op: str, *tensors: Any, **attributes: Any) -> Any:
        """A call from inside a composite, whose frame holds what it gives."""
        entry = self.rows[op]
        outputs = self.run(entry, tensors, tuple(entry.canonical(attributes).items()))
        for value in outputs:
            if value is not None:
                self.hold(value)
                self._frames[-1].append(value)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def drop(self, *values: Seen | None) -> None:
        """Values of the current frame go before it ends."""
        for value in values:
            if value is not None:
                frame = self._frames[-1]
                del frame[next(i for i, v in enumerate(frame) if v is value)]
                self.let_go(value)

    def run(self, entry: Row, tensors: Any, attributes: Items) -> list[Seen | None]:
        """The outputs of one call, held by nobody yet."""
        if self.rows.is_plain(entry.name):
            return self._plain(entry, tensors, attributes)
        if isinstance(entry, Composite):
            return self._composite(entry, tensors, attributes)
        trace, flat = self._shapes.read(entry, tensors, attributes)
        storages = {i: value.storage for i, value in enumerate(flat)}
        for slot, size, scratch, *_ in trace.events:
            if size < 0:
                self._release(storages[slot], entry.name)
            else:
                storages[slot] = self._allocate(size, "workspace" if scratch else "temporary", entry.name)
        return self._shapes.outputs(trace, flat, storages)

    def _plain(self, entry: Row, tensors: Any, attributes: Items) -> list[Seen | None]:
        outputs = self._shapes.run(entry, tensors, attributes)
        made: dict[int, Storage] = {}
        for value in outputs:
            if value is not None and not isinstance(value.storage, Storage):
                token = id(value.storage)
                if token not in made:
                    made[token] = self._allocate(nbytes(value.spec.shape, value.spec.dtype), "temporary", entry.name)
                value.storage = made[token]
        return outputs

    def _composite(self, entry: Composite, tensors: Any, attributes: Items) -> list[Seen | None]:
        self._frames.append([])
        result = entry.compose(self, *tensors, **dict(attributes))
        outputs: list[Seen | None] = list(result) if isinstance(result, tuple) else [result]
        for value in reversed(self._frames.pop()):
            if any(value is o for o in outputs):
                value.storage.refs -= 1
            else:
                self.let_go(value)
        return outputs

    def hold(self, value: Seen | None) -> None:
        """One holder more."""
        if value is not None:
            value.storage.refs += 1

    def let_go(self, value: Seen | None) -> None:
        """One holder less; the last one releases the storage."""
        if value is not None:
            value.storage.refs -= 1
            self._release(value.storage, "")

    def _storage(self, size: int, category: str, layer: str, op: str) -> Storage:
        self._made += 1
        return Storage(self._made, size, category, layer, op, "")

    def _allocate(self, size: int, category: str, op: str) -> Storage:
        storage = self._storage(size, category, self.layer, op)
        if size:
            self.events.append(Event(size, storage, "forward", self.layer, op))
        return storage

    def _release(self, storage: Storage, op: str) -> None:
        if storage.refs == 0 and storage.nbytes:
            self.events.append(Event(-storage.nbytes, storage, "forward", self.layer, op))


def _attributes(entry: Row, layer: Layer, sizes: Mapping[str, int]) -> Items:
    given = entry.canonical(dict(resolve(layer.attributes, sizes)))
    return tuple((k, False if k == "training" and v is None else v) for k, v in given.items())


def _bound(reference: Any, env: Mapping[str, Seen]) -> Any:
    if reference is None:
        return None
    if isinstance(reference, str):
        return _value(reference, env)
    return [_value(name, env) for name in reference]


def _value(name: str, env: Mapping[str, Seen]) -> Seen:
    try:
        return env[name]
    except KeyError:
        raise GraphError(f"reads {name!r}, which does not exist or is gone") from None
