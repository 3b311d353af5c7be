"""``checkpoint``: parts of the forward run again in backward instead of keeping their activations (torch.utils.checkpoint)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from memest.errors import UsageError
from memest.levers.checkpoints.modules import every, segments_of
from memest.levers.checks import positive, size, words
from memest.levers.lever import Lever, Option, Options
from memest.network.graph import Graph
from memest.network.tensor import Shape
from memest.runtimes.torch.step.recipe import Recipe
from memest.sizes.units import format_bytes

WAYS = ("modules", "every", "budget")


def _change(graph: Graph, recipe: Recipe, options: Options) -> tuple[Graph, Recipe]:
    if recipe.segments:
        raise UsageError("lever 'checkpoint': the network checkpoints itself already, and checkpoints in checkpoints are not modelled")
    if any(layer.packing for layer in graph.layers):
        raise UsageError("lever 'checkpoint': the network has hooks of saved tensors (saved_tensors_hooks); no checkpoints beside them")
    given = [way for way in WAYS if options[way] is not None]
    if len(given) != 1:
        said = "contradict each other" if given else "are all missing"
        raise UsageError(f"lever 'checkpoint': options {', '.join(given or WAYS)} {said}; give one of them")
    if options["modules"] is not None:
        return graph, replace(recipe, segments=segments_of(graph, options["modules"]))
    if options["every"] is not None:
        return graph, replace(recipe, segments=every(graph, options["every"]))
    return graph, recipe


def _fit(graph: Graph, recipe: Recipe, options: Options, shapes: Mapping[str, Shape], sizes: Mapping[str, int]) -> Recipe:
    budget = options["budget"]
    from memest.levers.checkpoints.choice import choose

    found = choose(graph, shapes, sizes, recipe, budget).chosen
    if found.peak_bytes > budget:
        raise UsageError(
            f"lever 'checkpoint': no segments found that keep to {format_bytes(budget)}; the least is {format_bytes(found.peak_bytes)}"
        )
    return replace(recipe, segments=found.segments)


CHECKPOINT = Lever(
    summary="segments keep their inputs alone and run again in backward",
    price="the forward of every segment runs twice",
    options={
        "modules": Option(default=None, check=words, summary="module paths joined by +; a range of layers is first..last"),
        "every": Option(default=None, check=positive, summary="segments of this many blocks each (numbered modules such as layer1.0)"),
        "budget": Option(default=None, check=size, summary="the peak to keep to, such as 12GiB: memest chooses the segments"),
    },
    modes=("train",),
    excludes=(),
    change=_change,
    fit=_fit,
    fit_option="budget",
    source="torch/utils/checkpoint.py (use_reentrant=False)",
)
