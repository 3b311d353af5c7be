"""A layer graph run in torch, call by call, with the lifetimes the graph states: the oracle for graphs that come from no module."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from memest.dims import resolve
from memest.graph import Graph, Layer
from memest.timeline import bind, operator_named
from validation.rows import call_torch


class GraphModule(nn.Module):
    """An ``nn.Module`` whose forward plays the layers of a graph; a value is deleted where the graph drops it."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.keys = {p.name: p.name.replace(".", "__") for p in graph.parameters}
        for p in graph.parameters:
            self._own(p.name, _initial(p.shape, p.dtype, p.name), p.buffer, p.trainable)

    def _own(self, name: str, value: torch.Tensor, buffer: bool, trainable: bool) -> None:
        if buffer:
            self.register_buffer(self.keys[name], value)
        else:
            self.register_parameter(self.keys[name], nn.Parameter(value, requires_grad=trainable))

    def forward(self, *inputs: torch.Tensor) -> Any:
        graph = self.graph
        sizes = bind(graph.inputs, {i.name: tuple(t.shape) for i, t in zip(graph.inputs, inputs, strict=True)})
        env: dict[str, torch.Tensor] = {i.name: t for i, t in zip(graph.inputs, inputs, strict=True)}
        for name, key in self.keys.items():
            env[name] = getattr(self, key)
        for layer in graph.layers:
            self._play(layer, env, sizes)
            for name in layer.drops:
                del env[name]
        outputs = tuple(env[name] for name in graph.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def _play(self, layer: Layer, env: dict[str, torch.Tensor], sizes: dict[str, int]) -> None:
        row = operator_named(layer.op)
        attributes = dict(row.canonical(dict(resolve(layer.attributes, sizes))))
        if attributes.get("training", False) is None:
            attributes["training"] = self.training
        defaults = {a.name: a.default for a in row.attributes}
        given = {k: v for k, v in attributes.items() if k == "training" or v != defaults[k]}
        tensors: list[Any] = []
        for t in layer.tensors:
            tensors.append(None if t is None else env[t] if isinstance(t, str) else [env[n] for n in t])
        result = call_torch(row, tensors, given)
        outputs = list(result) if isinstance(result, tuple | list) else [result]
        for name, value in zip(layer.outputs, outputs, strict=False):
            env[name] = value


def _initial(shape: tuple[int, ...], dtype: str, name: str) -> torch.Tensor:
    if dtype == "int64":
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith("running_var"):
        return torch.ones(shape)
    return torch.rand(shape, dtype=getattr(torch, dtype)) * 0.1
