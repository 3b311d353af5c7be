"""A layer graph run in torch, call by call, with the lifetimes the graph states: the oracle for graphs that come from no module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from memest.network.binding import bind
from memest.network.graph import Graph, Layer, Segment
from memest.ops.table import operator_named
from memest.runtimes.torch.step.segments import bounds_of
from memest.sizes.dims import resolve
from validation.rows import call_torch


class GraphModule(nn.Module):
    """An ``nn.Module`` whose forward plays the layers of a graph; a value is deleted where the graph drops it. ``segments`` run under
    ``torch.utils.checkpoint.checkpoint``."""

    def __init__(self, graph: Graph, segments: Sequence[Segment] = ()) -> None:
        super().__init__()
        self.graph = graph
        self.segments = tuple(segments)
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
        done = 0
        for segment in self.segments:
            self._run(done, segment.start, env, sizes)
            self._checkpoint(segment, env, sizes)
            done = segment.end
        self._run(done, len(graph.layers), env, sizes)
        outputs = tuple(env[name] for name in graph.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def _run(self, start: int, end: int, env: dict[str, torch.Tensor], sizes: dict[str, int]) -> None:
        for layer in self.graph.layers[start:end]:
            self._play(layer, env, sizes)
            for name in layer.drops:
                env.pop(name, None)

    def _checkpoint(self, segment: Segment, env: dict[str, torch.Tensor], sizes: dict[str, int]) -> None:
        bounds = bounds_of(self.graph, self.graph.layers, segment)

        def forward(*arguments: torch.Tensor) -> list[torch.Tensor]:
            own = dict(zip(bounds.arguments, arguments, strict=True))
            own.update((name, getattr(self, self.keys[name])) for name in bounds.owned)
            self._run(segment.start, segment.end, own, sizes)
            return [own[name] for name in bounds.results]

        results = checkpoint(forward, *(env[name] for name in bounds.arguments), use_reentrant=False)
        env.update(zip(bounds.results, results, strict=True))
        for layer in self.graph.layers[segment.start : segment.end]:
            for name in layer.drops:
                env.pop(name, None)

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
    return torch.rand(shape, dtype=getattr(torch, dtype)).mul_(0.1)
