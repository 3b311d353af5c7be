"""``autocast``: forward and loss in torch's mixed precision (``with torch.autocast("cpu", dtype=torch.bfloat16):``), backward outside."""

from __future__ import annotations

from dataclasses import replace

from memest.errors import UsageError
from memest.levers.checks import choice, flag
from memest.levers.lever import Lever, Option, Options
from memest.network.dtypes import dtype_name
from memest.network.graph import Graph
from memest.runtimes.torch.step.autocast import Autocast
from memest.runtimes.torch.step.recipe import Recipe


def _change(graph: Graph, recipe: Recipe, options: Options) -> tuple[Graph, Recipe]:
    on_cuda = recipe.target.on_cuda
    dtype = options["dtype"] or ("float16" if on_cuda else "bfloat16")
    scaler = options["scaler"]
    if scaler and not on_cuda:
        raise UsageError("lever 'autocast': scaler is modelled on torch-cuda alone; leave it out")
    if scaler is None:
        scaler = on_cuda and dtype == "float16"
    context = Autocast(dtype=dtype, loss_inside=options["loss"] == "inside", cache=options["cache"], scaler=scaler and recipe.training)
    return graph, replace(recipe, autocast=context)


def _half(text: str) -> str:
    found: str = choice("bfloat16", "float16")(dtype_name(text))
    return found


AUTOCAST = Lever(
    summary="convolutions and matrix products run on half-width casts of their arguments; parameters and optimizer stay float32",
    price="less precision; every weight has a second copy while its layer needs it",
    options={
        "dtype": Option(default=None, check=_half, summary="the type that is cast to (default: bfloat16 on a CPU, float16 on CUDA)"),
        "loss": Option(default="inside", check=choice("inside", "outside"), summary="whether the loss is computed within the context"),
        "cache": Option(default=True, check=flag, summary="whether casts of parameters are kept until the context ends (cache_enabled)"),
        "scaler": Option(default=None, check=flag, summary="a GradScaler around backward and step (default: float16 on CUDA)"),
    },
    modes=("train", "infer"),
    excludes=(),
    change=_change,
    source="torch.autocast; aten/src/ATen/autocast_mode.cpp; torch/amp/grad_scaler.py",
)
