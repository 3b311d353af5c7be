"""The file form of a graph: YAML or JSON, read safely, written losslessly.

    memest: 1
    name: tiny
    inputs:
      x: [N, 3, H, W]
    blocks:
      unit:
        arguments: [width]
        inputs: [x]
        layers:
          - conv2d: {out: c, in: x, out_channels: $width, kernel_size: 3, padding: 1}
          - relu: {in: c, inplace: true}
    layers:
      - unit: {name: stage1, in: x, width: 64}
    outputs: [stage1]

A layer is ``operator: {settings}``. ``in`` names what it reads (the layer before, when left out), ``name`` and ``out`` name it; the
rest are torch.nn's keywords and the operator's attributes. A block is written once and used like an operator; ``$argument`` stands for
what it is given. Files are data: no tags, no code; size, nesting and alias expansion are bounded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from memest.builder import Builder, Node
from memest.dims import Expr, parse
from memest.dtypes import ITEMSIZE
from memest.errors import FileError, GraphError, MemestError, did_you_mean
from memest.graph import Graph, Layer, default_drops
from memest.ops.modules import MODULES
from memest.ops.table import COMPOSITES, OPERATORS

VERSION = 1
MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 40
MAX_NODES = 2_000_000
MAX_LAYERS = 100_000
RESERVED = frozenset({"in", "out", "name", "trainable", "shares", "tensors", "hold_until"})

Dim = int | str
Settings = dict[str, Any]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)


class TensorModel(_Strict):
    """An input, a parameter or a buffer."""

    shape: list[Dim]
    dtype: str = "float32"
    layout: str = "contiguous"


class ParameterModel(TensorModel):
    """A tensor the network owns."""

    trainable: bool = True
    buffer: bool = False


LayerModel = Annotated[dict[str, Settings | None], Field(min_length=1, max_length=1)]


class BlockModel(_Strict):
    """Layers written once: ``arguments`` (a list, or names with defaults), input names, the value it gives (the last layer's)."""

    arguments: list[str] | dict[str, Any] = Field(default_factory=list)
    inputs: list[str] = Field(default_factory=lambda: ["input"])
    layers: list[LayerModel]
    output: str | None = None


class GraphModel(_Strict):
    """A whole file."""

    memest: int = VERSION
    name: str = "graph"
    inputs: dict[str, list[Dim] | TensorModel]
    parameters: dict[str, ParameterModel] = Field(default_factory=dict)
    blocks: dict[str, BlockModel] = Field(default_factory=dict)
    layers: list[LayerModel]
    outputs: list[str] | None = None
    drops: dict[str, list[str]] | None = None
    inference: GraphModel | None = None


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a graph file."""
    return GraphModel.model_json_schema()


# reading -----------------------------------------------------------------------------------------------------------------


def load(path: str | Path) -> Graph:
    """The graph in a ``.yaml``, ``.yml`` or ``.json`` file. FileError names the place in the file."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise FileError(f"{path}: {size:,} bytes; a graph file has at most {MAX_BYTES:,} (use blocks)")
        raw = path.read_bytes()
    except OSError as e:
        raise FileError(f"{path}: {e.strerror or e}") from None
    return loads(raw, form="json" if path.suffix == ".json" else "yaml", source=str(path))


def loads(raw: bytes | str, *, form: str = "yaml", source: str = "<text>") -> Graph:
    """The graph in a text."""
    if isinstance(raw, bytes):
        try:
            raw = raw.decode("utf-8")
        except UnicodeDecodeError as e:
            raise FileError(f"{source}: not UTF-8 (byte {e.start})") from None
    if len(raw) > MAX_BYTES:
        raise FileError(f"{source}: more than {MAX_BYTES:,} characters")
    data = _json(raw, source) if form == "json" else _yaml(raw, source)
    return from_dict(data, source=source)


def from_dict(data: Any, *, source: str = "<data>") -> Graph:
    """The graph in plain data."""
    if not isinstance(data, dict):
        raise FileError(f"{source}: a graph file is a mapping with inputs and layers")
    try:
        model = GraphModel.model_validate(data)
    except ValidationError as e:
        raise FileError(f"{source}: {_first_problem(e)}") from None
    except RecursionError:
        raise FileError(f"{source}: nested too deep") from None
    if model.memest != VERSION:
        raise FileError(f"{source}: memest: {model.memest}; this version reads files of version {VERSION}")
    try:
        return _Reader(model).read()
    except FileError:
        raise
    except MemestError as e:
        raise type(e)(f"{source}: {e}") from None
    except RecursionError:
        raise FileError(f"{source}: blocks nested too deep") from None


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(p) for p in problem["loc"]) or "top level"
    hint = ""
    if problem["type"] == "extra_forbidden":
        fields = {**GraphModel.model_fields, **TensorModel.model_fields, **BlockModel.model_fields, **ParameterModel.model_fields}
        hint = did_you_mean(str(problem["loc"][-1]), fields)
    return f"{place}: {problem['msg']}{hint}"


class _SafeLoader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """Plain data only: duplicate keys and tags are refused."""


def _mapping(loader: Any, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        text = str(key.value)
        if text in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {text!r} stands twice", key.start_mark)
        seen.add(text)
    result: dict[Any, Any] = yaml.SafeLoader.construct_mapping(loader, node, deep=True)
    return result


_SafeLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _yaml(raw: str, source: str) -> Any:
    try:
        _bounded(raw)
        return yaml.load(raw, Loader=_SafeLoader)
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise FileError(f"{source}: {where}{' '.join(str(e.problem or e.context).split())}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as e:
        raise FileError(f"{source}: not YAML: {' '.join(str(e).split())[:200]}") from None
    except RecursionError:
        raise FileError(f"{source}: nested deeper than {MAX_DEPTH}") from None


def _bounded(raw: str) -> None:
    """Walk the parse events once: nesting, tags, and what aliases would expand to, before anything is built."""
    depth = 0
    sizes: dict[str, int] = {}
    stack: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(raw, Loader=yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            total += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            total += 1
            if event.tag is not None and event.tag != "!":
                raise yaml.MarkedYAMLError(problem=f"tags are not allowed ({event.tag})", problem_mark=event.start_mark)
        if total > MAX_NODES:
            raise yaml.MarkedYAMLError(problem=f"aliases expand to more than {MAX_NODES:,} values", problem_mark=event.start_mark)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            stack.append((event.anchor, total))
            if depth > MAX_DEPTH:
                raise yaml.MarkedYAMLError(problem=f"nested deeper than {MAX_DEPTH}", problem_mark=event.start_mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
            anchor, before = stack.pop()
            if anchor is not None:
                sizes[anchor] = total - before + 1


def _json(raw: str, source: str) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [k for k, _ in items]
        if len(set(keys)) != len(keys):
            raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} stands twice")
        return dict(items)

    try:
        return json.loads(raw, object_pairs_hook=pairs)
    except json.JSONDecodeError as e:
        raise FileError(f"{source}: line {e.lineno}, column {e.colno}: {e.msg}") from None
    except ValueError as e:
        raise FileError(f"{source}: {e}") from None
    except RecursionError:
        raise FileError(f"{source}: nested too deep") from None


class _Reader:
    """Builds the graph of a validated file."""

    def __init__(self, model: GraphModel) -> None:
        self.model = model
        self.builder = Builder(model.name, _example_sizes(model))
        self.nodes: dict[str, Node] = {}
        self.count = 0
        self.explicit: dict[str, list[str]] = model.drops or {}

    def read(self) -> Graph:
        model, b = self.model, self.builder
        for name, given in model.inputs.items():
            t = TensorModel(shape=given) if isinstance(given, list) else given
            _check_tensor(f"inputs.{name}", t)
            self.nodes[name] = b.input(name, t.shape, t.dtype, t.layout)
        for name, p in model.parameters.items():
            _check_tensor(f"parameters.{name}", p)
            if not all(isinstance(d, int) for d in p.shape):
                raise FileError(f"parameters.{name}: a parameter's dims are numbers")
            dims = [d for d in p.shape if isinstance(d, int)]
            self.nodes[name] = b.parameter(name, dims, dtype=p.dtype, trainable=p.trainable, buffer=p.buffer, layout=p.layout)
        _known_first(model)
        last = self._layers(model.layers, "layers", {}, None, ())
        outputs = model.outputs if model.outputs is not None else ([last.name] if last is not None else [])
        if not outputs:
            raise FileError("outputs: the graph has none")
        graph = b.build(*[self._find(n, self.nodes, "outputs") for n in outputs])
        if model.drops is not None:
            graph = graph.with_(layers=tuple(_dropped(layer, self.explicit) for layer in graph.layers))
        if model.inference is not None:
            graph = graph.with_(inference=_Reader(model.inference).read())
        return graph

    def _layers(self, entries: Sequence[Mapping[str, Any]], place: str, scope: Mapping[str, Node], previous: Node | None, path: tuple[str, ...]) -> Node | None:
        names: dict[str, Node] = dict(scope)
        for i, entry in enumerate(entries):
            ((op, settings),) = entry.items()
            self.count += 1
            if self.count > MAX_LAYERS:
                raise FileError(f"{place}.{i}: more than {MAX_LAYERS:,} layers")
            made = self._one(op, dict(settings or {}), f"{place}.{i}.{op}", names, previous, path)
            previous = made[0] if made else previous
        self._scope_names = names
        return previous

    def _one(self, op: str, settings: Settings, place: str, names: dict[str, Node], previous: Node | None, path: tuple[str, ...]) -> list[Node]:
        inputs = self._inputs(settings.pop("in", None), place, names, previous)
        name = settings.pop("name", None)
        out = settings.pop("out", None)
        if name is not None and not isinstance(name, str):
            raise FileError(f"{place}.name: expected a text, got {name!r}")
        if op in self.model.blocks:
            node = self._block(op, settings, place, inputs, name if name is not None else out if isinstance(out, str) else None, path)
            made = [node]
            label = out if isinstance(out, str) else name
            if label is not None:
                self._name(label, node, names, place)
            return made
        if op not in OPERATORS and op not in COMPOSITES:
            raise GraphError(f"{place}: unknown operator {op!r}{did_you_mean(op, [*OPERATORS, *COMPOSITES, *self.model.blocks])}")
        outputs = [out] if isinstance(out, str) else list(out or ())
        label = name or (outputs[0] if len(outputs) == 1 else None)
        prefixed = tuple(".".join((*path, o)) for o in outputs) if outputs and outputs != [label] else ()
        keywords = {k: _value(v) for k, v in settings.items()}
        trainable, shares = keywords.pop("trainable", True), keywords.pop("shares", None)
        result = self._call(op, inputs, ".".join((*path, label)) if label else None, path, prefixed, trainable, shares, keywords, place, names)
        made = list(result) if isinstance(result, tuple) else [result]
        for node in made:
            self.nodes[node.name] = node
            local = node.name.removeprefix(".".join(path) + ".") if path else node.name
            names[local] = node
        return made

    def _call(self, op: str, inputs: list[Any], name: str | None, path: tuple[str, ...], outputs: tuple[str, ...], trainable: Any, shares: Any, keywords: Settings, place: str, names: dict[str, Node]) -> Any:
        if not isinstance(trainable, bool):
            raise FileError(f"{place}.trainable: expected true or false")
        bound = keywords.pop("tensors", None)
        if bound is not None:
            inputs = self._roles(op, bound, place, names)
        if name is None and path:
            with self.builder.scope(".".join(path)):
                return self.builder.layer(op, *inputs, outputs=outputs, trainable=trainable, shares=shares, **keywords)
        if shares is not None and not isinstance(shares, str):
            raise FileError(f"{place}.shares: expected the name of a layer")
        return self.builder.layer(op, *inputs, name=name, outputs=outputs, trainable=trainable, shares=shares, **keywords)

    def _roles(self, op: str, bound: Any, place: str, names: dict[str, Node]) -> list[Any]:
        """``tensors: {role: name}``: every role bound by name."""
        roles = [r.rstrip("?*") for r in (OPERATORS.get(op) or COMPOSITES[op]).roles]
        if not isinstance(bound, dict):
            raise FileError(f"{place}.tensors: expected a mapping from roles to names")
        for role in bound:
            if role not in roles:
                raise FileError(f"{place}.tensors: {op} has no role {role!r}{did_you_mean(str(role), roles)}")
        found: list[Any] = []
        for role in roles:
            ref = bound.get(role)
            found.append(None if ref is None else [self._find(r, names, place) for r in ref] if isinstance(ref, list) else self._find(ref, names, place))
        return found

    def _block(self, op: str, settings: Settings, place: str, inputs: list[Any], name: str | None, path: tuple[str, ...]) -> Node:
        block = self.model.blocks[op]
        if len(path) > MAX_DEPTH:
            raise FileError(f"{place}: blocks nested deeper than {MAX_DEPTH} (does {op!r} use itself?)")
        defaults = dict.fromkeys(block.arguments, ...) if isinstance(block.arguments, list) else dict(block.arguments)
        for key in settings:
            if key not in defaults:
                raise FileError(f"{place}: block {op!r} has no argument {key!r}{did_you_mean(key, defaults)}")
        values = {**defaults, **settings}
        missing = [k for k, v in values.items() if v is ...]
        if missing:
            raise FileError(f"{place}: block {op!r} needs {missing[0]!r}")
        flat = [x for i in inputs for x in (i if isinstance(i, list) else [i])]
        if len(flat) != len(block.inputs):
            raise FileError(f"{place}: block {op!r} reads {len(block.inputs)} inputs ({', '.join(block.inputs)}), got {len(flat)}")
        label = name or self._unnamed(op, path)
        entries = [_substituted(entry, values, place) for entry in block.layers]
        scope = dict(zip(block.inputs, flat, strict=True))
        for p in self.model.parameters:
            scope.setdefault(p, self.nodes[p])
        inner = (*path, label)
        last = self._layers(entries, f"{place}.layers", scope, flat[0] if flat else None, inner)
        local = self._scope_names
        if block.output is not None:
            return self._find(block.output, local, f"{place}.output")
        if last is None:
            raise FileError(f"{place}: block {op!r} has no layers")
        return last

    def _unnamed(self, op: str, path: tuple[str, ...]) -> str:
        n = 1
        while any(k.startswith(".".join((*path, f"{op}_{n}")) + ".") for k in self.nodes):
            n += 1
        return f"{op}_{n}"

    def _name(self, label: str, node: Node, names: dict[str, Node], place: str) -> None:
        if label in names:
            raise GraphError(f"{place}: the name {label!r} is taken")
        names[label] = node

    def _inputs(self, given: Any, place: str, names: Mapping[str, Node], previous: Node | None) -> list[Any]:
        if given is None:
            first = previous if previous is not None else next(iter(names.values()), None) if len(self.model.inputs) == 1 else None
            return [] if first is None else [first]
        references = given if isinstance(given, list) else [given]
        if len(references) == 1 and isinstance(references[0], list):
            return [[self._find(r, names, place) for r in references[0]]]
        return [None if r is None else [self._find(s, names, place) for s in r] if isinstance(r, list) else self._find(r, names, place) for r in references]

    def _find(self, name: Any, names: Mapping[str, Node], place: str) -> Node:
        if not isinstance(name, str):
            raise FileError(f"{place}: expected the name of a value, got {name!r}")
        node = names.get(name) or self.nodes.get(name)
        if node is None:
            known = [*names, *self.nodes]
            later = any(name in _labels(e) for e in self.model.layers)
            why = "is made by a later layer (a cycle, or the wrong order)" if later else "does not exist"
            raise GraphError(f"{place}: reads {name!r}, which {why}{'' if later else did_you_mean(name, known)}")
        return node


def _labels(entry: Mapping[str, Any]) -> list[str]:
    ((_, settings),) = entry.items()
    if not isinstance(settings, dict):
        return []
    found = [settings.get("name"), settings.get("out")]
    return [f for f in found if isinstance(f, str)]


def _known_first(model: GraphModel) -> None:
    for name in model.blocks:
        if name in OPERATORS or name in COMPOSITES:
            raise FileError(f"blocks.{name}: an operator has that name already")


def _check_tensor(place: str, t: TensorModel) -> None:
    if t.dtype not in ITEMSIZE:
        raise FileError(f"{place}.dtype: unknown dtype {t.dtype!r}{did_you_mean(t.dtype, ITEMSIZE)}")
    if t.layout not in ("contiguous", "channels_last"):
        raise FileError(f"{place}.layout: expected contiguous or channels_last, got {t.layout!r}")
    for d in t.shape:
        if isinstance(d, int) and d < 1:
            raise FileError(f"{place}.shape: sizes are positive, got {d}")


def _example_sizes(model: GraphModel) -> dict[str, int]:
    return {}


def _dropped(layer: Layer, explicit: Mapping[str, list[str]]) -> Layer:
    return Layer(name=layer.name, op=layer.op, tensors=layer.tensors, attributes=layer.attributes, outputs=layer.outputs, drops=tuple(explicit.get(layer.name, ())))


def _substituted(value: Any, arguments: Mapping[str, Any], place: str) -> Any:
    """``$name`` replaced by the argument; ``$(2*width)`` computed."""
    if isinstance(value, dict):
        return {_substituted(k, arguments, place): _substituted(v, arguments, place) for k, v in value.items()}
    if isinstance(value, list):
        return [_substituted(v, arguments, place) for v in value]
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    text = value[1:]
    if text in arguments:
        return arguments[text]
    if text.startswith("(") and text.endswith(")"):
        expr = parse(text[1:-1])
        if isinstance(expr, int):
            return expr
        numbers = {k: v for k, v in arguments.items() if isinstance(v, int) and not isinstance(v, bool)}
        return expr.evaluate(numbers)
    raise FileError(f"{place}: {value!r} is not an argument of the block{did_you_mean(text, arguments)}")


def _value(value: Any) -> Any:
    """A setting as the builder takes it: lists as tuples, ``=H//2`` as an expression."""
    if isinstance(value, list):
        return tuple(_value(v) for v in value)
    if isinstance(value, str) and value.startswith("="):
        return parse(value[1:])
    return value


# writing -----------------------------------------------------------------------------------------------------------------


def to_dict(graph: Graph) -> dict[str, Any]:
    """The graph as plain data that :func:`from_dict` reads back to an equal graph."""
    own, shorthand = _shorthand(graph)
    data: dict[str, Any] = {"memest": VERSION, "name": graph.name, "inputs": {}}
    for i in graph.inputs:
        dims = [d.text if isinstance(d, Expr) else d for d in i.shape]
        plain = i.dtype == "float32" and i.layout == "contiguous"
        data["inputs"][i.name] = dims if plain else {"shape": dims, "dtype": i.dtype, "layout": i.layout}
    explicit = {p.name: _parameter(p) for p in graph.parameters if p.name not in own}
    if explicit:
        data["parameters"] = explicit
    data["layers"] = [_layer(layer, shorthand.get(layer.name)) for layer in graph.layers]
    data["outputs"] = list(graph.outputs)
    permanent = [i.name for i in graph.inputs] + [p.name for p in graph.parameters]
    if default_drops(graph.layers, graph.outputs, permanent) != graph.layers:
        data["drops"] = {layer.name: list(layer.drops) for layer in graph.layers if layer.drops}
    if graph.inference is not None:
        data["inference"] = to_dict(graph.inference)
    return data


def dumps(graph: Graph, *, form: str = "yaml") -> str:
    """The graph as YAML or JSON text."""
    data = to_dict(graph)
    if form == "json":
        return json.dumps(data, indent=1) + "\n"
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=140))


class _Dumper(yaml.SafeDumper):
    """No anchors: plain text a person can read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _parameter(p: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"shape": list(p.shape)}
    if p.dtype != "float32":
        entry["dtype"] = p.dtype
    if p.layout != "contiguous":
        entry["layout"] = p.layout
    if p.buffer:
        entry["buffer"] = True
    if not p.trainable:
        entry["trainable"] = False
    return entry


def _shorthand(graph: Graph) -> tuple[set[str], dict[str, Settings]]:
    """Layers whose parameters are just those torch.nn would make: (their parameters' names, the keywords to write instead)."""
    owned: set[str] = set()
    keywords: dict[str, Settings] = {}
    position = {p.name: i for i, p in enumerate(graph.parameters)}
    order = 0
    for layer in graph.layers:
        found = _module_keywords(graph, layer)
        if found is None:
            continue
        settings, names = found
        places = [position[n] for n in names]
        if any(n in owned for n in names) or places != sorted(places) or (places and places[0] < order):
            continue
        order = places[-1] if places else order
        owned.update(names)
        keywords[layer.name] = settings
    return (owned, keywords) if _in_order(graph, owned) else (set(), {})


def _in_order(graph: Graph, owned: set[str]) -> bool:
    """Explicit parameters are read before the layers' own: mixed orders are written explicitly."""
    flags = [p.name in owned for p in graph.parameters]
    return flags == sorted(flags)


def _module_keywords(graph: Graph, layer: Layer) -> tuple[Settings, list[str]] | None:
    module = MODULES.get(layer.op)
    if module is None:
        return None
    by_name = {p.name: p for p in graph.parameters} if "by_name" not in graph.memo else graph.memo["by_name"]
    graph.memo["by_name"] = by_name
    roles = [r.rstrip("?*") for r in OPERATORS[layer.op].roles] if layer.op in OPERATORS else [r.rstrip("?*") for r in COMPOSITES[layer.op].roles]
    bound = {role: by_name[t] for role, t in zip(roles, layer.tensors, strict=True) if isinstance(t, str) and t in by_name}
    if any(p.name != f"{layer.name}.{role}" or p.layout != "contiguous" for role, p in bound.items()):
        return None
    options = _options_from(layer, bound)
    if options is None:
        return None
    attributes = dict(layer.attributes)
    checked = {a.name: {**attributes, **options}.get(a.name, a.default) for a in module.options}
    if any(v is ... for v in checked.values()):
        return None
    try:
        made = module.parameters((), checked)
    except (GraphError, TypeError, IndexError):
        return None
    if [(p.role, p.shape, p.buffer, p.dtype) for p in made] != [(r, p.shape, p.buffer, p.dtype) for r, p in sorted(bound.items(), key=lambda i: _rank(made, i[0]))]:
        return None
    frozen = {p.trainable for p in bound.values() if not p.buffer}
    if len(frozen) > 1:
        return None
    if frozen == {False}:
        options = {**options, "trainable": False}
    return options, [p.name for _, p in sorted(bound.items(), key=lambda i: _rank(made, i[0]))]


def _rank(made: Sequence[Any], role: str) -> int:
    return next((i for i, p in enumerate(made) if p.role == role), len(made))


def _options_from(layer: Layer, bound: Mapping[str, Any]) -> Settings | None:
    """torch.nn's keywords, read off the parameters' shapes."""
    weight = bound.get("weight")
    attributes = dict(layer.attributes)
    op = layer.op
    if op.startswith("conv"):
        if weight is None:
            return None
        groups = attributes.get("groups", 1)
        a, b = weight.shape[0], weight.shape[1] * groups
        inside, outside = (a, b) if op.startswith("conv_transpose") else (b, a)
        return {"in_channels": inside, "out_channels": outside, "kernel_size": list(weight.shape[2:]), "bias": "bias" in bound}
    if op == "linear":
        return None if weight is None else {"in_features": weight.shape[1], "out_features": weight.shape[0], "bias": "bias" in bound}
    some = next(iter(bound.values()), None)
    if op == "batch_norm":
        if some is None:
            return None
        tracks = "running_mean" in bound
        return {"num_features": some.shape[0], "affine": weight is not None, "track_running_stats": tracks}
    if op == "instance_norm":
        return None if some is None else {"num_features": some.shape[0], "affine": True}
    if op == "group_norm":
        return {"num_channels": some.shape[0]} if some is not None else {"affine": False, "num_channels": 0}
    if op == "layer_norm":
        return {"elementwise_affine": weight is not None, "bias": "bias" in bound}
    if op == "prelu":
        return None if weight is None else {"num_parameters": weight.shape[0]}
    return None


def _layer(layer: Layer, shorthand: Settings | None) -> dict[str, Any]:
    entry: Settings = {"name": layer.name}
    roles = [r.rstrip("?*") for r in (OPERATORS.get(layer.op) or COMPOSITES[layer.op]).roles]
    if shorthand is not None:
        entry["in"] = layer.tensors[0]
    else:
        entry["tensors"] = {r: list(t) if isinstance(t, tuple) else t for r, t in zip(roles, layer.tensors, strict=True) if t is not None}
        if len(entry["tensors"]) == 1 and isinstance(layer.tensors[0], str) and layer.op not in MODULES:
            entry["in"] = layer.tensors[0]
            del entry["tensors"]
    if layer.outputs != (layer.name,):
        entry["out"] = list(layer.outputs)
    for key, value in {**dict(layer.attributes), **(shorthand or {})}.items():
        entry[key] = _plain(value)
    return {layer.op: entry}


def _plain(value: Any) -> Any:
    if isinstance(value, Expr):
        return f"={value.text}"
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value


def names_in(graph: Graph) -> Iterator[str]:
    """Every name of the graph: inputs, parameters, layers' outputs."""
    yield from (i.name for i in graph.inputs)
    yield from (p.name for p in graph.parameters)
    for layer in graph.layers:
        yield from layer.outputs
