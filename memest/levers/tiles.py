"""``tiles``: inference over a volume in overlapping windows, each written where the others leave room (see also sliding_window)."""

from __future__ import annotations

from dataclasses import replace

from memest.levers.checks import extents, halo_extents
from memest.levers.lever import REQUIRED, Lever, Option, Options
from memest.levers.receptive import receptive_field
from memest.network.graph import Graph
from memest.runtimes.torch.step.recipe import Recipe, Tiles


def _change(graph: Graph, recipe: Recipe, options: Options) -> tuple[Graph, Recipe]:
    halo = options["halo"] if options["halo"] is not None else receptive_field(graph).halo
    return graph, replace(recipe, tiles=Tiles(size=options["size"], halo=halo))


TILES = Lever(
    summary="predict a volume in overlapping windows of a size and join the results; volume and result stay whole",
    price="the overlap is computed more than once; with a smaller halo than the receptive field the result is an approximation",
    options={
        "size": Option(default=REQUIRED, check=extents, summary="the window, halo included: 64x64x64, or 64 for every dim"),
        "halo": Option(default=None, check=halo_extents, summary="what is dropped on each side; left out: the network's receptive field"),
    },
    modes=("infer",),
    excludes=("sliding_window", "sliding_window_inference"),
    change=_change,
    source="validation/tiling.py, the loop itself",
)
