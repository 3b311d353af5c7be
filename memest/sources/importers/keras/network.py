"""A Keras 3 network's configuration as a layer graph: each layer as the calls that torch has for it.

The graph has torch's order of dims, channels first, in memory that lies channels last, as Keras's torch backend has it. Sizes of the input
are names, so other sizes can be asked about; a layer that was built for another number of features is an error then. What a configuration
says of code (``Lambda``, classes of one's own) is never executed: such layers are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memest.errors import FileError, GraphError, MemestError, UnsupportedError, UsageError, did_you_mean, unforeseen
from memest.network.dtypes import ITEMSIZE
from memest.network.graph import Graph
from memest.network.usual import Usual, Way
from memest.sizes import asked
from memest.sizes.dims import Expr, Guard, recording, symbol
from memest.sizes.dims import plain as plain_size
from memest.sources.builder import Builder
from memest.sources.importers.keras.layer import Call
from memest.sources.importers.keras.layers.table import HANDLERS, OPERATIONS
from memest.sources.importers.keras.reading import FOREIGN, NETWORKS, read
from memest.sources.importers.keras.values import Value

NOTES = ("from a Keras file: dims stand in torch's order, channels first; memory lies channels last",)
TENSOR, INPUT = "__keras_tensor__", "InputLayer"
SPATIAL = {1: ("L",), 2: ("H", "W"), 3: ("D", "H", "W")}
POLICIES = ("float32",)
MOST_CALLS = 100_000
DEEPEST = 32


def from_keras(path: Path, example: Any = None, name: str | None = None) -> Graph:
    """The graph in a ``.keras`` archive or a configuration's ``.json``. ``example`` (a shape with the batch, channels first; a list of
    them, or a mapping by name; left out: the file's own sizes) says at which sizes comparisons are made.

    Raises FileError for a file that is none, UnsupportedError for a layer without a rule, UsageError for an example that does not fit."""
    raw = read(path)
    guards: dict[Guard, None] = {}
    try:
        with recording(guards):
            graph = _Import(path, raw, example, name).graph()
    except RecursionError:
        raise FileError(f"{path}: its networks are nested too deeply") from None
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as e:
        raise FileError(f"{path} {FOREIGN} ({type(e).__name__}: {e})") from e
    return graph.with_(guards=tuple(guards), notes=NOTES)


@dataclass
class _Layer:
    """A layer of a configuration, and what its calls have given so far."""

    raw: Mapping[str, Any]
    name: str
    owner: str
    calls: list[list[Value]] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return str(self.raw.get("class_name"))

    @property
    def config(self) -> Mapping[str, Any]:
        found = self.raw.get("config")
        if not isinstance(found, dict):
            raise FileError(f"layer {self.name!r} has no config")
        return found


class _Import:
    """A configuration becoming a graph."""

    def __init__(self, path: Path, raw: Mapping[str, Any], example: Any, name: str | None) -> None:
        self._path, self._raw = path, raw
        self._shapes = {given: shape for given, shape, _ in _inputs(raw, path)}
        sizes = _examples(self._shapes, example, path)
        self._own = _examples(self._shapes, None, path)
        self._own_sizes = self._own.items() <= sizes.items()
        self._builder = Builder(name or str(raw["config"].get("name") or path.stem), sizes)
        self._calls = 0

    def graph(self) -> Graph:
        """The layers, and what the network gives back."""
        inputs = []
        for given, shape, dtype in _inputs(self._raw, self._path):
            with recording(None):
                dims = _ordered(_dims(shape))
                node = self._builder.input(given, dims, dtype, "channels_last" if len(dims) > 3 else "contiguous")
            inputs.append(Value(node, len(dims) > 2))
        outputs = self._network(self._raw, inputs, "", "", 0)
        built = self._builder.build(*(v.node for v in outputs))
        names = sorted({s for i in built.inputs for d in i.shape if isinstance(d, Expr) for s in d.symbols()})
        return built.with_(examples=tuple((s, plain_size(self._builder.size(symbol(s)))) for s in names), usual=self._usual(names))

    def _usual(self, names: Sequence[str]) -> Usual | None:
        """The sizes that the file states, one sample of them; None where it leaves a size open."""
        own = {"N": 1, **self._own}
        if not own.keys() >= set(names):
            return None
        way = Way(sizes=tuple((name, own[name]) for name in names))
        return Usual(train=way, infer=way, call=way)

    def _network(self, raw: Mapping[str, Any], inputs: Sequence[Value], prefix: str, owner: str, depth: int) -> list[Value]:
        """What a network gives for ``inputs``; its layers' names begin with ``prefix``, those of their parameters with ``owner``."""
        if depth > DEEPEST:
            raise UnsupportedError(f"{self._path}: networks nested deeper than {DEEPEST}")
        layers = [_Layer(each, prefix + _name(each), owner + _name(each)) for each in raw["config"]["layers"]]
        if raw["class_name"] == "Sequential":
            return self._in_a_row(layers, inputs, depth)
        by_name = {_name(layer.raw): layer for layer in layers}
        given = iter(inputs)
        starts = _references(raw["config"].get("input_layers"))
        for start, _, _ in starts:
            by_name[start].calls.append([next(given)])
        calls = [(layer, n, node) for layer in layers for n, node in enumerate(layer.raw.get("inbound_nodes") or ())]
        waiting = [call for call in calls if call[0].kind != INPUT]
        while waiting:
            left = []
            for layer, n, node in waiting:
                if n == len(layer.calls) and all(_there(by_name, r) for r in _read(node)):
                    layer.calls.append(self._called(layer, node, by_name, depth))
                else:
                    left.append((layer, n, node))
            if len(left) == len(waiting):
                layer = left[0][0]
                raise FileError(f"{self._path}: layer {layer.name!r} reads what no layer gives: its calls go in a circle")
            waiting = left
        return [by_name[name].calls[n][place] for name, n, place in _references(raw["config"].get("output_layers"))]

    def _in_a_row(self, layers: Sequence[_Layer], inputs: Sequence[Value], depth: int) -> list[Value]:
        values = list(inputs)
        for layer in layers:
            if layer.kind != INPUT:
                values = self._run(layer, values, [], depth)
                layer.calls.append(values)
        return values

    def _called(self, layer: _Layer, node: Any, by_name: Mapping[str, _Layer], depth: int) -> list[Value]:
        """The outputs of one call, whose arguments a functional network states."""
        if not isinstance(node, dict):
            raise FileError(f"{self._path}: layer {layer.name!r} was written by Keras 2; load it with Keras 3 and save it anew")
        values = [by_name[name].calls[n][place] for name, n, place in _read(node)]
        given = [*node.get("args", ()), *(v for k, v in (node.get("kwargs") or {}).items() if k != "mask")]
        return self._run(layer, values, given, depth)

    def _run(self, layer: _Layer, values: Sequence[Value], arguments: Sequence[Any], depth: int) -> list[Value]:
        self._calls += 1
        if self._calls > MOST_CALLS:
            raise UnsupportedError(f"{self._path}: more than {MOST_CALLS:,} calls of layers")
        times = f"_{len(layer.calls)}" if layer.calls else ""
        if layer.kind in NETWORKS:
            return self._network(layer.raw, values, f"{layer.name}{times}.", f"{layer.owner}.", depth + 1)
        place = f"{self._path}: layer {layer.name!r} ({layer.kind})"
        handler = self._handler(layer, place)
        built = layer.raw.get("build_config")
        known = built if isinstance(built, dict) else {}
        call = Call(f"{layer.name}{times}", layer.owner, layer.config, known, values, arguments, self._builder, self._own_sizes)
        try:
            _check_policy(layer.config)
            made = handler(call)
        except MemestError as e:
            raise e.at(place) from None
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as e:
            raise unforeseen(e).at(place) from e
        return [made]

    def _handler(self, layer: _Layer, place: str) -> Any:
        """What a layer becomes. UnsupportedError for code of the file's own, and for a layer without a rule."""
        module = str(layer.raw.get("module") or "")
        if layer.kind == "Lambda":
            raise UnsupportedError(f"{place}: runs Python code that the file holds, which is never executed; use layers in its place")
        if module.startswith(("keras.src.ops", "keras.ops")):
            found = OPERATIONS.get(layer.kind)
            if found is None:
                raise UnsupportedError(f"{place}: no rule for Keras's operation {layer.kind!r}{did_you_mean(layer.kind, OPERATIONS)}")
            return found
        if not module.startswith("keras"):
            if not module:
                raise FileError(
                    f"{place}: says nothing of its module, as Keras 3 writes it; load the network with Keras 3 and save it anew"
                )
            known = layer.raw.get("registered_name") or module
            raise UnsupportedError(f"{place}: a class of your own ({known}), whose code is not in the file")
        found = HANDLERS.get(layer.kind)
        if found is None:
            raise UnsupportedError(f"{place}: no rule for Keras's layer {layer.kind!r}{did_you_mean(layer.kind, HANDLERS)}")
        return found


def _check_policy(config: Mapping[str, Any]) -> None:
    policy = config.get("dtype", "float32")
    name = policy.get("config", {}).get("name") if isinstance(policy, dict) else policy
    if name not in POLICIES:
        raise UnsupportedError(f"no rule for the dtype policy {name!r:.40}; save the network in float32, and ask with a dtype or autocast")


def _name(raw: Any) -> str:
    if not isinstance(raw, dict) or not isinstance(raw.get("config"), dict):
        raise FileError("a layer is no mapping with a config")
    return str(raw.get("name") or raw["config"].get("name") or raw.get("class_name"))


def _inputs(raw: Mapping[str, Any], path: Path) -> list[tuple[str, tuple[int | None, ...], str]]:
    """Name, shape in Keras's order and dtype of each input."""
    layers = raw["config"]["layers"]
    if raw["class_name"] == "Sequential":
        starts = [_name(layer) for layer in layers[:1]]
    else:
        starts = [name for name, _, _ in _references(raw["config"].get("input_layers"))]
    by_name = {_name(layer): layer for layer in layers}
    found = []
    for name in starts:
        config = by_name[name]["config"]
        shape = config.get("batch_shape") or config.get("batch_input_shape")
        if shape is None and isinstance(by_name[name].get("build_config"), dict):
            shape = by_name[name]["build_config"].get("input_shape")
        if not isinstance(shape, list) or not all(n is None or isinstance(n, int) for n in shape):
            raise UnsupportedError(f"{path}: the input {name!r} says nothing of its shape; give the network an Input before it is saved")
        dtype = config.get("dtype") if by_name[name].get("class_name") == INPUT else "float32"
        dtype = dtype if isinstance(dtype, str) else "float32"
        if dtype not in ITEMSIZE:
            raise UnsupportedError(f"{path}: the input {name!r} is of dtype {dtype!r:.40}")
        found.append((name, tuple(shape), dtype))
    if not found:
        raise FileError(f"{path} {FOREIGN}: it has no input")
    return found


def _dims(shape: Sequence[int | None]) -> list[int | str]:
    """In Keras's order: the batch, sizes by their usual names, and the channels, which are a number."""
    spatial = SPATIAL.get(len(shape) - 2)
    if shape[-1] is None:
        raise UnsupportedError("an input without a number of channels; build the network with one")
    if spatial is None:
        return ["N", *(n if n is not None else f"d{i}" for i, n in enumerate(shape[1:], 1))]
    return ["N", *spatial, shape[-1]]


def _ordered(dims: list[int | str]) -> list[int | str]:
    return dims if len(dims) < 3 else [dims[0], dims[-1], *dims[1:-1]]


def _examples(shapes: Mapping[str, Sequence[int | None]], example: Any, path: Path) -> dict[str, int]:
    """The sizes that an example gives to names; without one those that the file has."""
    found: dict[str, int] = {}
    for shape in shapes.values():
        found.update({d: n for d, n in zip(_dims(shape), shape, strict=True) if isinstance(d, str) and n is not None})
    if example is None:
        return found
    given = asked.by_name(list(shapes), example)
    for name, shape in shapes.items():
        if name not in given:
            continue
        one = given.pop(name)
        sizes = tuple(one.shape) if asked.is_tensor(one) else asked.shape(one)
        dims = _ordered(_dims(shape))
        if len(sizes) == len(dims) - 1:  # without the batch
            dims = dims[1:]
        if len(sizes) != len(dims) or any(isinstance(d, int) and d != n for d, n in zip(dims, sizes, strict=True)):
            turned = " (channels come first here)" if len(sizes) == len(dims) and sizes[-1] == shape[-1] else ""
            raise UsageError(f"{path}: input {name!r} is {'x'.join(map(str, dims))}, got {'x'.join(map(str, sizes))}{turned}")
        found.update((d, plain_size(n)) for d, n in zip(dims, sizes, strict=True) if isinstance(d, str))
    if given:
        other = next(iter(given))
        raise UsageError(f"{path} has no input {other!r}{did_you_mean(other, shapes) or '; it has ' + ', '.join(shapes)}")
    return found


def _references(given: Any) -> list[tuple[str, int, int]]:
    """Which outputs of which calls: one as ``[name, call, output]``, or a list or mapping of such."""
    if isinstance(given, dict):
        return [r for value in given.values() for r in _references(value)]
    if isinstance(given, list) and len(given) == 3 and isinstance(given[0], str):
        return [(given[0], int(given[1]), int(given[2]))]
    if isinstance(given, list):
        return [r for value in given for r in _references(value)]
    raise GraphError(f"{given!r:.60} names no output of a layer")


def _read(node: Any) -> list[tuple[str, int, int]]:
    """The tensors that a call reads, in order."""
    return list(_tensors([node.get("args", ()), node.get("kwargs") or {}] if isinstance(node, dict) else node))


def _tensors(value: Any) -> Iterator[tuple[str, int, int]]:
    if isinstance(value, dict):
        if value.get("class_name") == TENSOR:
            name, n, place = value["config"]["keras_history"]
            yield str(name), int(n), int(place)
            return
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner)


def _there(layers: Mapping[str, _Layer], reference: tuple[str, int, int]) -> bool:
    """Whether what a call reads is there; FileError for a layer that the network has not."""
    name, n, place = reference
    if name not in layers:
        raise FileError(f"reads {name!r}, which is no layer of the network")
    calls = layers[name].calls
    return n < len(calls) and place < len(calls[n])
