"""``autocast``: forward and loss in torch's mixed precision (``with torch.autocast("cpu", dtype=torch.bfloat16):``), backward outside."""

from __future__ import annotations

from dataclasses import replace

from memest.levers.checks import choice, flag
from memest.levers.lever import Lever, Option, Options
from memest.network.dtypes import dtype_name
from memest.network.graph import Graph
from memest.runtimes.torch.step.autocast import Autocast
from memest.runtimes.torch.step.recipe import Recipe


def _change(graph: Graph, recipe: Recipe, options: Options) -> tuple[Graph, Recipe]:
    context = Autocast(dtype=options["dtype"], loss_inside=options["loss"] == "inside", cache=options["cache"])
    return graph, replace(recipe, autocast=context)


def _half(text: str) -> str:
    found: str = choice("bfloat16", "float16")(dtype_name(text))
    return found


AUTOCAST = Lever(
    summary="convolutions and matrix products run on bfloat16 casts of their arguments; parameters and optimizer stay float32",
    price="less precision; every weight has a second copy while its layer needs it",
    options={
        "dtype": Option(default="bfloat16", check=_half, summary="the type that is cast to"),
        "loss": Option(default="inside", check=choice("inside", "outside"), summary="whether the loss is computed within the context"),
        "cache": Option(default=True, check=flag, summary="whether casts of parameters are kept until the context ends (cache_enabled)"),
    },
    modes=("train", "infer"),
    excludes=(),
    change=_change,
    source="torch.autocast; aten/src/ATen/autocast_mode.cpp (AutocastCPU)",
)
