"""From a file to a Graph: the layers go through the Builder, one by one, and whatever goes wrong is told with its line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from memest import files
from memest.errors import FileError, GraphError, MemestError, ShapeError, UsageError, did_you_mean, kind_of
from memest.network.graph import Graph
from memest.ops.modules import MODULES
from memest.ops.operator import canonical_attributes
from memest.ops.table import COMPOSITES, OPERATORS
from memest.sizes.dims import Expr, parse
from memest.sources.builder import Builder, Node
from memest.sources.files.finishing import (
    castings_of,
    check_castings,
    check_sizes,
    checkpointed,
    guarded,
    in_circles,
    on_the_host,
    ordered,
    refused,
    selected,
    with_drops,
    without_gradients,
)
from memest.sources.files.functions import with_functions, with_hooks, with_packing
from memest.sources.files.model import VERSION, BlockModel, GraphModel, Settings, first_problem
from memest.sources.files.settings import (
    BLOCK_WORDS,
    arguments_of,
    check_keywords,
    check_tensor,
    label_of,
    labels_of,
    number_of,
    outputs_of,
    owner_of,
    replaced,
)

MAX_LAYERS = 50_000
MAX_BLOCK_DEPTH = 32
EXAMPLE_SIZES = (256, 224, 128, 64, 32, 28, 299, 512)
Names = dict[str, Node]
Entry = Mapping[str, Any]
Place = tuple[str | int, ...]


def load(path: str | Path) -> Graph:
    """The graph in a ``.yaml``, ``.yml`` or ``.json`` file. Raises FileError or GraphError with the file and the line."""
    path = Path(path)
    try:
        with path.open("rb") as f:
            raw = f.read(files.MAX_BYTES + 1)
    except (OSError, ValueError) as e:
        raise FileError(f"{path}: {getattr(e, 'strerror', None) or e}") from None
    return loads(raw, form="json" if path.suffix.lower() == ".json" else "yaml", source=str(path))


def loads(raw: bytes | str, *, form: str = "yaml", source: str = "<text>") -> Graph:
    """The graph in a text, ``form`` ``yaml`` or ``json``; ``source`` is what errors call it."""
    if not isinstance(raw, bytes | str):
        raise UsageError(f"loads takes the text of a graph file, got {kind_of(raw)}")
    if not isinstance(form, str) or form not in ("yaml", "json"):
        raise UsageError(f"form is 'yaml' or 'json', got {kind_of(form)}")
    text = files.decode(raw, source)
    data = files.parse(text, form, source)
    try:
        return _graph(data)
    except _LocatedError as e:
        line = files.line_of(text, e.path)
        where = source if line is None else f"{source}: line {line}"
        raise type(e.error)(f"{where}: {e.error}") from None


def from_dict(data: Any, *, source: str = "<data>") -> Graph:
    """The graph in plain data, as JSON or YAML would give it."""
    try:
        return _graph(data)
    except _LocatedError as e:
        raise type(e.error)(f"{source}: {'.'.join(map(str, e.path)) or 'top'}: {e.error}") from None


class _LocatedError(Exception):
    """An error and the path in the file of what caused it."""

    def __init__(self, error: MemestError, path: Sequence[str | int]) -> None:
        super().__init__(str(error))
        self.error = error
        self.path = tuple(path)


def _graph(data: Any) -> Graph:
    if not isinstance(data, dict):
        raise _LocatedError(FileError("a graph file is a mapping with inputs and layers"), ())
    try:
        model = GraphModel.model_validate(data)
    except ValidationError as e:
        path, message = first_problem(e, data)
        raise _LocatedError(FileError(message), path) from None
    except RecursionError:
        raise _LocatedError(FileError("nested too deep"), ()) from None
    return _read(model, ())


def _read(model: GraphModel, place: Place) -> Graph:
    """The graph of a validated file, checked at the file's example sizes or at the first common size that fits."""
    if model.memest != VERSION:
        raise _LocatedError(FileError(f"memest: {model.memest}; this version reads files of version {VERSION}"), (*place, "memest"))
    candidates: list[Mapping[str, int]] = [_examples(model, place)]
    if model.examples is None:
        symbols = _symbols(model)
        candidates = [dict.fromkeys(symbols, size) for size in EXAMPLE_SIZES] if symbols else [{}]
    first: _LocatedError | None = None
    for sizes in candidates:
        reader = _Reader(model, sizes, place)
        try:
            return reader.read()
        except MemestError as e:
            first = first or _LocatedError(e, reader.place)
            if not isinstance(e, ShapeError):
                break
        except RecursionError:
            raise _LocatedError(FileError(f"blocks nested deeper than {MAX_BLOCK_DEPTH}"), reader.place) from None
    assert first is not None
    raise first


def _examples(model: GraphModel, place: Place) -> dict[str, int]:
    for name, size in (model.examples or {}).items():
        if size < 1:
            raise _LocatedError(FileError(f"example sizes are positive, got {size}"), (*place, "examples", name))
    return dict(model.examples or {})


def _symbols(model: GraphModel) -> list[str]:
    """Names of sizes in the inputs, but for the batch's."""
    found: set[str] = set()
    for t in model.inputs.values():
        for d in t.shape:
            expr = _dim(d)
            found |= expr.symbols() if isinstance(expr, Expr) else set()
    return sorted(found - {"N"})


def _dim(d: int | str) -> int | Expr:
    try:
        return parse(d) if isinstance(d, str) else d
    except GraphError:
        return 1  # said with its place when the input is made


class _Reader:
    """Builds the graph of one file; ``place`` is where it stands, for whoever tells an error."""

    def __init__(self, model: GraphModel, sizes: Mapping[str, int], root: Place) -> None:
        self.model = model
        self.root = root
        self.place: Place = root
        self.builder = Builder(model.name, sizes, model.torch)
        self.builder.castings = castings_of(model.autocast or {})
        self.names: Names = {}
        self.count = 0
        self.uses: dict[str, int] = {}
        self.owners: set[str] = set()
        self.early: set[str] = set()
        self.later = {label: settings for label, settings in map(owner_of, model.layers) if label is not None}

    def read(self) -> Graph:
        self._check_blocks()
        self._declare()
        last = self._layers(self.model.layers, (*self.root, "layers"), self.names, self._only_input(), ())
        outputs = self._outputs(last)
        self.at("holds")
        self.builder.keep_until_here(*(self._find(n, self.names, "holds") for n in self.model.holds))
        graph = self.builder.build(*outputs)
        self.at("layers")
        check_sizes(graph)
        graph = self._finished(graph)
        if self.model.inference is not None:
            graph = graph.with_(inference=_read(self.model.inference, (*self.root, "inference")))
        return graph.with_(examples=tuple(self.model.examples.items())) if self.model.examples else graph

    def at(self, *steps: str | int) -> None:
        """Where the reader stands now."""
        self.place = (*self.root, *steps)

    # what stands before the layers -------------------------------------------------------------------------------------

    def _declare(self) -> None:
        if not self.model.inputs:
            self.at("inputs")
            raise FileError("inputs: a graph has at least one")
        for name, t in self.model.inputs.items():
            self.at("inputs", name)
            check_tensor(f"input {name!r}", t)
            self.names[name] = self.builder.input(name, t.shape, t.dtype, t.layout)
        for name, p in self.model.parameters.items():
            self.at("parameters", name)
            check_tensor(f"parameter {name!r}", p)
            if not p.buffer and not all(isinstance(d, int) for d in p.shape):
                raise FileError(f"parameter {name!r}: its sizes are numbers, got {p.shape}; a buffer's may be those of an input")
            if not (p.buffer or p.registered):
                raise FileError(f"parameter {name!r}: what is not registered is a buffer; add buffer: true")
            self.names[name] = self.builder.parameter(name, p.shape, **p.model_dump(exclude={"shape"}))

    def _check_blocks(self) -> None:
        for name, block in self.model.blocks.items():
            self.at("blocks", name)
            if name in OPERATORS or name in COMPOSITES:
                raise FileError(f"block {name!r}: an operator has that name")
            taken = next((a for a in block.arguments if a in BLOCK_WORDS), None)
            if taken is not None:
                raise FileError(f"block {name!r}: {taken!r} cannot be an argument, every block has it")
            if len(set(block.inputs)) < len(block.inputs):
                raise FileError(f"block {name!r}: an input is named twice")

    def _only_input(self) -> Node | None:
        return self.names[next(iter(self.model.inputs))] if len(self.model.inputs) == 1 else None

    # layers ------------------------------------------------------------------------------------------------------------

    def _layers(self, entries: Sequence[Entry], place: Place, names: Names, previous: Node | None, path: tuple[str, ...]) -> Node | None:
        """Every entry in order; returns what the last one gives. ``names`` are those the entries may use, and grow."""
        for i, entry in enumerate(entries):
            ((op, settings),) = entry.items()
            self.place = (*place, i, op)
            self.count += 1
            if self.count > MAX_LAYERS:
                raise FileError(f"more than {MAX_LAYERS:,} layers, blocks expanded")
            if op in self.model.blocks:
                previous = self._block(op, dict(settings or {}), names, previous, path)
            else:
                previous = self._operator(op, dict(settings or {}), names, previous, path)
        return previous

    def _operator(self, op: str, settings: Settings, names: Names, previous: Node | None, path: tuple[str, ...]) -> Node | None:
        if op not in OPERATORS and op not in COMPOSITES:
            raise GraphError(f"unknown operator {op!r}{did_you_mean(op, [*OPERATORS, *COMPOSITES, *self.model.blocks])}")
        name, given = label_of(op, settings.pop("name", None)), settings.pop("out", None)
        out = outputs_of(op, given)
        label = name or (out[0] if len(out) == 1 else None)
        shown = f"layer {label!r} ({op})" if label else f"layer of {op}"
        check_keywords(op, settings, shown)
        inputs = self._bound(op, settings.pop("tensors")) if "tensors" in settings else self._inputs(settings, shown, names, previous)
        inputs = self._resolved(inputs, names, shown)
        full = ".".join((*path, label)) if label else None
        owning = self._owning(op, settings, full, path, shown)
        outputs = None if given is None or out == [label] else tuple(".".join((*path, o)) for o in out)
        keywords = {k: self._value(v) for k, v in settings.items()}
        if full is not None:
            made = self.builder.layer(op, *inputs, name=full, outputs=outputs, **owning, **keywords)
        else:
            with self.builder.scope(".".join(path)) if path else nullcontext():
                made = self.builder.layer(op, *inputs, outputs=outputs, **owning, **keywords)
        found = list(made) if isinstance(made, tuple) else [made]
        for node in found:
            names[node.name.removeprefix(".".join(path) + ".") if path else node.name] = node
        return found[0] if found else previous

    def _owning(self, op: str, settings: Settings, full: str | None, path: tuple[str, ...], shown: str) -> Settings:
        """Who owns the parameters: this layer, or another one that shares them."""
        trainable, shares, owner = settings.pop("trainable", True), settings.pop("shares", None), settings.pop("owner", None)
        if not isinstance(trainable, bool):
            raise GraphError(f"{shown}: trainable is true or false, got {trainable!r}")
        for key, value in (("shares", shares), ("owner", owner)):
            if value is not None and not isinstance(value, str):
                raise GraphError(f"{shown}: {key} is a name, got {value!r}")
        owner = None if owner is None else ".".join((*path, owner))
        if shares is not None:
            scoped = ".".join((*path, shares))
            shares = scoped if scoped in self.owners else shares
            self._early(shares)
        elif op in MODULES and (owner or full) in self.early:
            shares, owner = owner or full, None
            for option in MODULES[op].options:  # they made the parameters already
                if option.name not in MODULES[op].passes:
                    settings.pop(option.name, None)
        elif full is not None:
            self.owners.add(owner or full)
        return {"trainable": trainable, "shares": shares, "owner": owner}

    def _early(self, owner: str) -> bool:
        """Make the parameters of a later layer now, because a layer before it reads them; True when that could be done."""
        if owner in self.owners or owner in self.early or owner not in self.later:
            return False
        op, settings = self.later[owner]
        module = MODULES[op]
        options = {a.name: self._value(settings[a.name]) for a in module.options if a.name in settings}
        try:
            canonical_attributes(op, module.options, options)
            self.builder.unused(op, name=owner, trainable=settings.get("trainable", True) is not False, **options)
        except MemestError:
            return False
        self.early.add(owner)
        return True

    # blocks ------------------------------------------------------------------------------------------------------------

    def _block(self, op: str, settings: Settings, names: Names, previous: Node | None, path: tuple[str, ...]) -> Node:
        block, here = self.model.blocks[op], self.place
        name, out = label_of(op, settings.pop("name", None)), settings.pop("out", None)
        if out is not None and not isinstance(out, str):
            raise GraphError(f"block {op!r}: out is one name, got {out!r}")
        if len(path) >= MAX_BLOCK_DEPTH:
            raise FileError(f"blocks nested deeper than {MAX_BLOCK_DEPTH} (does {op!r} use itself?)")
        repeat, first = number_of(op, "repeat", settings.pop("repeat", None)), number_of(op, "first", settings.pop("first", None))
        inputs = self._resolved(self._inputs(settings, f"block {op!r}", names, previous), names, f"block {op!r}")
        values = arguments_of(op, block, settings)
        flat = [x for i in inputs for x in (i if isinstance(i, list) else [i]) if x is not None]
        if len(flat) != len(block.inputs):
            raise GraphError(f"block {op!r} reads {len(block.inputs)} inputs ({', '.join(block.inputs)}), got {len(flat)}")
        label = name or out
        for inner in self._paths(op, label, path, repeat, first or 0):
            self.place = here
            flat = [self._use(op, block, values, flat, inner), *flat[1:]]
        self.place = here
        if not flat:
            raise GraphError(f"block {op!r} gives nothing: it has no inputs and is repeated 0 times")
        for alias in {label, out} - {None}:
            if alias in names:
                raise GraphError(f"the name {alias!r} is taken")
            names[str(alias)] = flat[0]
        result: Node = flat[0]
        return result

    def _paths(self, op: str, label: str | None, path: tuple[str, ...], repeat: int | None, first: int) -> list[tuple[str, ...]]:
        """The path of each use: the block's name once, or numbers behind it."""
        if repeat is None:
            return [(*path, label or self._unnamed(op, path))]
        root = (*path, label) if label else path
        return [(*root, str(i)) for i in range(first, first + repeat)]

    def _use(self, op: str, block: BlockModel, values: Mapping[str, Any], inputs: list[Node], path: tuple[str, ...]) -> Node:
        """One use of a block: its layers inside a module that holds the inputs until it ends."""
        names: Names = {p: self.names[p] for p in self.model.parameters}
        names.update(zip(block.inputs, inputs, strict=True))
        place = (*self.root, "blocks", op, "layers")
        with self.builder.holding(*inputs):
            entries = [self._substituted(e, values, (*place, i)) for i, e in enumerate(block.layers)]
            last = self._layers(entries, place, names, inputs[0] if inputs else None, path)
            self.place = (*self.root, "blocks", op, "holds")
            self.builder.keep_until_here(*(self._find(n, names, f"block {op!r} holds") for n in block.holds))
        self.place = (*self.root, "blocks", op)
        if block.output is not None:
            return self._find(block.output, names, f"block {op!r}")
        if last is None:
            raise GraphError(f"block {op!r} gives nothing")
        return last

    def _substituted(self, entry: Mapping[str, Any], values: Mapping[str, Any], place: Place) -> Mapping[str, Any]:
        self.place = place
        found: Entry = replaced(entry, values)
        return found

    def _unnamed(self, op: str, path: tuple[str, ...]) -> str:
        key = ".".join((*path, op))
        self.uses[key] = self.uses.get(key, 0) + 1
        return f"{op}_{self.uses[key]}"

    # names -------------------------------------------------------------------------------------------------------------

    def _bound(self, op: str, given: Any) -> list[Any]:
        """References by role, ``tensors: {role: name}``."""
        roles = [r.rstrip("?*") for r in (OPERATORS.get(op) or COMPOSITES[op]).roles]
        if not isinstance(given, dict):
            raise GraphError(f"{op}: tensors maps roles to names, got {given!r}")
        for role in given:
            if role not in roles:
                raise GraphError(f"{op} has no role {role!r}{did_you_mean(str(role), roles)}; it has {', '.join(roles)}")
        return [given.get(role) for role in roles]

    def _inputs(self, settings: Settings, shown: str, names: Mapping[str, Node], previous: Node | None) -> list[Any]:
        if "in" not in settings:
            if previous is None and len(self.model.inputs) > 1:
                raise GraphError(f"{shown}: say what it reads with 'in' (the graph has several inputs)")
            return [] if previous is None else [previous]
        given = settings.pop("in")
        return given if isinstance(given, list) else [given]

    def _resolved(self, references: Iterable[Any], names: Mapping[str, Node], shown: str) -> list[Any]:
        """References as nodes; a list inside is a group for a role that takes several."""

        def resolved(reference: Any) -> Any:
            if isinstance(reference, list):
                return [self._find(r, names, shown) for r in reference]
            return None if reference is None else self._find(reference, names, shown)

        return [resolved(r) for r in references]

    def _find(self, name: Any, names: Mapping[str, Node], shown: str) -> Node:
        if isinstance(name, Node):
            return name
        if not isinstance(name, str):
            raise GraphError(f"{shown}: reads {name!r}, which is not a name")
        node = names.get(name) or self.builder.find(name)
        if node is None and self._early(name.rpartition(".")[0]):
            node = self.builder.find(name)
        if node is not None:
            return node
        if any(name in labels_of(e) for e in self.model.layers):
            raise GraphError(f"{shown}: reads {name!r}, which is made later: a cycle, or layers in the wrong order")
        raise GraphError(f"{shown}: reads {name!r}, which does not exist{did_you_mean(name, names)}")

    def _value(self, value: Any) -> Any:
        """A setting as the builder takes it: lists as tuples, ``=H//2`` as a size."""
        if isinstance(value, list):
            return tuple(self._value(v) for v in value)
        if isinstance(value, str) and value.startswith("="):
            expr = parse(value[1:])
            return self.builder.size(expr) if isinstance(expr, Expr) else expr
        return value

    def _finished(self, graph: Graph) -> Graph:
        """What the file says about the whole graph."""
        finishes: tuple[tuple[str, Any, Callable[[Graph, Any], Graph]], ...] = (
            ("autocast", self.model.autocast, check_castings),
            ("drops", self.model.drops, with_drops),
            ("order", self.model.order, ordered),
            ("guards", self.model.guards, guarded),
            ("no_grad", self.model.no_grad, without_gradients),
            ("checkpoints", self.model.checkpoints, checkpointed),
            ("selected", self.model.selected, selected),
            ("functions", self.model.functions, with_functions),
            ("packing", self.model.packing, with_packing),
            ("hooks", self.model.hooks, with_hooks),
            ("enables_grad", self.model.enables_grad, lambda graph, said: graph.with_(enables_grad=said)),
            ("waiting", self.model.waiting, in_circles),
            ("refused", self.model.refused, refused),
            ("on_host", self.model.on_host, on_the_host),
            ("notes", self.model.notes, lambda graph, notes: graph.with_(notes=tuple(notes))),
            ("torch", self.model.torch, lambda graph, release: graph.with_(torch=release)),
        )
        for key, given, finish in finishes:
            if given:
                self.at(key)
                graph = finish(graph, given)
        return graph

    # the end -----------------------------------------------------------------------------------------------------------

    def _outputs(self, last: Node | None) -> list[Node]:
        self.at("outputs")
        if self.model.outputs is None:
            found = [last] if last is not None else []
        else:
            found = [self._find(n, self.names, "outputs") for n in self.model.outputs]
        if not found:
            raise GraphError("the graph has no outputs")
        return found
