"""``channels_last``: weights and inputs in torch's channels-last memory format (``model.to(memory_format=torch.channels_last)``)."""

from __future__ import annotations

from dataclasses import replace

from memest.levers.lever import Lever, Options
from memest.network.graph import Graph
from memest.runtimes.torch.step.recipe import Recipe

RANKS = (4, 5)


def _change(graph: Graph, recipe: Recipe, options: Options) -> tuple[Graph, Recipe]:
    parameters = tuple(replace(p, layout="channels_last") if len(p.shape) in RANKS else p for p in graph.parameters)
    inputs = tuple(replace(i, layout="channels_last") if len(i.shape) in RANKS else i for i in graph.inputs)
    return graph.with_(parameters=parameters, inputs=inputs), recipe


CHANNELS_LAST = Lever(
    summary="weights and inputs lie in channels-last order",
    price="layers that need row-major data copy it",
    options={},
    modes=("train", "infer"),
    excludes=(),
    change=_change,
    source="torch.nn.Module.to(memory_format=torch.channels_last / channels_last_3d)",
)
