"""The order in which a script makes what is there before its first step."""

from __future__ import annotations

from collections.abc import Sequence

from memest.memory.stream import Storage
from memest.network.graph import Graph
from memest.runtimes.torch.step.parallel.groups import in_module_order


def in_script_order(graph: Graph, residents: Sequence[Storage]) -> list[Storage]:
    """The residents of a step, which are one of each parameter and buffer, then the inputs, then others, among them the target: the network
    as ``module.to(device)`` comes to it (children first, of each module its parameters, then its buffers), the inputs, the target, the
    others."""
    network, rest = residents[: len(graph.parameters)], residents[len(graph.parameters) :]
    named = dict(zip((p.name for p in graph.parameters), network, strict=True))
    targets = [s for s in rest if s.category == "input" and s.layer == "target"]
    others = [s for s in rest if s not in targets]
    inputs = len(graph.inputs)
    return [*(named[p.name] for p in in_module_order(graph.parameters)), *others[:inputs], *targets, *others[inputs:]]
