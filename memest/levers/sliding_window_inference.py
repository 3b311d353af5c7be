"""``sliding_window_inference``: a volume is predicted in overlapping windows that are added up, as MONAI's function does it."""

from __future__ import annotations

from dataclasses import replace

from memest.levers.checks import choice, count, extents, flag, positive
from memest.levers.lever import REQUIRED, Lever, Option, Options
from memest.network.graph import Graph
from memest.runtimes.torch.step.recipe import Recipe, SlidingWindowInference


def _overlaps(text: str) -> tuple[float, ...]:
    """Shares from 0, below 1, joined by ``x``."""
    try:
        found = tuple(float(part) for part in text.split("x"))
    except ValueError:
        raise ValueError("expected a number such as 0.25, or one a dim: 0.5x0.5x0.25") from None
    if not all(0 <= share < 1 for share in found):
        raise ValueError("expected numbers of at least 0 and below 1")
    return found


def _axis(text: str) -> int:
    """A spatial axis, from 0, or from the end below 0."""
    if text not in ("-3", "-2", "-1", "0", "1", "2"):
        raise ValueError("expected a spatial axis: 0, 1, 2, or -1 for the last")
    return int(text)


def _change(graph: Graph, recipe: Recipe, options: Options) -> tuple[Graph, Recipe]:
    return graph, replace(recipe, sliding=SlidingWindowInference(**{**options, "device": options["device"] or options["inputs"]}))


SLIDING_WINDOW_INFERENCE = Lever(
    summary="predict a volume in overlapping windows whose predictions are added up and divided by their weights (MONAI)",
    price="the overlap is computed more than once",
    options={
        "roi_size": Option(default=REQUIRED, check=extents, summary="the window: 96x96x96, or 96 for every dim"),
        "sw_batch_size": Option(default=1, check=positive, summary="windows that go through the network at once"),
        "overlap": Option(default=(0.25,), check=_overlaps, summary="what neighbours share, of a window: 0.5, or one a dim"),
        "mode": Option(default="constant", check=choice("constant", "gaussian"), summary="how predictions are weighed"),
        "buffer_steps": Option(default=0, check=count, summary="places along buffer_dim that are added up in a slab first; 0: none"),
        "buffer_dim": Option(default=-1, check=_axis, summary="the spatial axis along which slabs lie"),
        "cache_roi_weight_map": Option(default=False, check=flag, summary="the map stays from call to call (SlidingWindowInferer)"),
        "inputs": Option(default="cuda", check=choice("cuda", "cpu"), summary="where the volume lies, on a card"),
        "device": Option(default=None, check=choice("cuda", "cpu"), summary="where they are added up, on a card; left out: as inputs"),
    },
    modes=("infer",),
    excludes=("tiles", "sliding_window"),
    change=_change,
    source="monai 1.6.1, inferers/utils.py: sliding_window_inference, inferers/inferer.py: SlidingWindowInferer",
)
