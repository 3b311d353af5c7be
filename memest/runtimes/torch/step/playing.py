"""A whole step: the run is made, with what other ranks add to it, and led through training, tiles or one call."""

from __future__ import annotations

from collections.abc import Mapping

from memest.memory.stream import Stream
from memest.network.graph import Graph
from memest.network.tensor import Shape
from memest.runtimes.runtime import Rows
from memest.runtimes.torch.step.acting import Acting
from memest.runtimes.torch.step.batches import whole
from memest.runtimes.torch.step.forward import forward
from memest.runtimes.torch.step.parallel import Alone, Parallel, Replicate
from memest.runtimes.torch.step.recipe import Recipe, SlidingWindow
from memest.runtimes.torch.step.run import Hooks, Run
from memest.runtimes.torch.step.training import train
from memest.runtimes.torch.step.windows.monai import play_inference
from memest.runtimes.torch.step.windows.nnunet import play_sliding
from memest.runtimes.torch.step.windows.tiles import play_tiles


def play(
    graph: Graph, input_shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Recipe, rows: Rows, *, remember: bool = True
) -> Stream:
    """The stream of one step of ``graph`` with concrete ``input_shapes`` (``sizes`` are the symbols they bind). Symbolic shapes
    (``Dim``s) need ``remember=False``: their traces are not shared. ``rows`` say how each operator runs."""
    if recipe.step == 1 and graph.beginning is not None:
        graph = graph.beginning
    return finish(Run(graph, input_shapes, sizes, recipe, rows, hooks_of(recipe.parallel), remember=remember))


def finish(run: Run) -> Stream:
    """The step of a run that has just begun, and what it left."""
    run.actions = Acting(run)
    if run.graph.step:
        forward(run, whole(run))
        run.caller.leave_autocast()
    elif run.recipe.training:
        train(run)
    elif run.recipe.tiles is not None:
        play_tiles(run, run.recipe.tiles)
    elif isinstance(run.recipe.sliding, SlidingWindow):
        play_sliding(run, run.recipe.sliding)
    elif run.recipe.sliding is not None:
        play_inference(run, run.recipe.sliding)
    else:
        forward(run, whole(run))
        run.caller.leave_autocast()
    first = run.recipe.step == 1
    run.machine.numbers.check()
    remade_at, remade = (0, ()) if first else run.hooks.remade()
    return Stream(
        residents=tuple(run.ledger.residents),
        events=tuple(run.ledger.events),
        values=run.specs,
        overwriting=tuple(run.overwriting),
        ran_again=tuple(run.ran_again),
        repeats=tuple(run.ledger.repeats),
        made=tuple(run.hooks.made()) if first else (),
        remade=tuple(remade),
        remade_at=remade_at,
    )


def hooks_of(plan: Parallel | None) -> Hooks:
    """What the other ranks add to the step."""
    if plan is None:
        return Alone()
    if isinstance(plan, Replicate):
        from memest.runtimes.torch.step.parallel.replicas import Replicas

        return Replicas(plan)
    from memest.runtimes.torch.step.parallel.shards import Shards

    return Shards(plan)
