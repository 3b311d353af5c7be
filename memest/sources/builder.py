"""Building a graph in Python, layer by layer.

>>> b = Builder("net")
>>> x = b.input("input", ("N", 3, "H", "W"))
>>> x = b.layer("conv2d", x, out_channels=64, kernel_size=3, padding=1)
>>> x = b.layer("relu", x, inplace=True)
>>> graph = b.build(x)

Keywords are those of torch.nn where the operator owns parameters (``out_channels``), and the operator's own attributes. Shapes are
checked as the graph grows, at example sizes for the symbols; channels stay plain numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from memest.errors import GraphError, MemestError, ShapeError, did_you_mean, unforeseen
from memest.machines.target import Target
from memest.machines.versions import nearest
from memest.network.castings import DEVICES, Contexts, cast_to
from memest.network.graph import Casting, Graph, Input, Layer, Parameter, attribute_items, default_drops
from memest.network.tensor import Shape, Spec, spec
from memest.ops.modules import MODULES
from memest.ops.operator import canonical_attributes
from memest.ops.shapes import Seen, Shapes
from memest.ops.table import operator_named
from memest.sizes.dims import Dim, Expr, expression, parse

EXAMPLE_SIZES = {"N": 2}
EXAMPLE_SPATIAL = 256


class Node:
    """A value of the graph under construction: its name and its shape (symbolic dims are ``Dim``s)."""

    __slots__ = ("name", "shape", "value")

    def __init__(self, name: str, value: Seen) -> None:
        self.name = name
        self.value = value
        self.shape: Shape = value.spec.shape


class Builder:
    """Collects inputs, parameters and layers; :meth:`build` makes the immutable graph. ``torch`` is the release whose calls they are (left
    out: the newest that is modelled)."""

    def __init__(self, name: str, examples: Mapping[str, int] | None = None, torch: str | None = None) -> None:
        self.name = name
        self._examples = {**EXAMPLE_SIZES, **(examples or {})}
        self._inputs: list[Input] = []
        self._parameters: dict[str, Parameter] = {}
        self._layers: list[Layer] = []
        self._nodes: dict[str, Node] = {}
        self._specs: dict[Any, Spec] = {}
        self._scope: list[str] = []
        self._held: list[tuple[str, int]] = []
        self._uses: dict[str, int] = {}
        self._mentioned: dict[str, None] = {}
        self._registers = False
        self._grad = True
        self._checkpoint: str | None = None
        self._contexts = Contexts()
        self.castings: Mapping[str, tuple[Casting, ...]] = {}
        self._shapes_of = Shapes(Target() if torch is None else Target(version=nearest(torch)), True, remember=False)

    def input(self, name: str, shape: Sequence[int | str | Expr], dtype: str = "float32", layout: str = "contiguous") -> Node:
        """An input; dims are numbers, symbols (``"N"``) or expressions (``"H//2"``)."""
        self._fresh(name)
        dims = tuple(parse(d) if isinstance(d, str) else d for d in shape)
        self._inputs.append(Input(name=name, shape=dims, dtype=dtype, layout=layout))
        return self._node(name, Seen(spec(tuple(self._example(d) for d in dims), dtype, layout), object()))

    def parameter(
        self,
        name: str,
        shape: Sequence[int | str | Expr],
        *,
        dtype: str = "float32",
        trainable: bool = True,
        buffer: bool = False,
        registered: bool = True,
        layout: str = "contiguous",
    ) -> Node:
        """A parameter or buffer of its own, to be bound to roles by name. The dims of a buffer may be those of an input; one that is not
        ``registered`` is a plain attribute."""
        self._fresh(name)
        self._mentioned[name] = None
        dims = tuple(parse(d) if isinstance(d, str) else d for d in shape)
        self._parameters[name] = Parameter(
            name=name,
            shape=dims,
            dtype=dtype,
            trainable=trainable and not buffer,
            buffer=buffer,
            registered=registered,
            layout=layout,
        )
        return self._node(name, Seen(spec(tuple(self._example(d) for d in dims), dtype, layout), object()))

    def layer(
        self,
        op: str,
        *inputs: Node | Sequence[Node] | None,
        name: str | None = None,
        outputs: Sequence[str] | None = None,
        trainable: bool = True,
        shares: str | None = None,
        owner: str | None = None,
        **attributes: Any,
    ) -> Any:
        """Append a call of ``op``; returns its output node, or a tuple of them.

        ``inputs`` bind the row's roles in order. When the row's further roles are those of a torch.nn module, its keywords make the
        parameters, named after the layer (or after ``owner``; or those of ``shares`` are used again). ``trainable=False`` freezes
        them. Fewer ``outputs`` than the row gives may be named (none, too): the others die at once.
        """
        full = self._layer_name(op, name)
        named = None if outputs is None else tuple(outputs)
        try:
            return self._append(op, full, list(inputs), named, (trainable, shares, owner or full), attributes)
        except MemestError as e:
            self._forget(full)
            raise e.at(f"layer {full!r} ({op})") from None
        except (ArithmeticError, LookupError, TypeError, ValueError) as e:
            raise unforeseen(e).at(f"layer {full!r} ({op})") from e

    def _append(
        self,
        op: str,
        full: str,
        inputs: list[Any],
        outputs: tuple[str, ...] | None,
        owning: tuple[bool, str | None, str],
        attributes: dict[str, Any],
    ) -> Any:
        row = operator_named(op)
        if len(inputs) > len(row.roles):
            raise GraphError(f"takes {len(row.roles)} tensors ({', '.join(row.roles)}), got {len(inputs)}")
        bound: dict[str, Any] = dict(zip((r.rstrip("?*") for r in row.roles), inputs, strict=False))
        own = self._own_parameters(op, bound, owning, attributes)
        bound.update(own)
        tensors: list[Any] = []
        for role in row.roles:
            key = role.rstrip("?*")
            value = bound.get(key)
            if value is None and not role.endswith("?"):
                raise GraphError(f"needs a tensor for {key!r}")
            if value is not None and isinstance(value, Node) == role.rstrip("?").endswith("*"):
                raise GraphError(f"takes {'a list of tensors' if isinstance(value, Node) else 'one tensor'} for {key!r}")
            tensors.append(value)
        written = {k: v for k, v in attribute_items({k: _written(v) for k, v in attributes.items()})}
        canonical = row.canonical({k: _concrete(v) for k, v in attributes.items()})
        flags = tuple((k, True if k == "training" and v is None else v) for k, v in canonical.items())
        castings = self.castings.get(full, self._contexts.castings)
        self._shapes_of.casts_to = cast_to(castings)
        values = self._shapes_of.run(row, [_values(t) for t in tensors], flags)
        return self._finish(op, full, tensors, written, outputs, values, castings)

    def _finish(
        self,
        op: str,
        full: str,
        tensors: list[Any],
        written: dict[str, Any],
        outputs: tuple[str, ...] | None,
        values: Sequence[Seen | None],
        castings: tuple[Casting, ...],
    ) -> Any:
        while values and values[-1] is None and outputs is None:  # what was not asked for has no name
            values = values[:-1]
        usual = (full,) if len(values) == 1 else tuple(f"{full}.{i}" for i in range(len(values)))
        names = usual if outputs is None else outputs
        if len(names) > len(values):
            raise GraphError(f"gives {len(values)} outputs, {len(names)} are named")
        if full not in names and full in self._nodes:
            raise GraphError(f"the name {full!r} is taken")
        for n in names:
            self._fresh(n)
        nodes = tuple(self._node(n, v) for n, v in zip(names, values, strict=False) if v is not None)
        self._layers.append(
            Layer(
                name=full,
                op=op,
                tensors=tuple(_names(t) for t in tensors),
                attributes=tuple(written.items()),
                outputs=tuple(names),
                grad=self._grad,
                checkpoint=self._checkpoint,
                autocast=castings,
            )
        )
        return nodes[0] if len(nodes) == 1 else nodes

    def _forget(self, full: str) -> None:
        """A refused layer leaves no parameters behind."""
        if any(layer.name == full for layer in self._layers):
            return
        for name in [n for n in self._parameters if n.rpartition(".")[0] == full]:
            del self._parameters[name], self._nodes[name], self._mentioned[name]

    def _own_parameters(
        self, op: str, bound: Mapping[str, Any], owning: tuple[bool, str | None, str], attributes: dict[str, Any]
    ) -> dict[str, Node]:
        """Parameters from torch.nn keywords; the keywords are taken out of ``attributes``, but for those the row reads too."""
        module = MODULES.get(op)
        trainable, shares, owner = owning
        if module is None:
            if shares is not None:
                raise GraphError("owns no parameters to share")
            return {}
        if shares is not None:
            return self._shared(op, shares)
        options = {a.name: attributes[a.name] for a in module.options if a.name in attributes}
        if "weight" in bound:
            return {}
        checked = canonical_attributes(op, module.options, options)
        for key in options:
            if key not in module.passes:
                del attributes[key]
        first = bound["input"]
        made = module.parameters(first.shape, checked)
        empty = next((p for p in made if any(n < 1 for n in p.shape)), None)
        if empty is not None:
            raise ShapeError(f"sizes are positive, its {empty.role} would be {list(empty.shape)}")
        return {p.role: self.parameter(f"{owner}.{p.role}", p.shape, dtype=p.dtype, trainable=trainable, buffer=p.buffer) for p in made}

    def _shared(self, op: str, shares: str) -> dict[str, Node]:
        roles = [r.rstrip("?*") for r in operator_named(op).roles]
        found = {r: self._nodes[f"{shares}.{r}"] for r in roles if f"{shares}.{r}" in self._parameters}
        if not found:
            raise GraphError(f"shares {shares!r}, which owns no parameters{did_you_mean(shares, [layer.name for layer in self._layers])}")
        return found

    def find(self, name: str) -> Node | None:
        """The input, parameter or output called ``name`` so far."""
        return self._nodes.get(name)

    def size(self, expr: Expr) -> int:
        """A size given as an expression, with its example value, for an attribute."""
        return self._example(expr)

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Names of layers made inside begin with ``name.``."""
        self._scope.append(name)
        try:
            yield
        finally:
            self._scope.pop()

    @contextmanager
    def no_grad(self) -> Iterator[None]:
        """Layers made inside run under ``torch.no_grad()``: nothing is kept for backward, and no gradient flows through them."""
        outer, self._grad = self._grad, False
        try:
            yield
        finally:
            self._grad = outer

    @contextmanager
    def autocast(self, device: str, dtype: str | None, *, cache: bool = True) -> Iterator[None]:
        """Layers made inside stand in a ``torch.autocast`` of the network's own, for ``cpu`` or ``cuda``; off without a ``dtype``."""
        if device not in DEVICES:
            raise GraphError(f"autocast is for {' or '.join(DEVICES)}, got {device!r}{did_you_mean(device, DEVICES)}")
        self._contexts.begin(device, dtype, cache, self._next_scope)
        try:
            yield
        finally:
            self._contexts.end()

    def _next_scope(self) -> str:
        taken = {c.scope for layer in self._layers for c in layer.autocast}
        return f"{self._checkpoint or '.'.join(self._scope) or self.name}.autocast_{len(taken) + 1}"

    @contextmanager
    def checkpoint(self, name: str) -> Iterator[None]:
        """Layers made inside are wrapped in one call of ``torch.utils.checkpoint`` (``use_reentrant=False``); GraphError inside another."""
        if self._checkpoint is not None:
            raise GraphError(f"checkpoint {name!r} stands inside {self._checkpoint!r}; checkpoints do not nest")
        if any(layer.checkpoint == name for layer in self._layers):
            raise GraphError(f"the name {name!r} is taken by a checkpoint before")
        self._checkpoint = name
        try:
            yield
        finally:
            self._checkpoint = None

    @contextmanager
    def holding(self, *nodes: Node) -> Iterator[None]:
        """Keep ``nodes`` alive until the block ends, as a Python frame keeps its variables while it runs. They go in the order given,
        those of an inner block before those of an outer one."""
        yield
        self.keep_until_here(*nodes)

    def keep_until_here(self, *nodes: Node) -> None:
        """Keep ``nodes`` alive until now, as a Python variable that is rebound or goes out of scope only here."""
        self._held.extend((n.name, len(self._layers) - 1) for n in nodes)

    @contextmanager
    def module(self, name: str, *arguments: Node) -> Iterator[None]:
        """The call of a module: names made inside begin with ``name.``, and its arguments live until it returns."""
        with self.scope(name), self.holding(*arguments):
            yield

    def register(self, *names: str) -> None:
        """The order in which torch registers the modules of the current scope, where it is not the order of their calls: parameters
        are listed, and optimizers walk them, in that order."""
        self._registers = True
        self._mentioned.update(dict.fromkeys(".".join([*self._scope, name]) for name in names))

    def unused(self, op: str, *, name: str, trainable: bool = True, **attributes: Any) -> None:
        """The parameters of a module that is never called; sizes that its input would tell must be given (``in_channels``)."""
        full = self._layer_name(op, name)
        module = MODULES[op]
        for p in module.parameters((), canonical_attributes(op, module.options, attributes)):
            self.parameter(f"{full}.{p.role}", p.shape, dtype=p.dtype, trainable=trainable, buffer=p.buffer)

    def _parameters_in_order(self) -> tuple[Parameter, ...]:
        """As created; once ``register`` was used, module by module, in the order of their first mention."""
        if not self._registers:
            return tuple(self._parameters.values())
        ranks: dict[str, int] = {}
        for path in self._mentioned:
            for prefix in _prefixes(path):
                ranks.setdefault(prefix, len(ranks))
        return tuple(sorted(self._parameters.values(), key=lambda p: [ranks[prefix] for prefix in _prefixes(p.name)]))

    def build(self, *outputs: Node) -> Graph:
        """The finished graph; values die after their last reader, or when the block that holds them ends."""
        names = tuple(o.name for o in outputs)
        permanent = [i.name for i in self._inputs] + list(self._parameters)
        layers = self._released_in_order(default_drops(self._layers, names, permanent, self._held))
        return Graph(name=self.name, inputs=tuple(self._inputs), parameters=self._parameters_in_order(), layers=layers, outputs=names)

    def _released_in_order(self, layers: Sequence[Layer]) -> tuple[Layer, ...]:
        """Of the values that die after one layer, those that a block held go last, in the order in which the blocks end."""
        ranks = {(name, i): n for n, (name, i) in enumerate(self._held)}
        ordered = (tuple(sorted(layer.drops, key=lambda name, i=i: ranks.get((name, i), -1))) for i, layer in enumerate(layers))  # type: ignore[misc]
        return tuple(replace(layer, drops=drops) for layer, drops in zip(layers, ordered, strict=True))

    def _layer_name(self, op: str, name: str | None) -> str:
        base = ".".join([*self._scope, name or op])
        if name is not None or base not in self._nodes:
            return base
        n = self._uses.get(base, 1) + 1
        while f"{base}_{n}" in self._nodes:
            n += 1
        self._uses[base] = n
        return f"{base}_{n}"

    def _fresh(self, name: str) -> None:
        if name in self._nodes:
            raise GraphError(f"the name {name!r} is taken")

    def _node(self, name: str, value: Seen) -> Node:
        """A named value. Equal metadata are one object: graphs of many thousand layers stay light."""
        key = tuple(map(expression, (*value.spec.shape, *value.spec.strides))), value.spec.dtype
        value.spec = self._specs.setdefault(key, value.spec)
        self._nodes[name] = Node(name, value)
        return self._nodes[name]

    def _example(self, dim: int | Expr) -> int:
        if not isinstance(dim, Expr):
            return dim
        sizes = {s: self._examples.setdefault(s, EXAMPLE_SPATIAL) for s in dim.symbols()}
        return Dim(dim.evaluate(sizes), dim)


def _prefixes(path: str) -> list[str]:
    """``a``, ``a.b``, ``a.b.c`` of ``a.b.c``."""
    parts = path.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def _values(t: Any) -> Any:
    if t is None:
        return None
    return t.value if isinstance(t, Node) else [n.value for n in t]


def _names(t: Any) -> Any:
    if t is None:
        return None
    return t.name if isinstance(t, Node) else tuple(n.name for n in t)


def _written(value: Any) -> Any:
    if isinstance(value, Dim):
        return expression(value)
    if isinstance(value, list | tuple):
        return tuple(_written(v) for v in value)
    return value


def _concrete(value: Any) -> Any:
    return tuple(_concrete(v) for v in value) if isinstance(value, list | tuple) else value
