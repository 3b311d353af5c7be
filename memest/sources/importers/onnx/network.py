"""An ONNX file as a layer graph: its nodes in order, each the call of the row that has its meaning.

Weights are never read, nor is a file that holds them: initializers are parameters by their sizes. Sizes that a file leaves open are named
sizes of the graph. What is arithmetic of sizes is done here (``folding``); the shapes of all else are those that our rows give, so a file
needs no inferred ones. Batch norms and dropouts follow the mode; those that an exporter folded away for inference are in no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from keyword import iskeyword
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from memest.errors import FileError, GraphError, MemestError, UnsupportedError, UsageError, did_you_mean, unforeseen
from memest.network.graph import Graph
from memest.sizes import asked
from memest.sizes.dims import Expr, Guard, parse, recording, symbol
from memest.sizes.dims import plain as plain_size
from memest.sources.builder import Builder
from memest.sources.importers.onnx.bodies import BODIES
from memest.sources.importers.onnx.call import Call
from memest.sources.importers.onnx.folding import folded
from memest.sources.importers.onnx.naming import LONGEST, Names, home, plain
from memest.sources.importers.onnx.nodes.table import HANDLERS
from memest.sources.importers.onnx.skimming import FOREIGN, skimmed
from memest.sources.importers.onnx.values import Value, check_elements, dtype_name, elsewhere, initial
from memest.sources.importers.onnx.writing import MOST_LAYERS, Writer

NOTES = (
    "from an ONNX file: a tensor goes after its last use, while the Python code that it was exported from may hold it in a variable",
    "from an ONNX file: a training step is what is asked, unless mode='infer' (in a command --infer) says otherwise; batch norms and"
    " dropouts that the exporter folded for inference are not in the file, so they are missing in training",
)

OPSETS = range(9, 26)
DEEPEST = 32  # functions and branches in one another
OWN = ("", "ai.onnx")
SPATIAL = {1: ("L",), 2: ("H", "W"), 3: ("D", "H", "W")}


def from_onnx(path: Path, example: Any = None, name: str | None = None) -> Graph:
    """The graph in an ONNX file. ``example`` (a shape, a list of them, or a mapping by name; left out: usual sizes) says at which sizes
    its comparisons of sizes are made; the graph says where they hold.

    Raises FileError for a file that is none, GraphError for a network that cannot be, UnsupportedError for a node without a rule,
    UsageError for an example that does not fit."""
    model = _read(path)
    guards: dict[Guard, None] = {}
    try:
        with recording(guards):
            graph = _Network(model, path, example, name).graph()
    except (RecursionError, MemoryError) as e:
        raise FileError(f"{path}: it is nested too deeply, or too large ({type(e).__name__})") from None
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as e:  # a text that is none, a field of another kind
        raise FileError(f"{path} {FOREIGN} that memest knows ({type(e).__name__}: {e})") from e
    return graph.with_(guards=tuple(guards))


def _read(path: Path) -> Any:
    if not path.is_file():
        raise UsageError(f"{path} is a directory; name a file in it" if path.is_dir() else f"no such file: {path}")
    try:
        model = onnx.ModelProto.FromString(skimmed(path))
    except DecodeError as e:
        raise FileError(f"{path} {FOREIGN} ({e})") from None
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise FileError(f"{path} {FOREIGN}: there is no graph in it")
    return model


class _Network:
    """A model becoming a graph."""

    def __init__(self, model: Any, path: Path, example: Any, name: str | None) -> None:
        self._model, self._path = model, path
        self._functions = {(f.domain, f.name, getattr(f, "overload", "")): f for f in model.functions}
        self._versions = {_domain(o.domain): o.version for o in model.opset_import}
        version = self._versions.get("")
        if version is None and not model.functions:
            raise FileError(f"{path} {FOREIGN}: it does not say in which opset it is written")
        if version is not None and version not in OPSETS:
            raise UnsupportedError(f"{path}: opset {version} is not modelled: export with opset 13 to {OPSETS[-1]}")
        homes = [home(node) for node in model.graph.node]
        self._builder = Builder(name or path.stem, _examples(model.graph, path, example))
        self._writer = Writer(self._builder, Names(homes))
        self._count = 0

    def graph(self) -> Graph:
        """The layers, and what the file gives back."""
        graph = self._model.graph
        self._locations = sorted({file for proto in graph.initializer if (file := elsewhere(proto)) is not None})
        statistics = {n for node in graph.node if node.op_type == "BatchNormalization" for n in node.input[3:5]}
        env: dict[str, Value] = {}
        for proto in graph.initializer:
            env[proto.name] = self._at_file(initial, proto, proto.name, proto.name in statistics)
        if graph.sparse_initializer:
            raise UnsupportedError(f"{self._path}: no rule for sparse initializers")
        for given in _inputs(graph):
            env[given.name] = self._at_file(self._input, given)
        needed = _needed(graph.node, [o.name for o in graph.output])
        self._run([n for n, wanted in zip(graph.node, needed, strict=True) if wanted], env, self._versions, 0, graph.node)
        outputs = []
        for o in graph.output:
            if o.name not in env:
                raise FileError(f"{self._path}: nothing makes the output {o.name!r}")
            outputs.append(self._writer.tensor(env[o.name]))
        built = self._builder.build(*outputs)
        sizes = sorted({s for i in built.inputs for d in i.shape if isinstance(d, Expr) for s in d.symbols()})
        examples = tuple((s, plain_size(self._builder.size(symbol(s)))) for s in sizes)
        return built.with_(examples=examples, notes=(*NOTES, *self._absent()))

    def _absent(self) -> tuple[str, ...]:
        """What to know of files of weights that are not there."""
        absent = [name for name in self._locations if not (self._path.parent / name).is_file()]
        if not absent:
            return ()
        more = f" and {len(absent) - 1:,} more" if len(absent) > 1 else ""
        return (f"its weights lie in {absent[0]}{more}, which is not there: sizes are in the file itself, but no engine loads it so",)

    def _at_file(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except MemestError as e:
            raise e.at(str(self._path)) from None

    def _input(self, given: Any) -> Any:
        if not given.type.HasField("tensor_type"):
            raise UnsupportedError(f"the input {given.name!r} is no tensor")
        kind = given.type.tensor_type
        if not kind.HasField("shape"):
            raise UnsupportedError(f"the input {given.name!r} says nothing of its dims")
        shape = _dims(kind.shape.dim)
        check_elements([n if isinstance(n, int) else 1 for n in shape], f"the input {given.name!r}")
        name = self._writer.names.take(plain(given.name))
        with recording(None):
            return self._builder.input(name, shape, dtype_name(kind.elem_type, f"the input {given.name!r}"))

    def _run(self, nodes: Sequence[Any], env: dict[str, Value], versions: Mapping[str, int], depth: int, every: Sequence[Any]) -> None:
        """Nodes in order; what they make is put into ``env``. ``every`` node of the graph, for what is read before it is made."""
        if depth > DEEPEST:
            raise UnsupportedError(f"{self._path}: functions or branches deeper than {DEEPEST} (does one call itself?)")
        for node in nodes:
            self._count += 1
            if self._count > MOST_LAYERS:
                raise UnsupportedError(f"{self._path}: more than {MOST_LAYERS:,} nodes")
            missing = next((n for n in node.input if n and n not in env), None)
            if missing is not None:
                later = any(missing in other.output for other in every)
                why = "which a later one makes: its nodes go in a circle or are out of order" if later else "which nothing makes"
                raise FileError(f"{self._path}: {_shown(node)} reads {missing!r}, {why}")
            taken = next((n for n in node.output if n and n in env), None)
            if taken is not None:
                raise FileError(f"{self._path}: {_shown(node)} makes {taken!r}, which is there already")
            for name, value in zip(node.output, self._values(node, env, versions, depth), strict=False):
                if name and value is not None:
                    env[name] = value

    def _values(self, node: Any, env: dict[str, Value], versions: Mapping[str, int], depth: int) -> Sequence[Value | None]:
        """What a node gives."""
        function = self._functions.get((node.domain, node.op_type, getattr(node, "overload", "")))
        if function is not None:
            return self._inlined(node, function, env, depth)
        version = versions.get(_domain(node.domain))
        call = Call(node, [env[n] if n else None for n in node.input], {a.name: a for a in node.attribute}, version or 0, self._writer)
        place = f"{self._path}: {_shown(node)}, opset {version or 'unknown'}"
        if _domain(node.domain):
            raise UnsupportedError(f"{place}: no rule for operators of {node.domain!r}")
        self._writer.home = home(node) or self._writer.home if depth else home(node)
        try:
            if node.op_type in BODIES:
                return BODIES[node.op_type](call, lambda graph, *given: self._within(graph, given, env, versions, depth))
            made: Any = folded(call)
            if made is None:
                handler = HANDLERS.get(node.op_type)
                if handler is None:
                    raise UnsupportedError(f"no rule for {node.op_type!r}{did_you_mean(node.op_type, HANDLERS)}")
                made = handler(call)
        except MemestError as e:
            raise e.at(place) from None
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as e:
            raise unforeseen(e).at(place) from e
        return made if isinstance(made, list | tuple) else [made]

    def _within(
        self, graph: Any, given: Sequence[Value], env: Mapping[str, Value], versions: Mapping[str, int], depth: int
    ) -> Sequence[Value]:
        """What the graph in a node gives, which sees what is around it; ``given`` are its inputs."""
        inner = dict(env)
        for proto in graph.initializer:
            inner[proto.name] = initial(proto, proto.name)
        inner.update(zip((i.name for i in graph.input), given, strict=True))
        self._run(graph.node, inner, versions, depth + 1, graph.node)
        missing = next((o.name for o in graph.output if o.name not in inner), None)
        if missing is not None:
            raise FileError(f"{self._path}: nothing makes {missing!r}, which a graph in a node gives")
        return [inner[o.name] for o in graph.output]

    def _inlined(self, node: Any, function: Any, env: dict[str, Value], depth: int) -> Sequence[Value | None]:
        """A function of the file's own, with its arguments in their places."""
        inner: dict[str, Value] = {formal: env[n] for formal, n in zip(function.input, node.input, strict=False) if n}
        given = {a.name: a for a in node.attribute}
        defaults = {a.name: a for a in function.attribute_proto}
        versions = {_domain(o.domain): o.version for o in function.opset_import}
        there = set(inner) | {o for n in function.node for o in n.output}
        nodes = [_filled_in(n, {**defaults, **given}, there) for n in function.node]
        outer = self._writer.home
        self._writer.home = home(node)
        try:
            self._run(nodes, inner, versions, depth + 1, nodes)
        finally:
            self._writer.home = outer
        missing = next((o for o in function.output if o not in inner), None)
        if missing is not None:
            raise FileError(f"{self._path}: the function {function.name!r} does not make its output {missing!r}")
        return [inner[o] for o in function.output]


def _filled_in(node: Any, given: Mapping[str, Any], there: set[str]) -> Any:
    """A node of a function with the attributes that refer to the call's, and without arguments that the call leaves out."""
    made = onnx.NodeProto()
    made.CopyFrom(node)
    del made.attribute[:]
    for a in node.attribute:
        if not a.ref_attr_name:
            made.attribute.append(a)
        elif a.ref_attr_name in given:
            filled = onnx.AttributeProto()
            filled.CopyFrom(given[a.ref_attr_name])
            filled.name = a.name
            made.attribute.append(filled)
    for i, n in enumerate(made.input):
        if n and n not in there:
            made.input[i] = ""
    return made


def _needed(nodes: Sequence[Any], outputs: Sequence[str]) -> list[bool]:
    """Which nodes something that is given back depends on."""
    wanted, found = set(outputs), [False] * len(nodes)
    for i in range(len(nodes) - 1, -1, -1):
        if any(o in wanted for o in nodes[i].output):
            found[i] = True
            wanted.update(_reads(nodes[i]))
    return found


def _reads(node: Any) -> Iterator[str]:
    """The names that a node speaks of, in its branches too."""
    yield from node.input
    for a in node.attribute:
        for graph in (*((a.g,) if a.HasField("g") else ()), *a.graphs):
            yield from (o.name for o in graph.output)
            for inner in graph.node:
                yield from _reads(inner)


def _inputs(graph: Any) -> list[Any]:
    """What the caller gives; old files list the initializers, too."""
    own = {i.name for i in graph.initializer}
    return [i for i in graph.input if i.name not in own]


def _dims(dims: Sequence[Any]) -> list[int | str]:
    """Sizes as numbers or names; one without a name is called as it is usual: the batch ``N``, then ``H`` and ``W``."""
    found: list[int | str] = []
    for i, d in enumerate(dims):
        if d.HasField("dim_value") and d.dim_value > 0:
            found.append(int(d.dim_value))
        elif d.dim_param and not d.dim_param.startswith("unk__"):
            found.append(_symbol(d.dim_param, f"d{i}"))
        else:
            usual = SPATIAL.get(len(dims) - 2, ())
            found.append("N" if i == 0 else usual[i - 2] if i >= 2 and usual else f"d{i}")
    return found


def _symbol(text: str, otherwise: str) -> str:
    """A size's name as an expression has it; one that is an expression itself stays one."""
    try:
        parse(text)
    except GraphError:
        made = "".join(ch if ch.isalnum() and ch.isascii() else "_" for ch in text[:LONGEST]).strip("_")
        return f"{otherwise}_{made}".strip("_") if not made.isidentifier() or iskeyword(made) else made
    return text


def _examples(graph: Any, path: Path, example: Any) -> dict[str, int]:
    """The sizes that an example gives to names."""
    inputs = [i for i in _inputs(graph) if i.type.HasField("tensor_type")]
    if example is None:
        return {}
    names = [i.name for i in inputs]
    shapes = asked.by_name(names, example)
    found: dict[str, int] = {}
    for i in inputs:
        if i.name not in shapes:
            continue
        given = shapes.pop(i.name)
        shape = tuple(given.shape) if asked.is_tensor(given) else asked.shape(given)
        dims = _dims(i.type.tensor_type.shape.dim)
        if len(shape) == len(dims) - 1:  # without the batch
            dims = dims[1:]
        if len(shape) != len(dims) or any(isinstance(d, int) and d != n for d, n in zip(dims, shape, strict=True)):
            way = "export it with dynamic shapes to ask about other sizes"
            raise UsageError(f"{path}: input {i.name!r} is {_text(dims)}, got {_text(shape)}; {way}")
        found.update((d, plain_size(n)) for d, n in zip(dims, shape, strict=True) if isinstance(d, str) and d.isidentifier())
    if shapes:
        other = next(iter(shapes))
        raise UsageError(f"{path} has no input {other!r}{did_you_mean(other, names) or '; it has ' + ', '.join(names)}")
    return found


def _text(dims: Sequence[int | str]) -> str:
    return "x".join(map(str, dims))


def _domain(domain: str) -> str:
    return "" if domain in OWN else domain


def _shown(node: Any) -> str:
    """A node for people: its name or first output, and its operator."""
    called = node.name or next((o for o in node.output if o), "")
    return f"node {called!r} ({node.op_type})"
