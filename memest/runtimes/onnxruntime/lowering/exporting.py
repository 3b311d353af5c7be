"""From a graph of torch's calls to ONNX's nodes, as torch's exporter writes them (torch.onnx.export of 2.14 with its default, dynamo=True).

A handler is one function an operator; it reads the layer's tensors and attributes and adds nodes. Where the exporter writes several nodes
for one call (composites, above all), so does the handler, and what stands between them belongs to the same layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from memest.errors import MemestError, UnsupportedError, unforeseen
from memest.machines.target import Target
from memest.network.dtypes import FLOATING
from memest.network.graph import Graph, Layer, at_sizes
from memest.network.layers import node_ended, part_of
from memest.network.tensor import Shape, Spec
from memest.ops.table import operator_named
from memest.runtimes.onnxruntime.lowering.nodes import Net, Value
from memest.runtimes.rewriting import DROPOUTS, Rewriting, described, drop_identities, fold_norms, no_rule
from memest.sizes.dims import resolve

FAMILIES = "arithmetic", "convolving", "shaping", "products", "recurrent"


class Call:
    """A layer becoming nodes: its tensors by role, its attributes with their defaults, and what it is to give."""

    def __init__(self, writer: Writer, layer: Layer) -> None:
        entry = operator_named(layer.op)
        self.net, self.layer, self.op = writer.net, layer.name, layer.op
        self._made = 0
        self.tensors: list[Any] = [writer.bound(t) for t in layer.tensors]
        roles = [role.strip("?*") for role in entry.roles]
        self._by_role = dict(zip(roles, [*self.tensors, *[None] * len(roles)], strict=False))
        self.attributes: dict[str, Any] = entry.canonical(dict(resolve(layer.attributes, writer.sizes)))
        self.gives = [writer.specs.get(name) for name in layer.outputs]
        self.from_file = writer.from_file

    def __getitem__(self, name: str) -> Any:
        """A tensor by its role, or an attribute."""
        return self._by_role[name] if name in self._by_role else self.attributes[name]

    @property
    def input(self) -> Value:
        """The first tensor."""
        found = self.tensors[0][0] if isinstance(self.tensors[0], list) else self.tensors[0]
        assert isinstance(found, Value)
        return found

    @property
    def shape(self) -> Shape:
        """The shape of the first output."""
        assert self.gives[0] is not None
        return self.gives[0].shape

    @property
    def dtype(self) -> str:
        """The dtype of the first output."""
        assert self.gives[0] is not None
        return self.gives[0].dtype

    def put(
        self, op: str, inputs: Sequence[Value | None], shape: Shape | None = None, dtype: str | None = None, **attributes: Any
    ) -> Value:
        """A node of one output, of the layer's own shape where none is said."""
        (made,) = self.several(op, inputs, [self.shape if shape is None else shape], dtype, **attributes)
        return made

    def several(
        self, op: str, inputs: Sequence[Value | None], shapes: Sequence[Shape], dtype: str | None = None, **attributes: Any
    ) -> list[Value]:
        """A node of several outputs."""
        outputs = []
        for shape in shapes:
            outputs.append(Value(f"{self.layer}.{self._made}", shape, self.dtype if dtype is None else dtype))
            self._made += 1
        self.net.add(op, inputs, outputs, self.layer, **attributes)
        return outputs

    def constant(self, shape: Sequence[int] = (), dtype: str | None = None) -> Value:
        """A number that the exporter writes into the file."""
        self._made += 1
        return Value(f"{self.layer}.{self._made}", tuple(shape), dtype or self.dtype, "constant")

    def sizes(self, value: Value, shape: Shape) -> Value:
        """The same elements in another shape."""
        return self.put("Reshape", [value, self.constant((len(shape),), "int64")], shape, value.dtype)

    def transposed(self, value: Value, dims: Sequence[int]) -> Value:
        """The dims in another order."""
        if value.is_weight:
            return Value(value.name, tuple(value.shape[d] for d in dims), value.dtype, value.category)
        return self.put("Transpose", [value], tuple(value.shape[d] for d in dims), value.dtype, perm=tuple(dims))

    def refuse(self, what: str) -> UnsupportedError:
        """What is not modelled of this call."""
        return UnsupportedError(f"{what} is not modelled on onnxruntime")


Handler = Callable[[Call], "Value | Sequence[Value | None]"]


WHOLE: dict[str, Handler] = {op: lambda c, op=op: c.put(op, [c.input]) for op in ("HardSigmoid", "ReduceSumSquare")}  # type: ignore[misc]
"""Nodes of a file that several layers stand for."""


class Writer:
    """A graph becoming a net."""

    def __init__(self, graph: Graph, shapes: Mapping[str, Shape], sizes: Mapping[str, int], specs: Mapping[str, Spec]) -> None:
        self.net, self.sizes, self.specs = Net(), sizes, specs
        self.from_file = graph.torch is None and any(note.startswith("from an ONNX file") for note in graph.notes)
        self.values: dict[str, Value] = {}
        for p in (at_sizes(p, sizes) for p in graph.parameters):
            self.values[p.name] = Value(p.name, p.shape, p.dtype, "buffer" if p.buffer else "parameter")
        for i in graph.inputs:
            self.values[i.name] = Value(i.name, shapes[i.name], i.dtype, "input")
            self.net.inputs.append(self.values[i.name])
        for value in self.values.values():
            if value.dtype in FLOATING and value.dtype != "float32":
                raise UnsupportedError(
                    f"{value.name!r} is {value.dtype}: of floating dtypes onnxruntime is modelled in float32 alone; give dtype"
                )
        for layer in graph.layers:
            self._layer(layer)
        for name in graph.outputs:
            self._give_back(self.values[name])

    def bound(self, reference: Any) -> Any:
        """What is bound to a role: a value, several, or None."""
        if reference is None:
            return None
        return self.values[reference] if isinstance(reference, str) else [self.values[name] for name in reference]

    def _layer(self, layer: Layer) -> None:
        try:
            if all(v.is_weight for t in layer.tensors for v in self._values(t)):
                self.values.update((name, self._known(name)) for name in layer.outputs)
                return
            if part_of(layer.name) is not None:
                self.values[layer.outputs[0]] = self.bound(layer.tensors[0])
                return
            handler = WHOLE.get(node_ended(layer.name) or "") or handlers().get(layer.op)
            if handler is None:
                raise no_rule(layer.op, "onnxruntime")
            found = handler(Call(self, layer))
        except MemestError as e:
            raise e.at(f"layer {layer.name!r} ({layer.op})") from None
        except (ArithmeticError, LookupError, TypeError, ValueError) as e:
            raise unforeseen(e).at(f"layer {layer.name!r} ({layer.op})") from e
        made = [found] if isinstance(found, Value) else list(found)
        self.values.update((name, value) for name, value in zip(layer.outputs, made, strict=False) if value is not None)

    def _values(self, reference: Any) -> list[Value]:
        names = (reference,) if isinstance(reference, str) else reference or ()
        return [self.values[name] for name in names]

    def _known(self, name: str) -> Value:
        """What is made of weights alone is folded, by the exporter or before the first run."""
        spec = self.specs[name]
        return Value(name, spec.shape, spec.dtype, "constant")

    def _give_back(self, value: Value) -> None:
        if value.maker is None or value.given_back:
            made = Value(f"{value.name}.given", value.shape, value.dtype)
            self.net.add("Identity", [value], [made], "")
            value = made
        value.given_back = True
        self.net.outputs.append(value)


_HANDLERS: dict[str, Handler] = {}


def handlers() -> Mapping[str, Handler]:
    """The operators that can be written, by name."""
    if not _HANDLERS:
        found: dict[str, Handler] = {}
        for family in FAMILIES:
            found.update(import_module(f"memest.runtimes.onnxruntime.lowering.{family}").HANDLERS)
        _HANDLERS.update(found)
    return _HANDLERS


def exported(
    graph: Graph, shapes: Mapping[str, Shape], sizes: Mapping[str, int], target: Target, *, remember: bool
) -> tuple[Net, dict[str, Spec]]:
    """The file that the exporter writes of a network, dead ends left out; and what the graph's own values are."""
    rewriting = Rewriting(graph)
    drop_identities(rewriting, DROPOUTS)
    fold_norms(rewriting)
    folded = rewriting.graph()
    specs = described(folded, shapes, sizes, target, remember=remember)
    net = Writer(folded, shapes, sizes, specs).net
    prune(net)
    net.written = len(net.nodes)
    return net, specs


def prune(net: Net) -> None:
    """Nodes whose results nobody reads go."""
    for node in reversed(list(net.nodes.values())):
        if not any(v.uses for v in node.outputs):
            net.remove(node)
