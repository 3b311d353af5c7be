"""``sliding_window``: a volume is predicted in overlapping windows whose predictions are added up and divided by how often each voxel was
met, as nnU-Net predicts (MONAI: sliding_window_inference)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from memest.levers.checks import choice, extents, flag
from memest.levers.lever import REQUIRED, Lever, Option, Options
from memest.network.graph import Graph
from memest.runtimes.torch.step.recipe import Recipe, SlidingWindow

MOST_AXES = 8


def _share(text: str) -> Fraction:
    """A number above 0, at most 1."""
    try:
        value = Fraction(text) if len(text) <= 12 else Fraction(0)
    except (ValueError, ZeroDivisionError):
        raise ValueError("expected a number such as 0.5") from None
    if not 0 < value <= 1:
        raise ValueError("expected a number above 0, at most 1")
    return value


def _axes(text: str) -> tuple[int, ...]:
    """Spatial axes joined by ``+``, from 0; none."""
    if text == "none":
        return ()
    parts = text.split("+")
    if len(parts) > MOST_AXES or not all(p in ("0", "1", "2") for p in parts) or len(set(parts)) < len(parts):
        raise ValueError("expected spatial axes joined by +, such as 0+1+2, or none")
    return tuple(int(p) for p in parts)


def _ahead(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:4]) <= 64):
        raise ValueError("expected a whole number up to 64")
    return int(text)


def _change(graph: Graph, recipe: Recipe, options: Options) -> tuple[Graph, Recipe]:
    window = SlidingWindow(
        size=options["size"],
        step=options["step"],
        mirror=options["mirror"],
        gaussian=options["gaussian"],
        on_device=options["results"] == "device",
        ahead=options["ahead"],
    )
    autocast = recipe.autocast and replace(recipe.autocast, cache=False)  # under inference_mode no cast is kept
    return graph, replace(recipe, sliding=window, autocast=autocast)


SLIDING_WINDOW = Lever(
    summary="predict a volume in overlapping windows whose predictions are summed in float16 and divided by their number (nnU-Net)",
    price="the overlap is computed more than once, and everything again for each mirrored axis",
    options={
        "size": Option(default=REQUIRED, check=extents, summary="the window: 128x128x128, or 128 for every dim"),
        "step": Option(default=Fraction(1, 2), check=_share, summary="how far windows lie apart at most, as a share of their size"),
        "mirror": Option(default=(), check=_axes, summary="spatial axes to mirror along, such as 0+1+2: their combinations are averaged"),
        "gaussian": Option(default=True, check=flag, summary="weigh each prediction by a Gaussian importance map"),
        "results": Option(default="device", check=choice("device", "host"), summary="where volume and sums lie; host: not on the GPU"),
        "ahead": Option(default=3, check=_ahead, summary="windows that a second thread has cut out ahead (nnU-Net: 3)"),
    },
    modes=("infer",),
    excludes=("tiles", "sliding_window_inference"),
    change=_change,
    source="nnunetv2 2.8.1, inference/predict_from_raw_data.py: nnUNetPredictor, inference/sliding_window_prediction.py",
)
