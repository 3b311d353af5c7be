"""What a file says about the whole graph: the order of parameters, what dies when, the sizes it is described for.

Each function takes a graph and gives the changed one, or raises GraphError.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from memest.errors import GraphError, did_you_mean
from memest.machines.target import TORCH_CUDA
from memest.network.castings import DEVICES
from memest.network.graph import Casting, Checkpoint, Graph, Layer, made_by
from memest.sizes.dims import Expr, Guard, parse_guard, symbols_of
from memest.sources.files.functions import packing_read
from memest.sources.files.model import AutocastModel, CheckpointModel

REFUSABLE = ("train", "infer", TORCH_CUDA)


def ordered(graph: Graph, order: Sequence[str]) -> Graph:
    """Parameters in the order of the names they begin with."""
    names = [p.name for p in graph.parameters]
    unknown = next((o for o in order if not any(n == o or n.startswith(f"{o}.") for n in names)), None)
    if unknown is not None:
        owners = {n.rpartition(".")[0] for n in names}
        raise GraphError(f"order: no parameter's name begins with {unknown!r}{did_you_mean(unknown, owners)}")
    by_name = {p.name: p for p in graph.parameters}
    return graph.with_(parameters=tuple(by_name[n] for n in sorted_by(order, names)))


def sorted_by(order: Sequence[str], names: Sequence[str]) -> list[str]:
    """``names`` in the order of the entries they equal or begin with (the longest counts); those with none come last."""
    rank = {entry: i for i, entry in reversed(list(enumerate(order)))}

    def place(name: str) -> int:
        while name:
            if name in rank:
                return rank[name]
            name = name.rpartition(".")[0]
        return len(order)

    return sorted(names, key=place)


def with_drops(graph: Graph, drops: Mapping[str, Sequence[str]]) -> Graph:
    """The values that die after the layers named; every value must still die once, after its last reader."""
    layers = {layer.name: layer for layer in graph.layers}
    made = {p.name for p in graph.parameters} | {name for layer in graph.layers for name in layer.outputs}
    made |= {c.scope for layer in graph.layers for c in layer.autocast}
    for name, values in drops.items():
        if name not in layers:
            raise GraphError(f"drops: no layer {name!r}{did_you_mean(name, layers)}")
        for value in values:
            if value not in made:
                raise GraphError(f"drops: {value!r} does not exist{did_you_mean(value, made)}")
    changed = tuple(replace(layer, drops=tuple(drops[layer.name])) if layer.name in drops else layer for layer in graph.layers)
    _check_deaths(changed, graph)
    return graph.with_(layers=changed)


def _check_deaths(layers: Sequence[Layer], graph: Graph) -> None:
    """A value dies once, after it was made, after its last reader, and never when the graph returns it."""
    made: dict[str, int] = {p.name: -1 for p in graph.parameters}
    for i, layer in enumerate(layers):
        made.update(dict.fromkeys(layer.outputs, i))
        made.update(dict.fromkeys((c.scope for c in layer.autocast), i))
    dead: set[str] = set()
    for i, layer in enumerate(layers):
        gone = next((n for n in layer.reads if n in dead), None)
        if gone is not None:
            raise GraphError(f"drops: layer {layer.name!r} reads {gone!r}, which an earlier layer drops")
        for name in layer.drops:
            if name in dead or name not in made or made[name] > i or name in graph.outputs:
                raise GraphError(f"drops: {name!r} cannot die after layer {layer.name!r}")
            dead.add(name)


def castings_of(autocast: Mapping[str, Sequence[AutocastModel]]) -> dict[str, tuple[Casting, ...]]:
    """What contexts of autocast say, by layer."""
    found: dict[str, dict[str, Casting]] = {}
    for scope, said in autocast.items():
        for c in said:
            for name in c.layers:
                if c.device in found.setdefault(name, {}):
                    raise GraphError(f"autocast: {scope!r}: layer {name!r} stands in two contexts for {c.device}")
                found[name][c.device] = Casting(device=c.device, dtype=c.dtype, cache=c.cache, scope=scope)
    return {name: tuple(by_device[d] for d in DEVICES if d in by_device) for name, by_device in found.items()}


def check_castings(graph: Graph, autocast: Mapping[str, Sequence[AutocastModel]]) -> Graph:
    """Each layer that a context names is there."""
    _numbers(graph, [name for said in autocast.values() for c in said for name in c.layers], "autocast")
    return graph


def without_gradients(graph: Graph, names: Sequence[str]) -> Graph:
    """The layers named run under ``torch.no_grad()``."""
    numbers = _numbers(graph, names, "no_grad")
    return graph.with_(layers=tuple(replace(layer, grad=False) if i in numbers else layer for i, layer in enumerate(graph.layers)))


def checkpointed(graph: Graph, checkpoints: Mapping[str, Sequence[str] | CheckpointModel]) -> Graph:
    """Each name is a checkpointed call, which wraps the layers from the first to the last."""
    owner: dict[int, str] = {}
    calls: list[tuple[str, Checkpoint]] = []
    for name, said in checkpoints.items():
        ends = said.layers if isinstance(said, CheckpointModel) else said
        inside = said.inside if isinstance(said, CheckpointModel) else None
        if len(ends) != 2:
            raise GraphError(f"checkpoints: {name!r} has the first and the last layer it wraps, got {len(ends)}")
        first, last = (next(iter(_numbers(graph, [end], "checkpoints"))) for end in ends)
        wrapped = range(first, last + 1)
        if not wrapped:
            raise GraphError(f"checkpoints: {name!r}: {ends[1]!r} runs before {ends[0]!r}")
        if inside is not None and inside not in checkpoints:
            raise GraphError(f"checkpoints: {name!r}: no checkpoint {inside!r} to be inside of{did_you_mean(inside, checkpoints)}")
        around = {owner.get(i) for i in wrapped}
        if inside is None and around != {None}:
            taken = next(owner[i] for i in wrapped if i in owner)
            raise GraphError(f"checkpoints: {name!r} overlaps {taken!r}; one that stands in another says inside: {taken}")
        if inside is not None and around != {inside}:
            raise GraphError(f"checkpoints: {name!r} has layers that are not inside of {inside!r} alone, which is written before it")
        owner.update(dict.fromkeys(wrapped, name))
        if isinstance(said, CheckpointModel):
            calls.append((name, _call(graph, name, said)))
    layers = tuple(replace(layer, checkpoint=owner.get(i)) for i, layer in enumerate(graph.layers))
    return graph.with_(layers=layers, checkpoints=tuple(calls))


def _call(graph: Graph, name: str, said: CheckpointModel) -> Checkpoint:
    made = {i.name for i in graph.inputs} | {p.name for p in graph.parameters} | {n for layer in graph.layers for n in layer.outputs}
    unknown = next((n for n in (*said.arguments, *said.captured, *said.results) if n not in made), None)
    if unknown is not None:
        raise GraphError(f"checkpoints: {name!r}: tensor {unknown!r} does not exist{did_you_mean(unknown, made)}")
    return Checkpoint(
        reentrant=said.reentrant,
        preserve_rng_state=said.preserve_rng_state,
        early_stop=said.early_stop,
        arguments=tuple(said.arguments),
        inside=said.inside,
        captured=tuple(said.captured),
        selective=said.selective,
        allow_cache_entry_mutation=said.allow_cache_entry_mutation,
        results=tuple(said.results),
        enabling=tuple(said.enabling),
        grad=said.grad,
        packing=tuple(map(packing_read, said.packing)),
    )


def _numbers(graph: Graph, names: Iterable[str], where: str) -> dict[int, None]:
    numbers = {layer.name: i for i, layer in enumerate(graph.layers)}
    unknown = next((n for n in names if n not in numbers), None)
    if unknown is not None:
        raise GraphError(f"{where}: no layer {unknown!r}{did_you_mean(unknown, numbers)}")
    return {numbers[n]: None for n in names}


def selected(graph: Graph, operators: Mapping[str, Sequence[Sequence[Any]]]) -> Graph:
    """The operators of the layers named whose results a selective checkpoint keeps."""
    found = {i: tuple((str(op), int(nth)) for op, nth in operators[graph.layers[i].name]) for i in _numbers(graph, operators, "selected")}
    plain = next((graph.layers[i].name for i in found if graph.layers[i].checkpoint is None), None)
    if plain is not None:
        raise GraphError(f"selected: layer {plain!r} stands in no checkpoint")
    return graph.with_(layers=tuple(replace(la, selected=found[i]) if i in found else la for i, la in enumerate(graph.layers)))


def refused(graph: Graph, reasons: Mapping[str, str]) -> Graph:
    """The modes, or the runtime, that the network cannot be played in, and why."""
    unknown = next((m for m in reasons if m not in REFUSABLE), None)
    if unknown is not None:
        raise GraphError(f"refused: the modes are train and infer, the runtime is torch-cuda, got {unknown!r}")
    return graph.with_(refused=tuple(reasons.items()))


def on_the_host(graph: Graph, names: Sequence[str]) -> Graph:
    """The values named lie on the host where the network runs on a card."""
    _check_there("on_host", names, graph.values)
    return graph.with_(on_host=tuple(names))


def in_circles(graph: Graph, names: Sequence[str]) -> Graph:
    """The values named are there until the step is over."""
    _check_there("waiting", names, set(made_by(graph.layers)))
    return graph.with_(waiting=tuple(names))


def _check_there(key: str, names: Sequence[str], made: Collection[str]) -> None:
    unknown = next((n for n in names if n not in made), None)
    if unknown is not None:
        raise GraphError(f"{key}: {unknown!r} does not exist{did_you_mean(unknown, made)}")


def guarded(graph: Graph, texts: Sequence[str]) -> Graph:
    """The comparisons of sizes under which the network runs as described."""
    known = _sizes_of(graph)
    guards: list[Guard] = []
    for text in texts:
        guard = parse_guard(text)
        _check_known(symbols_of((guard.left, guard.right)), known, "guards")
        guards.append(guard)
    return graph.with_(guards=tuple(guards))


def check_sizes(graph: Graph) -> None:
    """Every size written into an attribute must be a dim of an input."""
    _check_known(_sizes_in(graph), _sizes_of(graph), "layers")


def _check_known(names: Iterable[str], known: set[str], where: str) -> None:
    unknown = next((n for n in sorted(names) if n not in known), None)
    if unknown is not None:
        raise GraphError(f"{where}: size {unknown!r} is not a dim of any input{did_you_mean(unknown, known)}")


def _sizes_of(graph: Graph) -> set[str]:
    return {s for i in graph.inputs for s in symbols_of(i.shape)}


def _sizes_in(graph: Graph) -> Iterable[str]:
    def walk(value: Any) -> Iterable[str]:
        if isinstance(value, Expr):
            yield from sorted(value.symbols())
        elif isinstance(value, tuple):
            for v in value:
                yield from walk(v)

    for layer in graph.layers:
        yield from walk(tuple(v for _, v in layer.attributes))
