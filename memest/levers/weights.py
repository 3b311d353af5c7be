"""Levers around the optimizer's step: ``clip``, ``ema`` and ``offload_optimizer``."""

from __future__ import annotations

from dataclasses import replace

from memest.levers.checks import flag, positive_number
from memest.levers.lever import REQUIRED, Lever, Option, Options
from memest.network.graph import Graph
from memest.runtimes.torch.step.recipe import Average, Clip, Recipe


def _clip(graph: Graph, recipe: Recipe, options: Options) -> tuple[Graph, Recipe]:
    return graph, replace(recipe, clip=Clip(foreach=options["foreach"]))


def _ema(graph: Graph, recipe: Recipe, options: Options) -> tuple[Graph, Recipe]:
    return graph, replace(recipe, average=Average(buffers=options["buffers"]))


def _offload(graph: Graph, recipe: Recipe, options: Options) -> tuple[Graph, Recipe]:
    return graph, replace(recipe, offload=True)


CLIP = Lever(
    summary="scale the gradients down to a common norm before the optimizer steps",
    price="one pass over the gradients; a few bytes a parameter",
    options={
        "norm": Option(default=REQUIRED, check=positive_number, summary="the largest norm that is left alone (moves no memory)"),
        "foreach": Option(default=None, check=flag, summary="torch's foreach variant (default: as torch chooses)"),
    },
    modes=("train",),
    excludes=(),
    change=_clip,
    source="torch/nn/utils/clip_grad.py: clip_grad_norm_; aten/src/ATen/native/ForeachOpsKernels.cpp, cuda/ForeachReduceOp.cu",
)

EMA = Lever(
    summary="keep an exponential moving average of the weights (torch.optim.swa_utils.AveragedModel)",
    price="a second copy of parameters and buffers",
    options={"buffers": Option(default=False, check=flag, summary="average the buffers too instead of copying them (use_buffers)")},
    modes=("train",),
    excludes=(),
    change=_ema,
    source="torch/optim/swa_utils.py: AveragedModel.update_parameters, get_ema_multi_avg_fn",
)

OFFLOAD_OPTIMIZER = Lever(
    summary="keep the optimizer's state outside of torch's memory between steps; each parameter's state comes in for its own update",
    price="every step moves the state in and out once; parameters are updated one by one",
    options={},
    modes=("train",),
    excludes=(),
    change=_offload,
    source="one optimizer a parameter, as torchao.optim.CPUOffloadOptimizer makes them; state in buffers that torch does not allocate",
)
