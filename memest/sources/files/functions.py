"""The backward of custom autograd functions, and what hooks do, in a file and out of it.

Its layers are written as they are, role by role: what they give follows from the layers that they are played behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from memest.errors import GraphError, did_you_mean
from memest.network.graph import Backward, Graph, Layer, LeafHook, Packing
from memest.ops.table import operator_named
from memest.sizes.dims import parse
from memest.sources.files.model import CallModel, FunctionModel, HookModel, PackingModel

ENDS = ("autograd_function", "register_hook")


def function_written(b: Backward, plain: Callable[[Any], Any]) -> dict[str, Any]:
    """A function's backward as plain data; ``plain`` turns sizes and tuples into text and lists."""
    data: dict[str, Any] = {"saved": list(b.saved), "kept": list(b.kept), "gradients": list(b.gradients)}
    data = {key: value for key, value in data.items() if value}
    data["layers"] = [_call_written(layer, plain) for layer in b.layers]
    data["results"], data["differentiable"] = list(b.results), list(b.differentiable)
    data |= {} if b.materialized else {"materialized": False}
    data |= {} if b.unpacks else {"unpacks": False}
    data |= {"without_grad": list(b.without_grad)} if b.without_grad else {}
    data |= {} if b.applies is None else {"applies": b.applies}
    data |= {"asks_autocast": True} if b.asks_autocast else {}
    data |= {} if b.begins is None else {"begins": b.begins}
    data |= {} if b.raises is None else {"raises": b.raises}
    data |= {} if b.lender is None else {"lender": b.lender, "lent": list(b.lent)}
    return {**data, "others": [function_written(other, plain) for other in b.others]} if b.others else data


def packing_written(p: Packing, plain: Callable[[Any], Any]) -> dict[str, Any]:
    """What hooks do with one saved tensor, as plain data."""
    layers = {"packed": p.packed, "unpacked": p.unpacked}
    calls = {key: [_call_written(layer, plain) for layer in found] for key, found in layers.items() if found}
    return {"given": p.given, "dtype": p.dtype, "kept": list(p.kept), "result": p.result, **calls}


def hook_written(h: LeafHook, plain: Callable[[Any], Any]) -> dict[str, Any]:
    """A hook on a parameter, as plain data."""
    return {"parameter": h.parameter, **({"after": True} if h.after else {}), **function_written(h.backward, plain)}


def _call_written(layer: Layer, plain: Callable[[Any], Any]) -> dict[str, Any]:
    if layer.autocast:
        raise GraphError(f"functions: layer {layer.name!r} stands in autocast inside a custom function's backward, which no file holds yet")
    if layer.checkpoint is not None:
        raise GraphError(f"functions: layer {layer.name!r} is checkpointed inside a custom function's backward, which no file holds yet")
    data: dict[str, Any] = {"op": layer.op, "name": layer.name, "tensors": plain(layer.tensors), "out": list(layer.outputs)}
    if layer.attributes:
        data["attributes"] = {key: plain(value) for key, value in layer.attributes}
    if layer.drops:
        data["drops"] = list(layer.drops)
    if layer.backward is not None:
        data["function"] = function_written(layer.backward, plain)
    if layer.packing:
        data["packing"] = [packing_written(p, plain) for p in layer.packing]
    return data if layer.grad else {**data, "grad": False}


def with_functions(graph: Graph, functions: Mapping[str, FunctionModel]) -> Graph:
    """Each layer named ends a custom function with that backward. GraphError for what does not fit."""
    ends = {layer.name: layer for layer in graph.layers if layer.op in ENDS}
    for name, function in functions.items():
        if name not in ends:
            raise GraphError(f"functions: no layer {name!r} of the operator {' or '.join(ENDS)}{did_you_mean(name, ends)}")
        _check(name, ends[name], function)
    return graph.with_(
        layers=tuple(replace(la, backward=_backward(functions[la.name])) if la.name in functions else la for la in graph.layers)
    )


def with_packing(graph: Graph, packing: Mapping[str, Sequence[PackingModel]]) -> Graph:
    """What hooks do with the tensors that each layer named saves. GraphError for what does not fit."""
    names = [layer.name for layer in graph.layers]
    for name, found in packing.items():
        if name not in names:
            raise GraphError(f"packing: no layer {name!r}{did_you_mean(name, names)}")
        for p in found:
            known = {p.given, *(n for call in p.packed for n in call.out)}
            lost = next((n for n in p.kept if n not in known), None)
            if lost is None and p.result not in {*p.kept, *(n for call in p.unpacked for n in call.out)}:
                lost = p.result
            if lost is not None:
                raise GraphError(f"packing: {name!r}: {lost!r} does not exist{did_you_mean(lost, known)}")
    packed = {name: tuple(map(packing_read, found)) for name, found in packing.items()}
    return graph.with_(layers=tuple(replace(la, packing=packed.get(la.name, ())) for la in graph.layers))


def with_hooks(graph: Graph, hooks: Sequence[HookModel]) -> Graph:
    """The hooks on the graph's parameters. GraphError for one that is not there."""
    names = [p.name for p in graph.parameters]
    unknown = next((h.parameter for h in hooks if h.parameter not in names), None)
    if unknown is not None:
        raise GraphError(f"hooks: no parameter {unknown!r}{did_you_mean(unknown, names)}")
    return graph.with_(hooks=tuple(LeafHook(parameter=h.parameter, after=h.after, backward=_backward(h)) for h in hooks))


def packing_read(p: PackingModel) -> Packing:
    """What hooks do with one saved tensor."""
    packed, unpacked = (tuple(map(_layer, found)) for found in (p.packed, p.unpacked))
    return Packing(given=p.given, dtype=p.dtype, packed=packed, kept=tuple(p.kept), unpacked=unpacked, result=p.result)


def _check(name: str, layer: Layer, f: FunctionModel) -> None:
    outputs, inputs = (1, 1) if layer.op == "register_hook" else (len(names or ()) for names in layer.tensors)
    for key, count, wanted in (("gradients", len(f.gradients), outputs), ("differentiable", len(f.differentiable), outputs)):
        if count != wanted:
            raise GraphError(f"functions: {name!r} has {wanted} outputs and {count} {key}")
    if len(f.results) != inputs:
        raise GraphError(f"functions: {name!r} is given {inputs} tensors and has {len(f.results)} results")
    known = {*f.saved, *f.kept, *f.lent, *(g for g in f.gradients if g is not None)}
    for call in f.layers:
        if len(call.tensors) != len(operator_named(call.op).roles):
            raise GraphError(f"functions: layer {call.name!r} ({call.op}) has {len(operator_named(call.op).roles)} roles")
        known.update(call.out)
    unknown = next((r for r in f.results if r is not None and r not in known), None)
    if unknown is not None:
        raise GraphError(f"functions: {name!r} gives {unknown!r}, which does not exist{did_you_mean(unknown, known)}")
    for other in f.others:
        _check(name, layer, other)


def _backward(f: FunctionModel) -> Backward:
    return Backward(
        saved=tuple(f.saved),
        kept=tuple(f.kept),
        gradients=tuple(f.gradients),
        layers=tuple(map(_layer, f.layers)),
        results=tuple(f.results),
        differentiable=tuple(f.differentiable),
        materialized=f.materialized,
        others=tuple(map(_backward, f.others)),
        lender=f.lender,
        lent=tuple(f.lent),
        unpacks=f.unpacks,
        without_grad=tuple(f.without_grad),
        applies=f.applies,
        asks_autocast=f.asks_autocast,
        begins=f.begins,
        raises=f.raises,
    )


def _layer(c: CallModel) -> Layer:
    return Layer(
        name=c.name,
        op=c.op,
        tensors=tuple(tuple(t) if isinstance(t, list) else t for t in c.tensors),
        attributes=tuple((key, _value(value)) for key, value in c.attributes.items()),
        outputs=tuple(c.out),
        drops=tuple(c.drops),
        grad=c.grad,
        backward=None if c.function is None else _backward(c.function),
        packing=tuple(map(packing_read, c.packing)),
    )


def _value(value: Any) -> Any:
    """Lists as tuples, ``=H//2`` as a size."""
    if isinstance(value, list):
        return tuple(map(_value, value))
    return parse(value[1:]) if isinstance(value, str) and value.startswith("=") else value
