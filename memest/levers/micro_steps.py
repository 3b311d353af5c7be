"""``accumulate`` and ``micro_batch``: one optimizer step for several passes through the network, whose gradients add up in ``.grad``.

``accumulate`` reads the given batch as one micro-batch: the data of one is resident at a time, and the step sees ``steps`` of them.
``micro_batch`` reads it as the whole batch: it stays resident and goes through the network in slices.
"""

from __future__ import annotations

from dataclasses import replace

from memest.levers.checks import flag, positive
from memest.levers.lever import REQUIRED, Lever, Option, Options
from memest.network.graph import Graph
from memest.runtimes.torch.step.recipe import Accumulate, MicroBatch, Recipe

SOURCE = "torch/csrc/autograd/functions/accumulate_grad.h: variable_grad += new_grad"
MEAN = Option(default=True, check=flag, summary="divide each loss by the number of passes, so that the gradient is a mean")


MOST_STEPS = 10_000  # each pass is written into the timeline


def _steps(text: str) -> int:
    """A whole number from 1 to ``MOST_STEPS``."""
    steps = positive(text)
    if steps > MOST_STEPS:
        raise ValueError(f"expected at most {MOST_STEPS:,}: from the fourth pass on the peak stays what it is")
    return steps


def _accumulate(graph: Graph, recipe: Recipe, options: Options) -> tuple[Graph, Recipe]:
    return graph, replace(recipe, accumulate=Accumulate(steps=options["steps"], mean=options["mean"]))


def _micro_batch(graph: Graph, recipe: Recipe, options: Options) -> tuple[Graph, Recipe]:
    return graph, replace(recipe, micro_batch=MicroBatch(size=options["size"], mean=options["mean"]))


ACCUMULATE = Lever(
    summary="sum the gradients of several batches before the optimizer steps; the given batch is one of them",
    price="gradients stay alive through the next forward pass; batch norm sees one micro-batch at a time",
    options={"steps": Option(default=REQUIRED, check=_steps, summary="batches to one optimizer step"), "mean": MEAN},
    modes=("train",),
    excludes=(),
    change=_accumulate,
    source=SOURCE,
)

MICRO_BATCH = Lever(
    summary="send the batch through the network in slices and sum their gradients; the whole batch stays resident",
    price="more, smaller kernels; gradients stay alive through the next forward pass; batch norm sees one slice at a time",
    options={"size": Option(default=REQUIRED, check=positive, summary="samples in a slice; the last may be smaller"), "mean": MEAN},
    modes=("train",),
    excludes=(),
    change=_micro_batch,
    source=f"torch.Tensor.split; {SOURCE}",
)
