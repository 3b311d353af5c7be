"""One call of the network: its layers one by one, checkpointed segments in frames of their own."""

from __future__ import annotations

from functools import partial

from memest.network.graph import Segment
from memest.runtimes.torch.ledger import Value
from memest.runtimes.torch.step.batches import Batch
from memest.runtimes.torch.step.checkpointing import Frame
from memest.runtimes.torch.step.reentrant import play_reentrant
from memest.runtimes.torch.step.run import Run


def forward(run: Run, batch: Batch) -> list[Value]:
    """The network's outputs, held by their names. Begins the autocast context, if there is one."""
    run.checkpoint = partial(_checkpoint, run)
    run.begin_pass()
    given, run.sizes = run.sizes, batch.sizes
    held = {name: run.env[name] for name in batch.inputs}
    run.env.update(batch.inputs)
    run.hooks.before_forward()
    done = 0
    for segment in run.recipe.segments:
        _one_by_one(run, done, segment.start)
        run.hooks.enter(segment.start, segment.end - 1)
        run.checkpoint(segment, run.env)
        run.hooks.leave(segment.end - 1)
        done = segment.end
    _one_by_one(run, done, len(run.graph.layers))
    run.hooks.after_forward()
    run.sizes = given
    outputs = [run.env[name] for name in run.graph.outputs]
    for name in run.graph.waiting:
        if name in run.env:
            run.ledger.hold(run.env[name])
    run.env.update(held)
    return outputs


def _checkpoint(run: Run, segment: Segment, env: dict[str, Value]) -> None:
    """A checkpointed segment, on the values in ``env``, where its results are then."""
    run.ledger.layer, run.ledger.op = run.graph.layers[segment.start].name, "checkpoint"
    if segment.call.reentrant:
        play_reentrant(run, segment, env)
    else:
        Frame(run, segment, env).run()


def _one_by_one(run: Run, start: int, end: int) -> None:
    """Layers outside of checkpointed segments."""
    for index in range(start, end):
        run.hooks.enter(index, index)
        run.play_layers(index, index + 1, run.env)
        run.hooks.leave(index)
