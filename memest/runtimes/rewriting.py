"""Graph to graph: what engines do to a network before they run it. A layer is replaced, followed or left out; readers follow.

Values are names, and each has one maker and any number of readers. A graph as torch runs it also writes in place and keeps values as
long as Python does; :class:`Rewriting` begins with :func:`functional`, which ends both, and gives a graph whose values die after their
last reader. Numbers are never looked at: what depends on sizes is asked of :func:`described`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from memest.errors import UnsupportedError
from memest.machines.target import Target
from memest.network.graph import Graph, Items, Layer, Reference, default_drops
from memest.network.tensor import Shape, Spec
from memest.ops.facts import Facts
from memest.ops.table import operator_named
from memest.runtimes import executor
from memest.runtimes.runtime import EVERY, Rows
from memest.sizes.dims import resolve

AS_OUTPUTS = Rows("null", plain=EVERY)
CONVOLUTIONS = frozenset({"convolution", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
DROPOUTS = frozenset({"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"})
SAME_VALUE = frozenset({"contiguous", "detach", "alias", "clone", "requires_grad"})
"""Calls whose result has the values of their input, whatever its strides."""


class Rewriting:
    """A network on its way to another. Layers are in order; what replaces a layer stands where that stood."""

    def __init__(self, graph: Graph) -> None:
        self._graph = functional(graph)
        self.outputs = list(self._graph.outputs)
        self._slots: dict[str, list[Layer]] = {}
        self._at: dict[str, str] = {}
        self._makers: dict[str, str] = {}
        self._readers: dict[str, dict[str, None]] = {}
        for layer in self._graph.layers:
            self._slots[layer.name] = []
            self._put(layer, layer.name)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers as they are now."""
        return tuple([layer for slot in self._slots.values() for layer in slot])

    @property
    def names(self) -> Mapping[str, str]:
        """The layers that are there, by name."""
        return self._at

    def layer(self, name: str) -> Layer:
        """The layer of a name."""
        return next(layer for layer in self._slots[self._at[name]] if layer.name == name)

    def __contains__(self, layer: Layer) -> bool:
        """Whether the layer is still there, unchanged."""
        return layer.name in self._at and self.layer(layer.name) is layer

    def maker(self, value: Reference) -> Layer | None:
        """Who makes a value; None for inputs and parameters."""
        found = self._makers.get(value) if isinstance(value, str) else None
        return None if found is None else self.layer(found)

    def readers(self, value: str) -> tuple[Layer, ...]:
        """Who reads a value, in the order in which they came to read it."""
        return tuple([self.layer(name) for name in self._readers.get(value, ())])

    def is_output(self, value: str) -> bool:
        """Whether the network returns it."""
        return value in self.outputs

    def sole_reader(self, value: str) -> Layer | None:
        """The one layer that reads a value once, and which nobody else wants; None where there is no such layer."""
        found = self.readers(value)
        alone = len(found) == 1 and not self.is_output(value) and found[0].reads.count(value) == 1
        return found[0] if alone else None

    def follower(self, layer: Layer, ops: Iterable[str]) -> Layer | None:
        """The layer of one of these operators that is the sole reader of all that ``layer`` makes, and reads it first."""
        found = self.sole_reader(layer.outputs[0]) if len(layer.outputs) == 1 else None
        return found if found is not None and found.op in ops and found.reads[0] == layer.outputs[0] else None

    def replace(self, old: Layer, *new: Layer) -> None:
        """``new`` layers, in order, in the place of ``old``."""
        slot = self._take(old)
        for layer in new:
            self._put(layer, slot)

    def remove(self, layer: Layer) -> None:
        """Leave out a layer whose outputs nobody reads."""
        self._take(layer)

    def take_over(self, layer: Layer, follower: Layer, **changes: Any) -> Layer:
        """``layer`` gives what ``follower`` gave, who goes; it stands where it stood, changed as said. Returns it."""
        self._take(follower)
        made = replace(layer, outputs=follower.outputs, **changes)
        self.replace(layer, made)
        return made

    def move_to(self, layer: Layer, follower: Layer, **changes: Any) -> Layer:
        """As :meth:`take_over`, but it stands where ``follower`` stood, who may read what is made in between."""
        self._take(layer)
        made = replace(layer, outputs=follower.outputs, **changes)
        self.replace(follower, made)
        return made

    def bypass(self, layer: Layer, value: str) -> None:
        """Leave out a layer of one output: who read that reads ``value`` instead."""
        (old,) = layer.outputs
        self._take(layer)
        for reader in self.readers(old):
            self.replace(reader, replace(reader, tensors=tuple([_renamed(t, {old: value}) for t in reader.tensors])))
        self.outputs = [value if o == old else o for o in self.outputs]

    def graph(self) -> Graph:
        """The network as it is now: values die after their last reader, parameters that nobody reads are gone."""
        layers = self.layers
        read = {name for layer in layers for name in layer.reads} | set(self.outputs)
        parameters = tuple([p for p in self._graph.parameters if p.name in read])
        permanent = [*(i.name for i in self._graph.inputs), *(p.name for p in parameters)]
        dropped = default_drops(layers, self.outputs, permanent)
        return self._graph.with_(layers=dropped, parameters=parameters, outputs=tuple(self.outputs))

    def _put(self, layer: Layer, slot: str) -> None:
        self._slots[slot].append(layer)
        self._at[layer.name] = slot
        self._makers.update(dict.fromkeys(layer.outputs, layer.name))
        for name in layer.reads:
            self._readers.setdefault(name, {})[layer.name] = None

    def _take(self, layer: Layer) -> str:
        slot = self._at.pop(layer.name)
        self._slots[slot] = [held for held in self._slots[slot] if held.name != layer.name]
        for name in layer.outputs:
            if self._makers.get(name) == layer.name:
                del self._makers[name]
        for name in dict.fromkeys(layer.reads):
            del self._readers[name][layer.name]
        return slot


FAST_PATH = "_transformer_encoder_layer_fwd"


def no_rule(op: str, runtime: str) -> UnsupportedError:
    """That an engine has no rule for an operator, and what to do instead."""
    if op == FAST_PATH:
        instead = (
            "torch runs such a layer as one call in inference (its fast path), exporters write it out: "
            "export the network to ONNX and give the file, or record with torch.backends.mha.set_fastpath_enabled(False)"
        )
    else:
        instead = f"memest ops {op} says where there is one"
    return UnsupportedError(f"no rule for {op!r} on {runtime}; {instead}")


def functional(graph: Graph) -> Graph:
    """The inference graph, in which no elementwise layer writes over what it reads: who reads that afterwards reads the result."""
    graph = graph if graph.inference is None else graph.inference
    now: dict[str, str] = {}
    layers: list[Layer] = []
    for layer in graph.layers:
        tensors = tuple([_renamed(t, now) for t in layer.tensors])
        given = dict(layer.attributes)
        if given.get("inplace"):
            (written,) = layer.reads[:1]
            earlier = [name for name, value in now.items() if value == now.get(written, written)]
            now.update(dict.fromkeys((written, *earlier), layer.outputs[0]))
            now.pop(layer.outputs[0], None)
        layers.append(replace(layer, tensors=tensors, attributes=without(layer.attributes, "inplace"), drops=(), checkpoint=None))
    return graph.with_(layers=tuple(layers), outputs=tuple([now.get(o, o) for o in graph.outputs]), inference=None)


def _renamed(reference: Reference, names: Mapping[str, str]) -> Reference:
    if isinstance(reference, str):
        return names.get(reference, reference)
    return None if reference is None else tuple([names.get(name, name) for name in reference])


def without(attributes: Items, *names: str) -> Items:
    """The attributes but these."""
    return tuple([(name, value) for name, value in attributes if name not in names])


def attributes_of(layer: Layer, sizes: Mapping[str, int]) -> dict[str, Any]:
    """All attributes of a layer of a known operator at these sizes, with their defaults."""
    return operator_named(layer.op).canonical(dict(resolve(layer.attributes, sizes)))


def bound(layer: Layer) -> dict[str, Reference]:
    """What is bound to each role of a layer of a known operator (absent ones are None)."""
    roles = [role.strip("?*") for role in operator_named(layer.op).roles]
    return dict(zip(roles, (*layer.tensors, *[None] * len(roles)), strict=False))


def facts_of(layer: Layer) -> Facts:
    """The facts of a layer of a known operator."""
    return operator_named(layer.op).facts


def described(
    graph: Graph, input_shapes: Mapping[str, Shape], sizes: Mapping[str, int], target: Target, *, remember: bool
) -> dict[str, Spec]:
    """Shape, strides (as torch would have them) and dtype of every value: inputs, parameters, what layers make."""
    run = executor.Execution(target, AS_OUTPUTS, remember=remember)
    found: dict[str, Spec] = {}
    for call in executor.calls(run, graph, input_shapes, sizes):
        for reference, bound_to in zip(call.layer.tensors, call.tensors, strict=True):
            found.update(_specs(reference, bound_to))
        found.update(_specs(call.layer.outputs, call.outputs))
    return found


def _specs(reference: Reference, seen: Any) -> Iterator[tuple[str, Spec]]:
    names = (reference,) if isinstance(reference, str) else reference or ()
    values = seen if isinstance(seen, list | tuple) else [seen]
    return ((name, value.spec) for name, value in zip(names, values, strict=False) if value is not None)


def drop_identities(rewriting: Rewriting, ops: Iterable[str] = (*DROPOUTS, *SAME_VALUE)) -> None:
    """Leave out calls that give the values they read: dropout outside training, copies, detaching. Inputs are not returned as outputs."""
    chosen = frozenset(ops)
    for name in [layer.name for layer in rewriting.layers if layer.op in chosen]:
        layer = rewriting.layer(name)
        if not (layer.op in DROPOUTS and dict(layer.attributes).get("training")):
            source = layer.reads[0]
            if not (rewriting.is_output(layer.outputs[0]) and rewriting.maker(source) is None):
                rewriting.bypass(layer, source)


def fold_norms(rewriting: Rewriting, convolutions: Iterable[str] = CONVOLUTIONS) -> None:
    """Batch norm behind a convolution that it alone reads goes into weights and bias. The bias has the shape of one of the norm's own
    tensors, by whose name it goes where the convolution had none."""
    chosen = frozenset(convolutions)
    for layer in rewriting.layers:
        norm = rewriting.follower(layer, ("batch_norm",)) if layer.op in chosen else None
        if norm is not None:
            of = bound(norm)
            source, weight, bias = (*layer.tensors, None)[:3]
            rewriting.take_over(layer, norm, tensors=(source, weight, bias or of["bias"] or of["running_mean"]))
