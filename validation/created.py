"""One row under ``create_graph=True`` against torch: an example run forward, backward with a graph of its own, and back through that graph,
in torch and on the timeline, event by event."""

from __future__ import annotations

from typing import Any

import torch

from memest.machines.cpu import Cpu
from memest.machines.target import Target
from memest.machines.versions import nearest
from memest.memory.stream import Event
from memest.ops.composite import Composite
from memest.ops.operator import Example, Operator
from memest.runtimes.torch.autograd import AccumulateGrad, Machine
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.step import Caller
from memest.runtimes.torch.step.deriving import Deriving
from validation.profiling import Measured, record
from validation.rows import _fresh, call_torch, example_tensors, first_tensor, flat, spec_of


def _leaves(row: Operator | Composite, example: Example) -> tuple[list[Any], list[torch.Tensor], torch.Tensor | None]:
    """The example's tensors, those of them that want a gradient, and a gradient for the output that wants one, too; None where no
    gradient flows."""
    tensors = example_tensors(example)
    out = first_tensor(call_torch(row, _fresh(tensors, dict(example.attributes), row), dict(example.attributes)))
    gradient = torch.ones_like(out).detach().requires_grad_() if out.requires_grad else None
    return tensors, [t for t in flat(tensors) if t.requires_grad], gradient


def measure(row: Operator | Composite, example: Example) -> list[Measured] | None:
    """Torch's stream: the call, ``torch.autograd.grad`` of all its tensors with ``create_graph``, and a backward of what that gave, with
    gradients made beforehand."""
    tensors, leaves, gradient = _leaves(row, example)
    if gradient is None:
        return None
    attributes = dict(example.attributes)

    def grads() -> list[torch.Tensor]:
        out = first_tensor(call_torch(row, _fresh(tensors, attributes, row), attributes))
        found = torch.autograd.grad(out, leaves, gradient, create_graph=True, allow_unused=True)
        del out
        return [g for g in found if g is not None and g.requires_grad]

    ones = [torch.ones_like(g).detach() for g in grads()]

    def once() -> None:
        found = grads()
        if found:
            torch.autograd.backward(found, ones)

    once()
    for t in (*leaves, gradient):
        t.grad = None
    events, _ = record(once)
    return events


def predict(row: Operator | Composite, example: Example, cpu: Cpu) -> list[Event]:
    """The predicted events of the same calls."""
    tensors, leaves, gradient = _leaves(row, example)
    assert gradient is not None
    ledger = Ledger()
    machine = Machine(ledger, True, Target(version=nearest(torch.__version__), machine=cpu))
    caller = Caller(machine, True)
    machine.created = Deriving(machine, caller)
    known: dict[int, Value] = {}

    def value(t: torch.Tensor) -> Value:
        name = f"x{len(ledger.residents)}"
        v, leaf = (Value(spec_of(t), ledger.resident(0, "input", name)) for _ in range(2))
        ledger.hold(leaf)
        if t.requires_grad:
            v.node = leaf.node = AccumulateGrad(leaf, name)
            v.requires_grad = leaf.requires_grad = True
        known[id(t)] = leaf  # what is written into is no leaf any more
        return ledger.hold(v)

    arguments = [None if t is None else [value(u) for u in t] if isinstance(t, list) else value(t) for t in tensors]
    outputs = [ledger.hold(v) for v in caller.run(row, arguments, tuple(row.canonical(example.attributes).items())) if v is not None]
    out = next(v for v in outputs if v.requires_grad)
    for other in (*outputs, *(a for a in arguments if a is out)):
        if other is not out or out.refs > 1:
            ledger.let_go(other)
    found = machine.backward_of([(out, value(gradient))], keep=True, create=True, wanted=[known[id(t)] for t in leaves])
    ledger.let_go(out)
    roots = [g for g in found if g is not None and g.requires_grad]
    for g in found:
        if g is not None and not g.requires_grad:
            ledger.let_go(g)
    if roots:
        machine.backward_of([(g, ledger.hold(Value(g.spec, ledger.resident(0, "gradient", "ones")))) for g in roots])
    for g in roots:
        ledger.let_go(g)
    return list(ledger.events)
