"""A case of :mod:`calls <validation.cuda.calls>` as memest plays it: the graph that the importer records of the same module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.machines.target import Target
from memest.memory.stream import Event
from memest.network.binding import bind
from memest.network.tensor import nbytes
from memest.runtimes.torch.autograd import AccumulateGrad, Machine
from memest.runtimes.torch.cuda.rows import ROWS
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.step import Autocast, Caller, Recipe
from memest.runtimes.torch.step.batches import whole
from memest.runtimes.torch.step.forward import forward
from memest.runtimes.torch.step.parallel.alone import Alone
from memest.runtimes.torch.step.run import Run
from memest.sources.importers.torch.network import from_torch
from validation.cuda.calls import Call, built
from validation.rows import spec_of


def predict_call(call: Call, target: Target) -> list[Event]:
    """What a call and its backward pass ask for, long after the first. MemestError where it cannot be said."""
    if call.rows:
        return _loss(call, target)
    given = call.inputs("meta")
    graph = from_torch(built(call, "meta"), given, mode="train" if call.train else "infer")
    shapes = {i.name: tuple(t.shape) for i, t in zip(graph.inputs, given, strict=True)}
    autocast = Autocast(dtype=call.autocast, loss_inside=False) if call.autocast else None
    recipe = Recipe(training=call.train, target=target, autocast=autocast)
    run = Run(graph, shapes, bind(graph.inputs, shapes), recipe, ROWS, Alone(), remember=True)
    run.ranks = call.ranks or 1
    if call.train and call.input_grad:
        for name in [i.name for i in graph.inputs][: len(call.shapes)]:
            value = run.env[name]
            value.requires_grad, value.node = True, AccumulateGrad(value, name)
    return _played(run, call)


def _loss(call: Call, target: Target) -> list[Event]:
    """Rows of the table one after the other, each on what the one before gave; those that take a target get the case's."""
    ledger = Ledger()
    machine = Machine(ledger, True, target)
    caller = Caller(machine, True, None, ROWS)
    prediction, wanted = (_resident(ledger, t) for t in call.inputs("meta"))
    prediction.requires_grad, prediction.node = True, AccumulateGrad(prediction, "x")
    ledger.phase = "forward"
    out = prediction
    for name, attributes in call.rows:
        row = ROWS[name]
        tensors: list[Value | None] = [out, *([wanted] if "target" in row.roles else [])]
        tensors += [None] * (len(row.roles) - len(tensors))
        (result,) = caller.run(row, tensors, tuple(row.canonical(attributes).items()))
        assert result is not None
        ledger.hold(result)
        if out is not prediction:
            ledger.let_go(out)
        out = result
    _backward(machine, [out])
    for value in (*machine.gradients.values(), out):
        ledger.let_go(value)
    return list(ledger.events)


def _resident(ledger: Ledger, t: Any) -> Value:
    s = spec_of(t)
    return ledger.hold(Value(s, ledger.resident(nbytes(s.shape, s.dtype), "input", "x")))


def _backward(machine: Machine, roots: Sequence[Value]) -> None:
    """From ones, made for all before the first is read."""
    ledger = machine.ledger
    ledger.phase, ledger.layer, ledger.op = "backward", "", "ones_like"
    ones = [ledger.hold(Value(r.spec, ledger.allocate(nbytes(r.shape, r.spec.dtype), "gradient"))) for r in roots]
    machine.backward_of(list(zip(roots, ones, strict=True)))
    for gradient in ones:
        ledger.let_go(gradient)


def _played(run: Run, call: Call) -> list[Event]:
    ledger = run.ledger
    ledger.phase = "forward"
    outputs = forward(run, whole(run))
    run.caller.leave_autocast()
    roots = [v for v in dict.fromkeys(outputs) if v.requires_grad]
    if call.train and roots:
        _backward(run.machine, roots)
    for value in run.machine.gradients.values():
        ledger.let_go(value)
    for value in dict.fromkeys(outputs):
        ledger.let_go(value)
    return list(ledger.events)
