"""From a Graph to a file that reads back as an equal graph: torch.nn's keywords where they say it all, tensors by name where not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import yaml

from memest.errors import UsageError, kind_of
from memest.network.graph import Casting, Graph, Input, Layer, Parameter, Segment, as_graph, default_drops
from memest.network.segments import flat
from memest.ops.table import operator_named
from memest.shown import visible
from memest.sizes.dims import Expr
from memest.sources.files.finishing import sorted_by
from memest.sources.files.functions import function_written, hook_written, packing_written
from memest.sources.files.layers import Shorthand, shorthand
from memest.sources.files.model import VERSION


def dumps(graph: Graph, *, form: str = "yaml", examples: Mapping[str, int] | None = None) -> str:
    """The graph as YAML or JSON text. ``examples`` are sizes that the graph's symbols may have, for the reader's check
    (left out: those it was recorded at)."""
    data = to_dict(as_graph(graph, "dumps"), examples=examples)
    if not isinstance(form, str) or form not in ("yaml", "json"):
        raise UsageError(f"form is 'yaml' or 'json', got {kind_of(form)}")
    if form == "json":
        return json.dumps(data, indent=1) + "\n"
    written = yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=140, allow_unicode=True)
    return visible(str(written), keep="\n")


def to_dict(graph: Graph, *, examples: Mapping[str, int] | None = None) -> dict[str, Any]:
    """The graph as plain data that ``from_dict`` reads back to an equal graph."""
    short = _shorthands(graph)
    owned = {name for s in short.values() for name in s.parameters}
    data: dict[str, Any] = {"memest": VERSION, "name": graph.name, "inputs": {i.name: _input(i) for i in graph.inputs}}
    if examples or graph.examples:
        data["examples"] = dict(examples or graph.examples)
    explicit = {p.name: _parameter(p) for p in graph.parameters if p.name not in owned}
    if explicit:
        data["parameters"] = explicit
    data["layers"] = list(_layers(graph, short))
    data["outputs"] = list(graph.outputs)
    order = _order(graph, list(explicit), short)
    if order:
        data["order"] = order
    drops = _drops(graph)
    if drops:
        data["drops"] = drops
    if graph.guards:
        data["guards"] = [str(g) for g in graph.guards]
    plain = [layer.name for layer in graph.layers if not layer.grad]
    if plain:
        data["no_grad"] = plain
    if graph.segments:
        data["checkpoints"] = {s.name: _checkpoint(graph, s) for s in flat(graph.segments)}
    if any(layer.autocast for layer in graph.layers):
        data["autocast"] = _autocast(graph)
    functions = {layer.name: function_written(layer.backward, _plain) for layer in graph.layers if layer.backward is not None}
    if functions:
        data["functions"] = functions
    packing = {layer.name: [packing_written(p, _plain) for p in layer.packing] for layer in graph.layers if layer.packing}
    if packing:
        data["packing"] = packing
    if graph.hooks:
        data["hooks"] = [hook_written(h, _plain) for h in graph.hooks]
    selected = {layer.name: _plain(layer.selected) for layer in graph.layers if layer.selected}
    if selected:
        data["selected"] = selected
    if graph.enables_grad:
        data["enables_grad"] = True
    if graph.waiting:
        data["waiting"] = list(graph.waiting)
    if graph.refused:
        data["refused"] = dict(graph.refused)
    if graph.on_host:
        data["on_host"] = list(graph.on_host)
    if graph.notes:
        data["notes"] = list(graph.notes)
    if graph.torch is not None:
        data["torch"] = graph.torch
    if graph.inference is not None:
        data["inference"] = to_dict(graph.inference, examples=examples)
    return data


def _checkpoint(graph: Graph, s: Segment) -> Any:
    """The first and the last layer, and how it is called where that is not the usual way."""
    ends = [graph.layers[s.start].name, graph.layers[s.end - 1].name]
    said = {f.name: _plain(v) for f in fields(s.call) if f.name != "packing" and (v := getattr(s.call, f.name)) != f.default}
    if s.call.packing:
        said["packing"] = [packing_written(p, _plain) for p in s.call.packing]
    return _Settings({"layers": ends, **said}) if said else ends


def _autocast(graph: Graph) -> dict[str, list[Any]]:
    """What contexts of autocast say on which layers, by the outermost of them."""
    found: dict[str, dict[Casting, list[str]]] = {}
    for layer in graph.layers:
        for c in layer.autocast:
            found.setdefault(c.scope, {}).setdefault(c, []).append(layer.name)
    return {scope: [_casting(c, layers) for c, layers in said.items()] for scope, said in found.items()}


def _casting(c: Casting, layers: list[str]) -> Any:
    off = {} if c.dtype is None else {"dtype": c.dtype}
    return _Settings({"device": c.device, **off, **({} if c.cache else {"cache": False}), "layers": layers})


class _Settings(dict[str, Any]):
    """What stands on one line."""


class _Dumper(yaml.SafeDumper):
    """No anchors, a layer on one line: plain text a person can read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _one_line(dumper: yaml.SafeDumper, data: _Settings) -> yaml.Node:
    return dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=True)


def _text(dumper: yaml.SafeDumper, data: str) -> yaml.Node:
    """What holds characters that show nothing is quoted, so that they can be escapes."""
    quoted = {} if visible(data) == data else {"style": '"'}
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, **quoted)


_Dumper.add_representer(_Settings, _one_line)
_Dumper.add_representer(str, _text)


def _input(i: Input) -> Any:
    dims = [_plain_dim(d) for d in i.shape]
    plain = i.dtype == "float32" and i.layout == "contiguous"
    return dims if plain else {"shape": dims, "dtype": i.dtype, "layout": i.layout}


def _plain_dim(d: int | Expr) -> int | str:
    return d.text if isinstance(d, Expr) else d


def _parameter(p: Parameter) -> Any:
    entry = _Settings({"shape": [_plain_dim(d) for d in p.shape]})
    if p.dtype != "float32":
        entry["dtype"] = p.dtype
    if p.layout != "contiguous":
        entry["layout"] = p.layout
    if p.buffer:
        entry["buffer"] = True
    if not p.registered:
        entry["registered"] = False
    if not p.trainable and not p.buffer:
        entry["trainable"] = False
    return entry


def _shorthands(graph: Graph) -> dict[str, Shorthand]:
    """Shorthands by layer. Two owners never share a name; of an owner used twice every layer but the first shares. A layer that leaves out
    what its owner has (a weight without its bias) has none."""
    parameters = {p.name: p for p in graph.parameters}
    found: dict[str, Shorthand] = {}
    made: dict[str, str] = {}
    for layer in graph.layers:
        s = shorthand(layer, parameters)
        if s is None:
            continue
        roles = (role.rstrip("?*") for role in operator_named(layer.op).roles)
        if any(name in parameters and name not in s.parameters for name in (f"{s.owner}.{role}" for role in roles)):
            continue
        takers = {made.get(name, s.owner) for name in s.parameters}
        if takers <= {s.owner}:
            found[layer.name] = s
            made.update(dict.fromkeys(s.parameters, s.owner))
    return found


def _layers(graph: Graph, short: Mapping[str, Shorthand]) -> Iterator[dict[str, Any]]:
    owners: set[str] = set()
    previous = graph.inputs[0].name if len(graph.inputs) == 1 else None
    for layer in graph.layers:
        s = short.get(layer.name)
        entry: dict[str, Any] = {"name": layer.name}
        entry.update(_reads(layer, s, previous))
        if layer.outputs != (layer.name,):
            entry["out"] = list(layer.outputs)
        entry.update({key: _plain(value) for key, value in layer.attributes})
        if s is not None and s.parameters:
            entry.update({"shares": s.owner} if s.owner in owners else _owning(layer, s))
            owners.add(s.owner)
        elif s is not None:
            entry.update(_owning(layer, s))
        yield {layer.op: _Settings(entry)}
        previous = layer.outputs[0] if layer.outputs else previous


def _owning(layer: Layer, s: Shorthand) -> dict[str, Any]:
    own = {} if s.owner == layer.name else {"owner": s.owner}
    return {**own, **{k: _plain(v) for k, v in s.settings.items()}}


def _reads(layer: Layer, short: Shorthand | None, previous: str | None) -> dict[str, Any]:
    """``in`` when the first roles say it all (nothing at all when it is the layer before), else ``tensors`` by role."""
    from memest.ops.modules import MODULES

    if short is not None:
        return {} if layer.tensors[0] == previous else {"in": layer.tensors[0]}
    tensors = list(layer.tensors)
    while tensors and tensors[-1] is None:
        tensors.pop()
    if layer.op in MODULES or not tensors or any(t is None for t in tensors):
        roles = [r.rstrip("?*") for r in operator_named(layer.op).roles]
        return {"tensors": {r: _plain(t) for r, t in zip(roles, layer.tensors, strict=True) if t is not None}}
    if tensors == [previous]:
        return {}
    return {"in": tensors[0] if len(tensors) == 1 and isinstance(tensors[0], str) else _plain(tensors)}


def _plain(value: Any) -> Any:
    if isinstance(value, Expr):
        return f"={value.text}"
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value


def _drops(graph: Graph) -> dict[str, list[str]]:
    """The layers after which not just what they read last dies, with what dies."""
    permanent = [i.name for i in graph.inputs] + [p.name for p in graph.parameters]
    usual = default_drops(graph.layers, graph.outputs, permanent)
    return {layer.name: list(layer.drops) for layer, plain in zip(graph.layers, usual, strict=True) if layer.drops != plain.drops}


def creation_order(explicit: Sequence[str], layers: Sequence[Layer], short: Mapping[str, Shorthand]) -> list[str]:
    """Names of parameters as the reader makes them: the explicit ones, then each owner's when a layer first reads one of them."""
    makers = {name: s for s in short.values() for name in s.parameters}
    made = dict.fromkeys(explicit)
    for layer in layers:
        own = [short[layer.name]] if layer.name in short else []
        for s in [makers[n] for n in layer.reads if n in makers] + own:
            made.update(dict.fromkeys(s.parameters))
    return list(made)


def _order(graph: Graph, explicit: Sequence[str], short: Mapping[str, Shorthand]) -> list[str]:
    """The shortest list of beginnings that puts the parameters in the graph's order; empty when they are in order by themselves."""
    wanted = [p.name for p in graph.parameters]
    natural = creation_order(explicit, graph.layers, short)
    if natural == wanted:
        return []
    deepest = max(name.count(".") for name in wanted) + 1
    for depth in range(1, deepest):
        order = list(dict.fromkeys(".".join(name.split(".")[:depth]) for name in wanted))
        if sorted_by(order, natural) == wanted:
            return order
    return wanted
