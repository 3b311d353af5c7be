"""``inplace``: activations and dropout overwrite their input wherever nobody needs its value any more."""

from __future__ import annotations

from dataclasses import replace

from memest.levers.lever import Lever, Options
from memest.network.graph import Graph
from memest.runtimes.torch.step.recipe import Recipe


def _change(graph: Graph, recipe: Recipe, options: Options) -> tuple[Graph, Recipe]:
    return graph, replace(recipe, inplace=True)


INPLACE = Lever(
    summary="let activations and dropout write over their input where its value is not needed any more (inplace=True)",
    price="none at run time; where it is not legal torch refuses, and memest leaves the layer as it is",
    options={},
    modes=("train", "infer"),
    excludes=(),
    change=_change,
    source="torch/csrc/autograd/saved_variable.cpp (a saved tensor that was overwritten is refused)",
)
