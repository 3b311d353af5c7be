"""A case of :mod:`calls <validation.cuda.calls>` as memest plays it: the graph that the importer records of the same module."""

from __future__ import annotations

from typing import Any

from memest.errors import UnsupportedError
from memest.machines.target import Target
from memest.memory.stream import Event
from memest.network.graph import Graph
from memest.network.tensor import nbytes
from memest.runtimes.torch.autograd import AccumulateGrad
from memest.runtimes.torch.cuda.rows import ROWS
from memest.runtimes.torch.ledger import Value
from memest.runtimes.torch.step import Autocast, Recipe
from memest.runtimes.torch.step.batches import whole
from memest.runtimes.torch.step.forward import forward
from memest.runtimes.torch.step.parallel.alone import Alone
from memest.runtimes.torch.step.run import Run
from memest.sources.importers.torch import from_torch
from validation.cuda.calls import Call, built


def predict_call(call: Call, target: Target) -> list[Event]:
    """What a call and its backward pass ask for, long after the first. MemestError where it cannot be said."""
    if not call.cudnn:
        raise UnsupportedError("torch.backends.cudnn.enabled=False is not modelled")
    graph = from_torch(built(call, "meta"), call.inputs("meta"), mode="train" if call.train else "infer")
    shapes = {i.name: tuple(t.shape) for i, t in zip(graph.inputs, call.inputs("meta"), strict=True)}
    autocast = Autocast(dtype=call.autocast, loss_inside=False) if call.autocast else None
    run = Run(
        graph, shapes, _sizes(graph, shapes), Recipe(training=call.train, target=target, autocast=autocast), ROWS, Alone(), remember=True
    )
    if call.train and call.input_grad:
        for name in [i.name for i in graph.inputs][: len(call.shapes)]:
            value = run.env[name]
            value.requires_grad, value.node = True, AccumulateGrad(value, name)
    return _played(run, call)


def _sizes(graph: Graph, shapes: dict[str, Any]) -> dict[str, int]:
    from memest.network.binding import bind

    return bind(graph.inputs, shapes)


def _played(run: Run, call: Call) -> list[Event]:
    ledger = run.ledger
    ledger.phase = "forward"
    outputs = forward(run, whole(run))
    run.caller.leave_autocast()
    roots = [v for v in dict.fromkeys(outputs) if v.requires_grad]
    if call.train and len(roots) > 1:
        raise UnsupportedError("gradients from several results at once are not played")
    if call.train and roots:
        ledger.phase, ledger.layer, ledger.op = "backward", "", "ones_like"
        gradient = ledger.hold(Value(roots[0].spec, ledger.allocate(nbytes(roots[0].shape, roots[0].spec.dtype), "gradient")))
        run.machine.backward(roots[0], gradient)
        ledger.let_go(gradient)
    for value in run.machine.gradients.values():
        ledger.let_go(value)
    for value in dict.fromkeys(outputs):
        ledger.let_go(value)
    return list(ledger.events)
